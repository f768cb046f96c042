use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "send_email", timeout = "30 seconds")]
struct SendEmail;

fn main() {}
