//! Versions of payloads, aliases, and workers that are too old.

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{Codec, DeadReason, Recorded, StateKind};

/// What version 1 looked like.
#[derive(Serialize, Deserialize, Job)]
#[job(name = "mail_out", version = 1)]
struct MailV1 {
    to: String,
}

#[derive(Serialize, Deserialize, Job, PartialEq, Debug)]
#[job(name = "send_mail", aliases("mail_out"), version = 3, min_reader = 2, upgrades = &[Upgrade::via::<MailV1>(1)])]
struct Mail {
    to: Vec<String>,
    #[serde(default)]
    locale: String,
}

impl From<MailV1> for Mail {
    fn from(old: MailV1) -> Self {
        Self { to: vec![old.to], locale: "en".to_owned() }
    }
}

#[derive(Clone, Default)]
struct Sent(std::sync::Arc<std::sync::Mutex<Vec<Mail>>>);

impl Handler for Mail {
    type Deps = (Sent,);
    type Error = Fault;
    async fn handle(job: Self, (sent,): (Sent,), _: &mut Context) -> Result<Outcome, Fault> {
        sent.0.lock().unwrap().push(job);
        Ok(Outcome::Done)
    }
}

#[derive(Provide)]
struct App {
    sent: Sent,
}

fn world() -> (Queue<MemoryBackend>, Registry<App>, Sent) {
    let sent = Sent::default();
    (Queue::<MemoryBackend>::fake(), Registry::new(App { sent: sent.clone() }).register::<Mail>(), sent)
}

#[tokio::test]
async fn a_job_of_an_older_version_under_an_older_name_is_upgraded_in_every_codec() {
    for codec in [Codec::Json, Codec::MsgPack] {
        let (queue, jobs, sent) = world();
        let queue = queue.codec(codec);
        let old = queue.dispatch(MailV1 { to: "ada".to_owned() }).await.unwrap();
        let envelope = queue.get(old.job_ref()).await.unwrap().unwrap().decode::<Mail>().unwrap();
        assert_eq!(envelope.job().locale, "en");
        queue.drain(&jobs).await.assert_clean();
        assert_eq!(*sent.0.lock().unwrap(), [Mail { to: vec!["ada".to_owned()], locale: "en".to_owned() }]);
    }
}

#[tokio::test]
async fn a_version_without_an_upgrade_is_dead_and_says_which() {
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "send_mail", version = 2)]
    struct MailV2 {
        to: String,
    }
    let (queue, jobs, _) = world();
    let job = queue.dispatch(MailV2 { to: "ada".to_owned() }).await.unwrap();
    assert_eq!(queue.drain(&jobs).await.dead, 1);
    let Some(Recorded::Dead(envelope)) = queue.get(job.job_ref()).await.unwrap() else { panic!("dead") };
    assert_eq!(envelope.state().reason, DeadReason::Undecodable);
    let text = envelope.state().history.last_error.clone().unwrap();
    assert!(text.message().contains("no upgrade from version 2 to 3 of `send_mail` is declared"), "{text:?}");
}

#[tokio::test]
async fn a_worker_too_old_for_a_job_leaves_it_for_a_newer_one() {
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "send_mail", version = 4, min_reader = 4)]
    struct MailV4 {
        to: Vec<String>,
        cc: Vec<String>,
    }
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "send_mail", version = 5, min_reader = 3)]
    struct MailV5 {
        to: Vec<String>,
        bcc: String,
    }
    let (queue, jobs, sent) = world();
    let newer = queue.dispatch(MailV4 { to: vec![], cc: vec![] }).await.unwrap();
    let readable = queue.dispatch(MailV5 { to: vec!["ada".to_owned()], bcc: String::new() }).await.unwrap();
    let drained = queue.drain(&jobs).await;
    assert_eq!((drained.completed, drained.left), (1, 1));
    assert_eq!(sent.0.lock().unwrap().len(), 1, "a newer version that says version 3 can read it");
    let state = |job: windlass::JobRef| {
        let queue = queue.clone();
        async move { queue.get(&job).await.unwrap().unwrap() }
    };
    assert_eq!(state(readable.job_ref().clone()).await.state(), StateKind::Completed);
    let Recorded::Ready(envelope) = state(newer.job_ref().clone()).await else { panic!("ready") };
    assert!(envelope.state().parked);
}

#[tokio::test]
async fn a_job_of_another_kind_is_not_decoded() {
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "other")]
    struct Other;
    let (queue, ..) = world();
    let other = queue.dispatch(Other).await.unwrap();
    let error = queue.get(other.job_ref()).await.unwrap().unwrap().decode::<Mail>().unwrap_err();
    assert!(error.to_string().contains("is a `other`, not a `send_mail`"), "{error}");
}
