use windlass::prelude::*;

#[derive(Deps)]
struct Wants<T> {
    one: T,
}

fn main() {}
