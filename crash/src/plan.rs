//! What each job does and how it is dispatched: a function of the seed and the job's number, so that dispatchers, workers and
//! the accounting agree without a word.

use std::time::Duration;

use windlass::prelude::UniqueBy;
use windlass_core::JobId;

/// Jobs of one block are dispatched by one dispatcher, in one way.
pub(crate) const BLOCK: u64 = 64;

/// The named queues that the jobs are in.
pub(crate) const QUEUES: [&str; 2] = ["crash-a", "crash-b"];

/// Places under the concurrency limit.
pub(crate) const AT_MOST: u32 = 2;

/// How long a job lingers that runs again: less than a lease, and longer than a zombie takes to come round on a busy machine.
pub(crate) const LINGERS: Duration = Duration::from_millis(600);

/// What a job's handler does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    /// Is done at once.
    Done,
    /// Is done after so many milliseconds.
    Slow(u64),
    /// Is done at once, and when it runs again only after [`LINGERS`]: what a zombie says of it meets a run.
    Linger,
    /// Writes a row in the transaction that completes it, and does this besides.
    Effect(Turn),
    /// Gives its epoch back.
    Output,
    /// Is done, and so many children ride with its verdict.
    Then(u32),
    /// Fails the first time.
    Fail,
    /// Fails every time.
    FailAlways,
    /// Panics the first time.
    Panic,
    /// Snoozes when it is claimed for the first time.
    Snooze,
    /// Calls itself off.
    Cancel,
    /// Says that trying again is of no use.
    Bury,
}

/// What happens around the transaction that completes a job, the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Nothing.
    Straight,
    /// When it runs again it takes [`LINGERS`] first, so that a zombie meets a run.
    Lingers,
    /// It fails with the row written, before the completion.
    FailsBefore,
    /// It is rolled back after the completion, and the handler says that it settled.
    RollsBack,
    /// The handler panics with everything written.
    Panics,
    /// The handler fails after the commit.
    FailsAfter,
}

/// What is asked for when a job is dispatched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    Nothing,
    /// So many milliseconds later.
    Delay(u64),
    /// One at a time of this key: the second is skipped.
    Skip(u64),
    /// The second takes the first one's place.
    Supersede(u64),
    /// The second waits behind the first.
    QueueOne(u64),
    /// At most [`AT_MOST`] of this key at once.
    Limit(u64),
    /// After the job before it.
    Parent,
}

/// How the jobs of a block are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Each when the one before is acknowledged.
    OneByOne,
    /// Each by itself, all at once.
    AtOnce,
    /// In one call.
    Batch,
}

/// The plan of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) jobs: u64,
    /// Whether the jobs have effects in the transactions that complete them.
    pub(crate) effects: bool,
}

/// `SplitMix64` (Steele, Lea, Flood 2014): a good hash of a counter.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Plan {
    fn draw(&self, what: u64, number: u64) -> u64 {
        mix(mix(self.seed ^ what.rotate_left(32)) ^ number)
    }

    /// What job `number` does.
    pub(crate) fn act(&self, number: u64) -> Act {
        let draw = self.draw(1, number);
        let more = (draw >> 32) % 1_000;
        if self.effects {
            return match draw % 1_000 {
                0..30 => Act::Effect(Turn::Lingers),
                30..60 => Act::Effect(Turn::FailsBefore),
                60..100 => Act::Effect(Turn::RollsBack),
                100..120 => Act::Effect(Turn::Panics),
                120..160 => Act::Effect(Turn::FailsAfter),
                _ => Act::Effect(Turn::Straight),
            };
        }
        match draw % 1_000 {
            0..50 => Act::Slow(1 + more % 20),
            50..100 => Act::Output,
            100..130 => Act::Then(1 + u32::try_from(more % 3).unwrap_or(0)),
            130..160 => Act::Fail,
            160..170 => Act::FailAlways,
            170..180 => Act::Panic,
            180..200 => Act::Snooze,
            200..210 => Act::Cancel,
            210..220 => Act::Bury,
            220..250 => Act::Linger,
            _ => Act::Done,
        }
    }

    /// What is asked for when job `number` is dispatched.
    pub(crate) fn wish(&self, number: u64) -> Wish {
        if number >= self.jobs || self.effects {
            return Wish::Nothing;
        }
        let draw = self.draw(2, number);
        // Few keys, so that they clash.
        let more = (draw >> 32) % 1_000;
        match draw % 1_000 {
            0..30 => Wish::Delay(more),
            30..45 => Wish::Skip(more % 5),
            45..55 => Wish::Supersede(more % 5),
            55..70 => Wish::QueueOne(more % 5),
            70..80 => Wish::Limit(more % 3),
            80..100 if self.may_have_parent(number) => Wish::Parent,
            _ => Wish::Nothing,
        }
    }

    /// A parent is in the same queue and block, is stored before its child is sent, and is never refused for its key.
    fn may_have_parent(&self, number: u64) -> bool {
        !number.is_multiple_of(BLOCK)
            && self.way(number / BLOCK) != Way::AtOnce
            && self.queue(number) == self.queue(number - 1)
            && !matches!(self.wish(number - 1), Wish::Skip(_) | Wish::Supersede(_) | Wish::QueueOne(_))
    }

    /// How a block is sent.
    pub(crate) fn way(&self, block: u64) -> Way {
        match self.draw(3, block) % 10 {
            0 => Way::OneByOne,
            1..4 => Way::AtOnce,
            _ => Way::Batch,
        }
    }

    /// The named queue of job `number`.
    pub(crate) fn queue(&self, number: u64) -> &'static str {
        QUEUES[usize::from(self.draw(4, number).is_multiple_of(3))]
    }

    /// How many blocks there are.
    pub(crate) fn blocks(&self) -> u64 {
        self.jobs.div_ceil(BLOCK)
    }

    /// The jobs of a block.
    pub(crate) fn block(&self, block: u64) -> std::ops::Range<u64> {
        block * BLOCK..((block + 1) * BLOCK).min(self.jobs)
    }
}

impl Wish {
    /// The unique key, and what a conflict does.
    pub(crate) fn unique(self) -> Option<UniqueBy> {
        match self {
            Self::Skip(key) => Some(UniqueBy::key(format!("skip-{key}"))),
            Self::Supersede(key) => Some(UniqueBy::key(format!("supersede-{key}")).supersede()),
            Self::QueueOne(key) => Some(UniqueBy::key(format!("queue-one-{key}")).queue_one()),
            _ => None,
        }
    }

    /// Of what key how many may run at once.
    pub(crate) fn exclusion(self) -> Option<(String, u32)> {
        match self {
            Self::Skip(key) => Some((format!("skip-{key}"), 1)),
            Self::Supersede(key) => Some((format!("supersede-{key}"), 1)),
            Self::QueueOne(key) => Some((format!("queue-one-{key}"), 1)),
            Self::Limit(key) => Some((format!("limit-{key}"), AT_MOST)),
            _ => None,
        }
    }
}

impl Act {
    /// Attempts that the job is given.
    pub(crate) fn max_attempts(self) -> u16 {
        match self {
            Self::FailAlways => 2,
            // Each outage of the server fails an attempt whose transaction was under way.
            Self::Effect(_) => 1_000,
            _ => 5,
        }
    }

    /// How long the handler takes.
    pub(crate) fn takes(self) -> Duration {
        if let Self::Slow(millis) = self { Duration::from_millis(millis) } else { Duration::ZERO }
    }
}

/// The identity of job `number`: known before it is dispatched, and to everybody.
pub(crate) fn id_of(number: u64) -> JobId {
    JobId::sequential(number + 1)
}

/// The number of a job with such an identity.
pub(crate) fn number_of(id: JobId) -> Option<u64> {
    let number = id.as_uuid().as_u64_pair().1 & 0x3fff_ffff_ffff_ffff;
    let number = number.checked_sub(1)?;
    (id_of(number) == id).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_an_identity_and_back() {
        for number in [0, 1, 63, 200_000, u64::from(u32::MAX)] {
            assert_eq!(number_of(id_of(number)), Some(number));
        }
        assert_eq!(number_of(JobId::fresh()), None);
        assert_eq!(number_of(JobId::derived(id_of(7), 1, 0)), None);
    }

    #[test]
    fn a_plan_has_some_of_everything_and_repeats_itself() {
        let plan = Plan { seed: 7, jobs: 20_000, effects: false };
        let again = Plan { seed: 7, jobs: 20_000, effects: false };
        let other = Plan { seed: 8, jobs: 20_000, effects: false };
        let (mut parents, mut snoozes, mut differs) = (0, 0, 0);
        for number in 0..plan.jobs {
            assert_eq!((plan.act(number), plan.wish(number)), (again.act(number), again.wish(number)));
            parents += u32::from(plan.wish(number) == Wish::Parent);
            snoozes += u32::from(plan.act(number) == Act::Snooze);
            differs += u32::from(plan.act(number) != other.act(number));
        }
        assert!(parents > 50 && snoozes > 200 && differs > 1_000, "{parents} {snoozes} {differs}");
        assert!((0..plan.blocks()).any(|block| plan.way(block) == Way::OneByOne));
    }
}
