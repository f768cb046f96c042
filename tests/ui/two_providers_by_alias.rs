use windlass::Provide;

#[derive(Clone)]
struct Mailer;
type SameMailer = Mailer;

#[derive(Provide)]
struct App {
    primary: Mailer,
    fallback: SameMailer,
}

fn main() {
    let _ = App { primary: Mailer, fallback: Mailer };
}
