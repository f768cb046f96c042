//! The guides, as pages: the same texts as in `docs/guide` of the repository.
//!
//! Every Rust block in them is compiled as a documentation test. Start with [`getting_started`]; what is promised and
//! what is not stands in [`guarantees`].

/// Makes a page of a guide.
macro_rules! guide {
    ($($name:ident = $file:literal;)*) => {
        $(
            #[doc = include_str!(concat!("../docs/guide/", $file))]
            pub mod $name {}
        )*
    };
}

guide! {
    getting_started = "getting-started.md";
    writing_jobs = "writing-jobs.md";
    dependencies = "dependencies.md";
    retries_and_failures = "retries-and-failures.md";
    scheduling_and_uniqueness = "scheduling-and-uniqueness.md";
    workers_and_shutdown = "workers-and-shutdown.md";
    testing = "testing.md";
    guarantees = "guarantees.md";
    states = "states.md";
}

#[cfg(test)]
mod tests {
    /// What stands between the marks `README: begin` and `README: end` of an example.
    fn marked(example: &str) -> &str {
        let (_, rest) = example.split_once("// README: begin\n").expect("it has a first mark");
        let (part, _) = rest.split_once("// README: end\n").expect("it has a last mark");
        part
    }

    #[test]
    fn the_readme_shows_its_program_and_its_test_as_they_are_run() {
        let readme = include_str!("../README.md");
        for (name, example) in [
            ("hello", include_str!("../examples/hello.rs")),
            ("testing", include_str!("../examples/testing.rs")),
        ] {
            assert!(
                readme.contains(marked(example)),
                "README.md and examples/{name}.rs differ between the marks"
            );
        }
    }
}
