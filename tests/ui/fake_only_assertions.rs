use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "greet")]
struct Greet;

fn check(queue: Queue<AnyBackend>) {
    queue.assert_dispatched::<Greet>();
}

fn main() {
    let _ = check;
}
