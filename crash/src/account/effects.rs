//! What handlers wrote in the transactions that completed their jobs.

use std::collections::HashMap;

use windlass_core::StateKind;

use super::Accounting;
use crate::effects::Row;
use crate::plan::{Act, id_of};

impl Accounting<'_> {
    /// One row a completed job, by the claim that completed it, and none of any other.
    pub(super) fn effects(&mut self, rows: &[Row]) {
        self.done.rows = rows.len() as u64;
        let mut written: HashMap<u64, Vec<u64>> = HashMap::new();
        for row in rows {
            written.entry(row.number).or_default().push(row.epoch);
        }
        let plan = self.plan;
        for number in (0..plan.jobs).filter(|number| matches!(plan.act(*number), Act::Effect(_))) {
            let record = self.stored.get(&id_of(number));
            let completed = record.filter(|record| record.state.kind() == StateKind::Completed);
            let wanted: Vec<u64> = completed.map(|record| record.epoch).into_iter().collect();
            let written = written.remove(&number).unwrap_or_default();
            if written != wanted {
                let what =
                    format!("job {number} wrote rows at the epochs {written:?}, and should at {wanted:?}");
                self.object_to(id_of(number), "effects", what);
            }
        }
        for (number, epochs) in written {
            self.object(
                "effects",
                format!("rows of a job {number}, at the epochs {epochs:?}, that has none"),
            );
        }
    }
}
