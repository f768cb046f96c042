//! The limit of the runtime: a channel, and a spawned task for each job. No codec, no store, no retry, no fence.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::checked::Runs;
use crate::options::Settings;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn drain(runtime: &Runtime, settings: Settings) -> Duration {
    let runs = Runs::new(settings.jobs);
    let elapsed = runtime.block_on(async {
        let (send, mut receive) = tokio::sync::mpsc::unbounded_channel::<(usize, [u8; 100])>();
        for job in 0..settings.jobs {
            send.send((job, [b'x'; 100])).expect("the receiver lives");
        }
        drop(send);
        let (done, mut all_done) = tokio::sync::mpsc::channel::<()>(1);
        let begun = Instant::now();
        let counted = runs.clone();
        tokio::spawn(async move {
            while let Some((job, payload)) = receive.recv().await {
                let (runs, done) = (counted.clone(), done.clone());
                tokio::spawn(async move {
                    std::hint::black_box(&payload);
                    if runs.count_last(job) {
                        let _ = done.try_send(());
                    }
                });
            }
        });
        all_done.recv().await;
        begun.elapsed()
    });
    runs.assert_exactly_once();
    elapsed
}
