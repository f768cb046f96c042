use windlass::prelude::*;

#[derive(Provide)]
enum App {
    One(u8),
}

fn main() {}
