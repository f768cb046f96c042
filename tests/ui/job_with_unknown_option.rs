use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "send_email", retries = 5)]
struct SendEmail;

fn main() {}
