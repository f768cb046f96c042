//! A slot of a cluster on its way from one master to another. What is asked for one key is found at either end; a script of
//! a named queue names keys that may stand at both, and is refused, with nothing done, until the slot has arrived.

mod support;

use std::time::Duration;

use windlass_conformance::{complete, draft};
use windlass_core::{
    At, Backend, Claim, Effect, ErrorKind, Inspect, Kind, Nonce, Pushed, QueueName, SessionId, Settled,
    StateKind, Verdict,
};
use windlass_redis::{RedisBackend, RedisOptions};
use windlass_servers::{Redis, RedisCluster};

const AT: At = At::Server;
const MAIL: QueueName = QueueName::from_static("mail");

/// A slot, the node that owns it, and the one that it moves to.
struct Move<'a> {
    slot: String,
    from: &'a Redis,
    to: &'a Redis,
}

/// The one text in an answer.
fn text(answer: &str) -> &str {
    answer.lines().find(|line| !line.starts_with(['$', '*'])).unwrap_or_default()
}

impl<'a> Move<'a> {
    /// Begins to move the slot of `key`.
    fn begin(nodes: &'a [Redis], key: &str) -> Self {
        let slot = nodes[0].ask(&["CLUSTER", "KEYSLOT", key]).expect("a slot");
        let slot = slot.trim().trim_start_matches(':').to_owned();
        let owns =
            |node: &&Redis| node.ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot]).expect("a count").trim() != ":0";
        let from = nodes.iter().find(owns).expect("an owner");
        let to = nodes.iter().find(|node| node.port() != from.port()).expect("another");
        let name = |node: &Redis| text(&node.ask(&["CLUSTER", "MYID"]).expect("a name")).to_owned();
        to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &name(from)]).expect("importing");
        from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &name(to)]).expect("migrating");
        Self { slot, from, to }
    }

    /// Moves at most so many of its keys.
    fn carry(&self, keys: usize) {
        let listed =
            self.from.ask(&["CLUSTER", "GETKEYSINSLOT", &self.slot, &keys.to_string()]).expect("keys");
        let port = self.to.port().to_string();
        for key in listed.lines().filter(|line| !line.starts_with(['$', '*'])) {
            self.from.ask(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).expect("moved");
        }
    }

    /// Says that it has arrived.
    fn end(&self, nodes: &[Redis]) {
        let name = self.to.ask(&["CLUSTER", "MYID"]).expect("a name");
        for node in [self.to, self.from].into_iter().chain(nodes) {
            node.ask(&["CLUSTER", "SETSLOT", &self.slot, "NODE", text(&name)]).expect("it is there");
        }
    }
}

async fn opened(cluster: &RedisCluster) -> RedisBackend {
    support::open(RedisOptions::new(cluster.url()).response_timeout(Duration::from_secs(2))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_one_key_follows_it_while_its_slot_moves() {
    let mut cluster = tokio::task::block_in_place(RedisCluster::start_masters).expect("a private cluster");
    let backend = opened(&cluster).await;
    backend.push(&[draft().build()], AT).await.expect("push");
    let nodes = &*cluster.nodes();
    let on_its_way = Move::begin(nodes, "{windlass}:m");
    // Still at the old end, at both, at the new one: where the new node has never seen the script.
    for keys in [0, 1, 100] {
        on_its_way.carry(keys);
        for _ in 0..3 {
            backend.now(AT).await.expect("now");
            assert_eq!(backend.queues(AT).await.expect("queues").len(), 1);
        }
    }
    let other = draft().queue("other").build();
    assert_eq!(backend.push(&[other], AT).await.expect("a new queue is noted"), [Pushed::Inserted]);
    on_its_way.end(nodes);
    assert_eq!(backend.queues(AT).await.expect("queues").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_slot_moves_says_so_and_loses_nothing() {
    let mut cluster = tokio::task::block_in_place(RedisCluster::start_masters).expect("a private cluster");
    let backend = opened(&cluster).await;
    let jobs: Vec<_> = (0..20).map(|_| draft().build()).collect();
    backend.push(&jobs, AT).await.expect("push");
    let claim = Claim {
        session: SessionId::random(),
        nonce: Nonce::random(),
        queues: vec![MAIL],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit: 10,
        ahead: 0,
        suspects: true,
        lease: Duration::from_secs(300),
    };
    let runs = backend.claim(&claim, AT).await.expect("claim").jobs;
    assert_eq!(runs.len(), 10);
    let verdicts: Vec<_> = runs.into_iter().map(|run| Verdict::new(run.lease, complete())).collect();
    let nodes = &*cluster.nodes();
    let on_its_way = Move::begin(nodes, "{windlass:mail}:m");
    let late = draft().build();
    for keys in [1, 2, 100] {
        on_its_way.carry(keys);
        let refused = [
            backend.push(std::slice::from_ref(&late), AT).await.map(drop),
            backend.settle(&verdicts, AT).await.map(drop),
            backend.claim(&Claim { nonce: Nonce::random(), ..claim.clone() }, AT).await.map(drop),
        ];
        for error in refused.into_iter().filter_map(Result::err) {
            assert_eq!(
                (error.kind(), error.effect()),
                (ErrorKind::Unavailable, Effect::NotApplied),
                "{error}"
            );
            assert!(error.is_retryable(), "{error}");
        }
    }
    on_its_way.end(nodes);
    let pushed = backend.push(&[late], AT).await.expect("it has arrived");
    assert!(matches!(pushed[..], [Pushed::Inserted | Pushed::SameId]));
    let settled = backend.settle(&verdicts, AT).await.expect("settle");
    let once = [Settled::Applied(StateKind::Completed), Settled::AlreadyApplied];
    assert!(settled.iter().all(|settled| once.contains(settled)), "{settled:?}");
    let counts = backend.queues(AT).await.expect("queues")[0].counts;
    let of = |state| counts.get(state);
    assert_eq!((of(StateKind::Completed), of(StateKind::Ready) + of(StateKind::Running)), (10, 11));
}
