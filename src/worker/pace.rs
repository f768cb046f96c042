//! How far to look ahead: claims beyond the free slots, to hide the engine's round trip while jobs are short.

use std::time::Duration;

/// A job longer than this is not worth looking ahead for: its slot is busy for longer than any round trip.
const SHORT: f64 = 0.05;

/// Running averages of how long jobs and round trips take, in seconds.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    job: Option<f64>,
    round_trip: Option<f64>,
}

/// One part in eight is new: the average follows a change within a few dozen jobs.
fn fold(average: &mut Option<f64>, sample: Duration) {
    let sample = sample.as_secs_f64();
    *average = Some(average.map_or(sample, |average| average + (sample - average) / 8.0));
}

impl Pace {
    pub(crate) fn job_took(&mut self, time: Duration) {
        fold(&mut self.job, time);
    }

    pub(crate) fn round_trip_took(&mut self, time: Duration) {
        fold(&mut self.round_trip, time);
    }

    /// How many jobs to hold beyond the running ones: what `slots` finish in two round trips, and none when jobs are long
    /// or nothing is known; and never more than `most`, which hides no more and only hoards.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what is given")]
    pub(crate) fn ahead(&self, slots: usize, most: usize) -> usize {
        let (Some(job), Some(round_trip)) = (self.job, self.round_trip) else { return 0 };
        if job > SHORT {
            return 0;
        }
        // A microsecond is the least a job takes, whatever the clock says.
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        (number(slots) * 2.0 * round_trip / job.max(1e-6)).clamp(0.0, number(most)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_ahead_for_short_jobs_only() {
        let mut pace = Pace::default();
        assert_eq!(pace.ahead(64, 900), 0, "nothing is known yet");
        pace.job_took(Duration::from_micros(10));
        pace.round_trip_took(Duration::from_millis(1));
        assert_eq!(pace.ahead(64, 900), 900);
        assert_eq!(pace.ahead(64, 1_800), 1_800);
        assert_eq!(pace.ahead(1, 900), 200);
        for _ in 0..100 {
            pace.job_took(Duration::from_millis(10));
        }
        assert!((10..=13).contains(&pace.ahead(64, 900)), "{}", pace.ahead(64, 900));
        for _ in 0..100 {
            pace.job_took(Duration::from_secs(1));
        }
        assert_eq!(pace.ahead(64, 900), 0);
    }
}
