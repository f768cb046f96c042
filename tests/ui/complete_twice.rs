use windlass::envelope::{Envelope, Raw, Running};

fn twice(running: Envelope<Raw, Running>) {
    let _ = running.complete(None);
    let _ = running.complete(None);
}

fn main() {
    let _ = twice;
}
