//! The scripts: their sources from `lua/`, and the digests by which a server knows them.

use redis::Cmd;
use std::fmt::Write as _;
use std::sync::OnceLock;

/// A script of `lua/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Script {
    Push,
    PushPlain,
    Work,
    Extend,
    HandBack,
    Annotate,
    Sweep,
    Manage,
    Outbox,
    Fetch,
    Scan,
    Look,
    Outcomes,
    Tick,
}

/// A source and its digest.
pub(crate) struct Source {
    pub(crate) text: String,
    pub(crate) digest: String,
}

const KEYS: &str = include_str!("../lua/keys.lua");
const JOB: &str = include_str!("../lua/job.lua");
const ENDING: &str = include_str!("../lua/ending.lua");
const INSERT: &str = include_str!("../lua/insert.lua");

impl Script {
    #[cfg(test)]
    const ALL: [Self; 14] = [
        Self::Push,
        Self::PushPlain,
        Self::Work,
        Self::Extend,
        Self::HandBack,
        Self::Annotate,
        Self::Sweep,
        Self::Manage,
        Self::Outbox,
        Self::Fetch,
        Self::Scan,
        Self::Look,
        Self::Outcomes,
        Self::Tick,
    ];

    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Push => &[KEYS, JOB, ENDING, INSERT, include_str!("../lua/push.lua")],
            Self::PushPlain => &[include_str!("../lua/push_plain.lua")],
            Self::Work => &[
                KEYS,
                JOB,
                ENDING,
                INSERT,
                include_str!("../lua/settle.lua"),
                include_str!("../lua/work.lua"),
            ],
            Self::Extend => &[KEYS, JOB, include_str!("../lua/extend.lua")],
            Self::HandBack => &[KEYS, JOB, ENDING, include_str!("../lua/hand_back.lua")],
            Self::Annotate => &[KEYS, JOB, include_str!("../lua/annotate.lua")],
            Self::Sweep => &[KEYS, JOB, ENDING, include_str!("../lua/sweep.lua")],
            Self::Manage => &[KEYS, JOB, ENDING, include_str!("../lua/manage.lua")],
            Self::Outbox => &[KEYS, include_str!("../lua/outbox.lua")],
            Self::Fetch => &[KEYS, include_str!("../lua/fetch.lua")],
            Self::Scan => &[KEYS, include_str!("../lua/scan.lua")],
            Self::Look => &[KEYS, include_str!("../lua/look.lua")],
            Self::Outcomes => &[KEYS, include_str!("../lua/outcomes.lua")],
            Self::Tick => &[include_str!("../lua/tick.lua")],
        }
    }

    /// Whether a full server must let it through: what ends or gives back jobs makes room, and finished work that could
    /// not be said would be done again.
    fn when_full(self) -> bool {
        !matches!(self, Self::Push | Self::PushPlain)
    }

    /// The source for a server of this major version. Since 7 a script can say that it may run on a full server.
    pub(crate) fn source(self, major: u32) -> &'static Source {
        static SOURCES: [[OnceLock<Source>; 2]; 14] = [const { [const { OnceLock::new() }; 2] }; 14];
        let flagged = major >= 7 && self.when_full();
        SOURCES[self as usize][usize::from(flagged)].get_or_init(|| {
            let mut text = String::new();
            if flagged {
                text.push_str("#!lua flags=allow-oom\n");
            }
            for part in self.parts() {
                // Comments and indentation would only be sent.
                for line in
                    part.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--"))
                {
                    text.push_str(line);
                    text.push('\n');
                }
            }
            let digest = sha1(text.as_bytes());
            Source { text, digest }
        })
    }

    /// The beginning of a call by digest: the keys must follow, then the arguments.
    pub(crate) fn call(self, major: u32, keys: usize) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&*self.source(major).digest).arg(keys);
        command
    }
}

/// SHA-1 (FIPS 180-4), by which a server names a script. Nothing here is a secret.
fn sha1(bytes: &[u8]) -> String {
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((bytes.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, four) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([four[0], four[1], four[2], four[3]]);
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, constant) = match at / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    state.iter().fold(String::with_capacity(40), |mut text, word| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{word:08x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(sha1(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(sha1(b""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(sha1(&[b'a'; 1_000]), "291e9a6c66994949b57ba5e650361e98fc36b1ba");
    }

    #[test]
    fn every_script_says_what_it_does_and_a_push_yields_to_a_full_server() {
        for script in Script::ALL {
            let last = script.parts().last().copied().unwrap_or_default();
            assert!(last.starts_with("-- ") && last.contains("-- Cost"), "{script:?}");
            assert!(!script.source(6).text.starts_with("#!"));
            let takes_in = matches!(script, Script::Push | Script::PushPlain);
            assert_eq!(script.source(7).text.starts_with("#!lua flags=allow-oom"), !takes_in);
            assert_eq!(script as usize, Script::ALL.iter().position(|other| *other == script).unwrap_or(99));
        }
    }
}
