use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Clone)]
struct Mailer;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "send_email")]
struct SendEmail;

impl Handler for SendEmail {
    type Deps = Mailer;
    type Error = Fault;
    async fn handle(_: Self, _: Mailer, _: &mut Context) -> Result<Outcome, Fault> {
        Ok(Outcome::Done)
    }
}

#[derive(Provide)]
struct App {
    mailer: Mailer,
}

fn main() {
    let _ = Registry::new(App { mailer: Mailer }).register::<SendEmail>();
}
