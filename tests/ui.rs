//! Mistakes that must not compile, and the messages that say what to do: one mistake, one error, which names the type and
//! the fix.
//!
//! The messages are the compiler's of the version they were written with (1.95); another version may word its part
//! differently, and then this test says so instead of failing.

#[test]
fn one_mistake_gives_one_error_that_names_the_type_and_the_fix() {
    if !written_for_this_compiler() {
        eprintln!("skipped: the pinned messages are those of rustc 1.95");
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}

fn written_for_this_compiler() -> bool {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = std::process::Command::new(rustc).arg("--version").output().expect("rustc runs");
    String::from_utf8_lossy(&version.stdout).starts_with("rustc 1.95.")
}

/// Every message has exactly one error: two would send the reader to the wrong one.
#[test]
fn every_pinned_message_is_one_error_per_mistake() {
    let mut seen = 0;
    for entry in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ui")).expect("the folder is there")
    {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "stderr") {
            let text = std::fs::read_to_string(&path).expect("readable");
            let errors = text.lines().filter(|line| line.starts_with("error")).count();
            let mistakes = if path.ends_with("two_missing_dependencies.stderr") { 2 } else { 1 };
            assert_eq!(errors, mistakes, "{}:\n{text}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 15, "only {seen} messages are pinned");
}
