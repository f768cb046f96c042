//! Names that are written into storage: of queues and of kinds of jobs.
//!
//! One rule for both, so that a name is legal on every engine, in every key, URL and file name.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::limits::NAME_MAX_BYTES;
use crate::{Error, Result};

/// Whether `name` obeys the rule of names: 1 to [`NAME_MAX_BYTES`] bytes of `a-z 0-9 _ . -`, the first a letter
/// or a digit.
///
/// Lower case only, because two names that differ in case alone are one name on some systems and two on others;
/// no `:` `{` `}` `*` or white space, because they mean something in a key, a pattern or a shell.
#[must_use]
pub(crate) const fn is_valid(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > NAME_MAX_BYTES {
        return false;
    }
    let mut at = 0;
    while at < bytes.len() {
        let fine = match bytes[at] {
            b'a'..=b'z' | b'0'..=b'9' => true,
            b'_' | b'.' | b'-' => at > 0,
            _ => false,
        };
        if !fine {
            return false;
        }
        at += 1;
    }
    true
}

fn check(what: &str, name: &str) -> Result<()> {
    if is_valid(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(40).flat_map(char::escape_debug).collect();
    Err(Error::invalid(format!(
        "{what} \"{shown}\" ({} bytes) is not a legal name: use 1 to {NAME_MAX_BYTES} bytes of a-z, 0-9, '_', '.', '-', \
         beginning with a letter or a digit",
        name.len()
    )))
}

/// Text that is either compiled in or shared; cloning never copies bytes.
#[derive(Clone)]
enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Text {
    fn as_str(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $type(Text);

        impl $type {
            /// Checks `name` against the rule of names and keeps a copy.
            ///
            /// # Errors
            /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) names the field, the value and the rule.
            pub fn new(name: impl AsRef<str>) -> Result<Self> {
                let name = name.as_ref();
                check($what, name)?;
                Ok(Self(Text::Shared(Arc::from(name))))
            }

            /// A name known at compile time; nothing is copied.
            ///
            /// # Panics
            /// When `name` breaks the rule of names. In a `const` that is a compile error.
            #[must_use]
            pub const fn from_static(name: &'static str) -> Self {
                assert!(
                    is_valid(name),
                    concat!($what, " is not a legal name: use 1 to 128 bytes of a-z, 0-9, '_', '.', '-', \
                             beginning with a letter or a digit")
                );
                Self(Text::Static(name))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.as_str().cmp(other.as_str())
            }
        }
        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }
        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
        impl TryFrom<&str> for $type {
            type Error = Error;
            fn try_from(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }
        impl TryFrom<String> for $type {
            type Error = Error;
            fn try_from(name: String) -> Result<Self> {
                Self::new(name)
            }
        }
        impl From<&$type> for $type {
            fn from(name: &$type) -> Self {
                name.clone()
            }
        }
        impl std::str::FromStr for $type {
            type Err = Error;
            fn from_str(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }
    };
}

name! {
    /// The name of a lane within a namespace, such as `mail`: 1 to 128 bytes of `a-z 0-9 _ . -`.
    ///
    /// Every step that must be atomic is atomic within one named queue.
    QueueName, "queue name"
}

name! {
    /// The stable name of a kind of job, such as `send_welcome_email`: 1 to 128 bytes of `a-z 0-9 _ . -`.
    ///
    /// It is written by the author and never derived from a Rust path, so that moving a type orphans nothing.
    Kind, "kind"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn legal_names_are_taken_as_they_are() {
        for name in ["a", "0", "mail", "send_welcome_email", "tenant-7.high", &"a".repeat(128)] {
            assert_eq!(QueueName::new(name).unwrap(), *name);
            assert_eq!(Kind::try_from(name).unwrap().as_str(), name);
        }
        const MAIL: QueueName = QueueName::from_static("mail");
        assert_eq!(MAIL, QueueName::new("mail").unwrap());
        assert_eq!(format!("{MAIL} {MAIL:?}"), "mail \"mail\"");
    }

    #[test]
    fn bad_names_are_refused_naming_field_value_and_rule() {
        let long = "a".repeat(129);
        let bad = [
            "",
            &long,
            " ",
            "a b",
            "a:b",
            "{mail}",
            "*",
            "a\nb",
            "a\0b",
            "../etc",
            "'; drop table jobs",
            "\"",
            "📮",
            "mail\u{202e}",
            "ma\u{200b}il",
            "e\u{301}",
            "é",
            "Mail",
            "_mail",
            ".mail",
            "-mail",
        ];
        for name in bad {
            let error = QueueName::new(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{name:?}");
            let text = error.to_string();
            assert!(text.contains("queue name") && text.contains("1 to 128 bytes"), "{text}");
            assert!(text.len() < 600 && !text.contains('\n') && !text.contains('\0'), "{text:?}");
            assert!(Kind::new(name).unwrap_err().to_string().contains("kind"));
        }
    }

    #[test]
    #[should_panic(expected = "kind is not a legal name")]
    fn a_bad_static_name_stops_the_program_at_once() {
        let _ = Kind::from_static("Not Legal");
    }
}
