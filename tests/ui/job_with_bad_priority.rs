use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "send_email", priority = 10)]
struct SendEmail;

fn main() {}
