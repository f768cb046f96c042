use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "Send Email")]
struct SendEmail;

fn main() {}
