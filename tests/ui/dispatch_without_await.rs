#![deny(unused_must_use)]

use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "greet")]
struct Greet;

async fn forgets(queue: Queue<MemoryBackend>) {
    queue.dispatch(Greet).on("mail");
}

fn main() {
    let _ = forgets(Queue::new(MemoryBackend::new()));
}
