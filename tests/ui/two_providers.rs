use windlass::prelude::*;

#[derive(Clone)]
struct Mailer;

#[derive(Provide)]
struct App {
    primary: Mailer,
    fallback: Mailer,
}

fn main() {
    let _ = App { primary: Mailer, fallback: Mailer };
}
