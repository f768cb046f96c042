//! Jobs that the harness is tried on, and the way to its golden files.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Clone, Serialize, Deserialize, Job)]
#[job(name = "send_email", queue = "default", aliases("mail"))]
pub(crate) struct SendEmail {
    pub(crate) to: String,
    pub(crate) template: String,
    pub(crate) locale: String,
}

pub(crate) fn email(to: &str, template: &str) -> SendEmail {
    SendEmail { to: to.to_owned(), template: template.to_owned(), locale: "en".to_owned() }
}

/// The name that `SendEmail` had once.
#[derive(Serialize, Deserialize, Job)]
#[job(name = "mail")]
pub(crate) struct Mail {
    pub(crate) to: String,
    pub(crate) template: String,
    pub(crate) locale: String,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "email_digest")]
pub(crate) struct Digest;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "resize_image", queue = "media", priority = 7)]
pub(crate) struct Resize {
    pub(crate) path: String,
    pub(crate) width: u32,
}

pub(crate) fn resize(path: &str) -> Resize {
    Resize { path: path.to_owned(), width: 200 }
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "audit")]
pub(crate) struct Audit {
    pub(crate) event: String,
}

pub(crate) fn audit(event: &str) -> Audit {
    Audit { event: event.to_owned() }
}

/// The text of a panic.
pub(crate) fn message(assertion: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(assertion)).expect_err("it should fail");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().expect("a message")).to_owned(),
    }
}

/// Snapshots go to `tests/golden`, without the source's lines: they would change with every edit.
pub(crate) fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    // A predicate is named with its line; the line is checked where it is of interest.
    let text = at_line(text);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn at_line(text: &str) -> String {
    let mut parts = text.split(".rs:");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str(".rs:LINE");
        shown.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    shown
}
