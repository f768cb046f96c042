use windlass::envelope::{Draft, Envelope, Raw};

fn complete(draft: Envelope<Raw, Draft>) {
    let _ = draft.complete(None);
}

fn main() {
    let _ = complete;
}
