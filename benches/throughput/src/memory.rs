//! Bytes a waiting job takes, by the resident memory of this process.

use tokio::runtime::Runtime;
use windlass::{MemoryBackend, Queue};

use crate::options::Settings;
use crate::whole;

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4096
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one process fit")]
pub(crate) fn per_waiting_job(runtime: &Runtime, settings: Settings) -> f64 {
    runtime.block_on(async {
        let queue = Queue::new(MemoryBackend::new());
        let before = resident();
        whole::fill(&queue, settings.jobs).await;
        resident().saturating_sub(before) as f64 / settings.jobs as f64
    })
}
