//! What must be true of a store at any moment, whatever happened before.

use std::collections::HashMap;

use windlass_core::{DeadReason, Record, RecordState, StateKind, Until, WhyBlocked, limits::LOST_LEASES_MAX};

/// Checks all records of one store: counters that belong together, one holder and one behind for each key held until
/// the end, and no limit exceeded (where the jobs of one key agree on it).
///
/// # Errors
/// The first that does not hold.
pub fn check(records: &[Record]) -> Result<(), String> {
    let mut limits: HashMap<_, (u64, u64)> = HashMap::new();
    let mut keys: HashMap<_, (u64, u64)> = HashMap::new();
    for record in records {
        counters(record)?;
        let queue = &record.body.queue;
        let state = record.state.kind();
        if let Some(limit) = record.body.limit() {
            let (strictest, taken) = limits.entry((queue, &limit.key)).or_insert((0, 0));
            *strictest = (*strictest).max(u64::from(limit.at_most));
            *taken += u64::from(matches!(state, StateKind::Ready | StateKind::Running));
        }
        if let Some(unique) = record.body.unique() {
            let (holders, behind) = keys.entry((queue, &unique.key)).or_insert((0, 0));
            let waits = record.state == RecordState::Blocked { why: WhyBlocked::Unique };
            *behind += u64::from(waits);
            *holders += u64::from(!waits && !state.is_final() && unique.until == Until::End);
        }
    }
    if let Some((key, (at_most, taken))) = limits.iter().find(|(_, (at_most, taken))| taken > at_most) {
        return Err(format!("{taken} jobs are in under the limit {key:?} of {at_most}"));
    }
    if let Some((key, holders)) = keys.iter().find(|(_, (holders, behind))| *holders > 1 || *behind > 1) {
        return Err(format!("the key {key:?} has {holders:?} (holders, jobs behind)"));
    }
    Ok(())
}

fn counters(record: &Record) -> Result<(), String> {
    let claims = u64::from(record.attempts) + u64::from(record.lost_leases);
    let poison = matches!(record.state, RecordState::Dead { reason: DeadReason::Poison, .. });
    let sound = claims <= record.epoch
        && record.lost_leases <= LOST_LEASES_MAX
        && (record.lost_leases < LOST_LEASES_MAX || poison)
        && (record.state.kind() != StateKind::Running || record.epoch > 0)
        && record.log.len() <= windlass_core::limits::LOG_LINES_MAX;
    if sound { Ok(()) } else { Err(format!("the counters of a record do not add up: {record:?}")) }
}

#[cfg(test)]
mod tests {
    use windlass_core::{NewJob, OnConflict, Timestamp};

    use super::*;
    use crate::draft;

    fn record(job: NewJob, state: RecordState) -> Record {
        Record {
            body: job.body,
            state,
            created_at: Timestamp::VIRTUAL_START,
            attempts: 0,
            lost_leases: 0,
            generation: 0,
            epoch: 0,
            last_error: None,
            progress: None,
            log: Vec::new(),
        }
    }

    #[test]
    fn a_broken_store_is_found_out() {
        let ready = || RecordState::Ready { parked: false };
        let limited = || record(draft().limit("k", 1).build(), ready());
        check(&[limited()]).unwrap();
        assert!(check(&[limited(), limited()]).unwrap_err().contains("under the limit"));
        let keyed = || record(draft().unique("k", OnConflict::Skip, Until::End).build(), ready());
        check(&[keyed()]).unwrap();
        assert!(check(&[keyed(), keyed()]).unwrap_err().contains("the key"));
        let mut strange = record(draft().build(), ready());
        strange.attempts = 1;
        assert!(check(&[strange.clone()]).unwrap_err().contains("do not add up"));
        (strange.attempts, strange.epoch, strange.lost_leases) = (0, 9, 3);
        assert!(check(&[strange]).unwrap_err().contains("do not add up"));
    }
}
