//! The guides, as pages: the same texts as in `docs/guide` of the repository.
//!
//! Every Rust block in them is compiled as a documentation test. Start with [`getting_started`]; what is promised and
//! what is not stands in [`guarantees`].

/// Makes a page of each guide.
///
/// The guides define their links to each other at their foot, for readers of the repository. The definitions here come
/// first and so count on these pages.
macro_rules! guide {
    ($($name:ident = $file:literal;)*) => {
        $(
            #[doc = "[dependencies]: crate::docs::dependencies"]
            #[doc = "[dependencies#a-handler-in-another-crate]: crate::docs::dependencies#a-handler-in-another-crate"]
            #[doc = "[guarantees]: crate::docs::guarantees"]
            #[doc = "[retries-and-failures]: crate::docs::retries_and_failures"]
            #[doc = "[scheduling-and-uniqueness#parents]: crate::docs::scheduling_and_uniqueness#parents"]
            #[doc = "[workers-and-shutdown]: crate::docs::workers_and_shutdown"]
            #[doc = "[workers-and-shutdown#which-queue-first]: crate::docs::workers_and_shutdown#which-queue-first"]
            #[doc = "[writing-jobs]: crate::docs::writing_jobs"]
            #[doc = ""]
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
