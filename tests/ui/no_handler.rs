use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "resize")]
struct Resize;

fn main() {
    let _ = Registry::new(()).register::<Resize>();
}
