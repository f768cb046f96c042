use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Serialize, Deserialize)]
struct NotAJob;

async fn dispatch(queue: Queue<MemoryBackend>) {
    let _ = queue.dispatch(NotAJob).on("mail").delay(hours(1)).await;
}

fn main() {
    let _ = dispatch(Queue::new(MemoryBackend::new()));
}
