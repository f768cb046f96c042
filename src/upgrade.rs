//! Reading payloads of older versions: typed, one step from an old struct to the present one.

use std::fmt;

use serde::de::DeserializeOwned;
use windlass_core::{Error, ErrorKind, Result};

use crate::codec::Codec;
use crate::job::Job;

/// How to read the payload of one older version of `J`.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use windlass::prelude::*;
///
/// #[derive(Serialize, Deserialize)]
/// struct SendEmailV1 {
///     to: String,
/// }
///
/// #[derive(Serialize, Deserialize, Job)]
/// #[job(name = "send_email", version = 2, min_reader = 2, upgrades = &[Upgrade::via::<SendEmailV1>(1)])]
/// struct SendEmail {
///     to: Vec<String>,
/// }
///
/// impl From<SendEmailV1> for SendEmail {
///     fn from(old: SendEmailV1) -> Self {
///         Self { to: vec![old.to] }
///     }
/// }
/// ```
pub struct Upgrade<J> {
    from: u16,
    read: fn(Codec, &[u8]) -> Result<J>,
}

impl<J> Upgrade<J> {
    /// Reads version `from` as `Old` and turns it into the present type.
    #[must_use]
    pub const fn via<Old: DeserializeOwned + Into<J>>(from: u16) -> Self {
        Self { from, read: |codec, bytes| codec.decode::<Old>(bytes).map(Into::into) }
    }
}

impl<J> fmt::Debug for Upgrade<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").field("from", &self.from).finish_non_exhaustive()
    }
}

/// Reads the payload of any version that `J` knows.
///
/// A newer version is read as the present one: its writer said with `MIN_READER` that this is safe.
///
/// # Errors
/// [`ErrorKind::Decode`] when the bytes do not fit, or no upgrade from their version is declared.
pub(crate) fn decode<J: Job>(codec: Codec, version: u16, bytes: &[u8]) -> Result<J> {
    if version >= J::VERSION {
        return codec.decode(bytes);
    }
    match J::UPGRADES.iter().find(|upgrade| upgrade.from == version) {
        Some(upgrade) => (upgrade.read)(codec, bytes),
        None => Err(Error::new(
            ErrorKind::Decode,
            format!("no upgrade from version {version} to {} of `{}` is declared", J::VERSION, J::NAME),
        )),
    }
}
