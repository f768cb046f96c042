//! The engine chosen at run time.

use windlass::core::Connect as _;
use windlass::prelude::*;
use windlass::{Cancelling, ErrorKind, StateKind};

use super::support::*;

#[tokio::test]
async fn the_url_chooses_the_engine_and_everything_works_through_it() {
    let queue = Queue::<AnyBackend>::connect("memory:").await.unwrap();
    assert_eq!((queue.backend().engine_name(), queue.backend().capabilities().durable), ("memory", false));
    let journal = Journal::default();
    let jobs = Registry::new(App { journal: journal.clone() }).register::<Act>();
    let done = queue.dispatch(finish("done")).await.unwrap();
    let later = queue.dispatch(finish("later")).delay(hours(1)).await.unwrap();
    let dead = queue.dispatch(act("dead", Do::Bury("no".to_owned()))).await.unwrap();
    queue.pause("other").await.unwrap();
    queue.resume("other").await.unwrap();
    let report = Worker::new(queue.clone(), jobs.clone()).until_empty().run().await.unwrap();
    assert_eq!((report.completed, report.dead), (1, 1));
    assert_eq!(queue.wait_for(&done, seconds(1)).await.unwrap(), Some(Ended::Completed(())));
    queue.revive(dead.job_ref()).await.unwrap();
    queue.run_now(later.job_ref()).await.unwrap();
    assert_eq!(queue.cancel(dead.job_ref(), "x").await.unwrap(), Cancelling::Cancelled);
    Worker::new(queue.clone(), jobs).until_empty().run().await.unwrap();
    assert_eq!(journal.lines(), ["done", "dead", "later"]);
    queue.delete(dead.job_ref()).await.unwrap();
    let queues = queue.queues().await.unwrap();
    assert_eq!(queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(), ["default", "other"]);
    assert_eq!(queues[0].counts.get(StateKind::Completed), 2);
    let (page, _) = queue.list(&windlass::Filter::default(), None, 10).await.unwrap();
    assert_eq!(page.len(), 2);
    assert!(queue.migrate().await.unwrap().is_empty());
    assert!(format!("{queue:?}").contains("MemoryBackend"));
}

#[tokio::test]
async fn a_url_that_no_engine_answers_to_is_refused_without_showing_it() {
    for url in ["mysql://user:hunter2@host/db", "hunter2", "", ":", "hunter2 secret:x"] {
        let error = Queue::<AnyBackend>::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!error.to_string().contains("hunter2") && error.to_string().contains("memory"), "{error}");
    }
    assert!(Queue::<MemoryBackend>::connect("memory:shared").await.is_err());
    assert!(AnyBackend::SCHEMES.contains(&"memory"));
}
