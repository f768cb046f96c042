//! A master that dies under its Sentinels: the engine follows them to the next.

mod support;

use std::time::Duration;

use windlass_conformance::draft;
use windlass_core::{At, Backend, Connect, ErrorKind, Inspect, NewJob};
use windlass_redis::{RedisBackend, RedisOptions};
use windlass_servers::RedisSentinels;

const AT: At = At::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_master_leads_to_the_one_that_the_sentinels_name() {
    let mut trio = tokio::task::block_in_place(RedisSentinels::start).expect("private Sentinels");
    let options = RedisOptions::new(trio.url()).response_timeout(Duration::from_secs(2));
    let backend = support::open(options).await;
    let before: Vec<NewJob> = (0..20).map(|_| draft().build()).collect();
    backend.push(&before, AT).await.expect("push");
    // The first of the Sentinels is gone as well.
    trio.sentinels()[0].kill().expect("kill");
    tokio::time::sleep(Duration::from_millis(300)).await;
    trio.servers()[0].kill().expect("kill");
    let job = draft().build();
    let mut pushed = false;
    for _ in 0..600 {
        match backend.push(std::slice::from_ref(&job), AT).await {
            Ok(_) => {
                pushed = true;
                break;
            }
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(pushed, "the next master was never found");
    for job in before.iter().chain([&job]) {
        let record = backend.get(&job.body.job(), AT).await.expect("get");
        assert!(record.is_some(), "{} was replicated", job.body.id);
    }
    let unknown = trio.url().replace("/jobs", "/others");
    let error = RedisBackend::connect(&unknown).await.expect_err("no such master");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}
