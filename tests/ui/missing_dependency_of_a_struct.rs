use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Clone)]
struct Mailer;
#[derive(Clone)]
struct Db;

#[derive(Deps)]
struct MailDeps {
    mailer: Mailer,
    db: Db,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "send_email")]
struct SendEmail;

impl Handler for SendEmail {
    type Deps = MailDeps;
    type Error = Fault;
    async fn handle(_: Self, MailDeps { mailer, db }: MailDeps, _: &mut Context) -> Result<Outcome, Fault> {
        let _ = (mailer, db);
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
