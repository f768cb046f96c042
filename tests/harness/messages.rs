//! What failed assertions say, word for word.

use windlass::prelude::*;
use windlass::testing::Count;

use super::support::*;

async fn three_jobs() -> Queue<MemoryBackend> {
    let queue = Queue::<MemoryBackend>::fake();
    queue.dispatch(email("ada@example.com", "welcome")).await.unwrap();
    queue.dispatch(resize("cat.png")).delay(seconds(30)).await.unwrap();
    queue.dispatch(audit("signup")).delay(hours(1)).await.unwrap();
    queue
}

async fn four_emails() -> Queue<MemoryBackend> {
    let queue = Queue::<MemoryBackend>::fake();
    queue.dispatch(email("ada@example.com", "goodbye")).on("mail").await.unwrap();
    queue.dispatch(email("ada@example.com", "welcome")).on("mail").await.unwrap();
    queue.dispatch(email("bob@example.com", "invoice")).on("mail").await.unwrap();
    queue.dispatch(audit("signup")).await.unwrap();
    queue
        .dispatch(email("eve@example.com", "welcome"))
        .on("mail")
        .delay(minutes(59) + seconds(59))
        .await
        .unwrap();
    queue
}

#[tokio::test]
async fn nothing_was_dispatched() {
    let queue = Queue::<MemoryBackend>::fake();
    golden("nothing", &message(|| queue.assert_dispatched::<SendEmail>()));
}

#[tokio::test]
async fn the_job_went_to_another_queue() {
    let queue = three_jobs().await;
    golden("another_queue", &message(|| drop(queue.dispatched::<SendEmail>().on("mail").assert_any())));
}

#[tokio::test]
async fn only_other_jobs_were_dispatched() {
    let queue = three_jobs().await;
    let mark = queue.mark();
    queue.dispatch(audit("login")).await.unwrap();
    let since = queue.since(mark);
    golden("other_jobs", &since.dispatched::<SendEmail>().check(Count::AtLeast(1)).unwrap_err().to_string());
}

#[tokio::test]
async fn the_payload_differs_in_some_fields() {
    let queue = three_jobs().await;
    queue.dispatch(email("ada@example.com", "welcome-back")).await.unwrap();
    queue.dispatch(SendEmail { locale: "fr".to_owned(), ..email("bob@example.com", "x") }).await.unwrap();
    let wanted = email("ada@example.com", "welcome-again");
    golden("payload", &message(|| drop(queue.dispatched::<SendEmail>().equal_to(&wanted).assert_any())));
}

#[tokio::test]
async fn a_chain_of_steps_ran_dry_at_a_delay() {
    let queue = four_emails().await;
    let text = message(|| {
        let query = queue.dispatched::<SendEmail>().on("mail");
        query.matching(|job| job.template == "welcome").delayed_by(hours(1)).assert_once();
    });
    golden("ran_dry_at_a_delay", &text);
}

#[tokio::test]
async fn a_chain_of_steps_ran_dry_at_a_predicate_whose_place_is_named() {
    let queue = four_emails().await;
    let line = line!() + 3;
    let text = message(|| {
        let query = queue.dispatched::<SendEmail>().on("mail");
        drop(query.matching(|job| job.to == "nobody").priority(Priority::NORMAL).assert_times(2));
    });
    assert!(text.contains(&format!("tests/harness/messages.rs:{line}")), "{text}");
    golden("ran_dry_at_a_predicate", &text);
}

#[tokio::test]
async fn a_chain_of_steps_ran_dry_at_a_field() {
    let queue = four_emails().await;
    let text = message(|| drop(queue.dispatched::<SendEmail>().on("mail").tagged("vip").assert_any()));
    golden("ran_dry_at_a_tag", &text);
    let text = message(|| {
        let wanted = email("ada@example.com", "hello");
        drop(queue.dispatched::<SendEmail>().on("mail").equal_to(&wanted).assert_any());
    });
    golden("ran_dry_at_a_payload", &text);
}

#[tokio::test]
async fn every_field_names_what_was_expected_and_what_was_found() {
    let queue = three_jobs().await;
    let resizes = || queue.dispatched::<Resize>();
    let ways = [
        resizes().delayed_by(hours(1)),
        resizes().delayed_by(seconds(0)),
        resizes().due_at(queue.now()),
        resizes().due_within(minutes(1)..=minutes(2)),
        resizes().due_within(..seconds(30)),
        resizes().due_within(minutes(1)..),
        resizes().priority(Priority::LOW),
        resizes().unique_key("cat"),
        resizes().tagged("vip"),
        resizes().in_state(windlass::StateKind::Dead),
        resizes().attempts(1),
        resizes().matching(|job| job.width > 1_000),
    ];
    let texts: Vec<String> = ways
        .into_iter()
        .map(|query| {
            let text = query.check(Count::AtLeast(1)).unwrap_err().to_string();
            let (first, last) = (text.lines().next().unwrap(), text.lines().last().unwrap());
            format!("{first}\n{last}")
        })
        .collect();
    golden("every_field", &texts.join("\n\n"));
}

#[tokio::test]
async fn there_were_more_or_fewer() {
    let queue = four_emails().await;
    let emails = || queue.dispatched::<SendEmail>();
    golden("too_many", &message(|| queue.assert_dispatched_times::<SendEmail>(2)));
    let first = |text: String| text.lines().next().unwrap().to_owned();
    let texts = [
        first(message(|| drop(emails().assert_once()))),
        first(message(|| emails().on("mail").assert_none())),
        first(message(|| drop(emails().assert_times(5)))),
        first(emails().check(Count::AtLeast(5)).unwrap_err().to_string()),
        first(emails().check(Count::AtMost(1)).unwrap_err().to_string()),
        first(emails().on("bulk").check(Count::AtLeast(1)).unwrap_err().to_string()),
    ];
    golden("counts", &texts.join("\n"));
}

#[tokio::test]
async fn something_was_dispatched_where_nothing_should_be() {
    let queue = Queue::<MemoryBackend>::fake();
    queue.dispatch(email("ada@example.com", "welcome")).on("mail").await.unwrap();
    golden("nothing_at_all", &message(|| queue.assert_nothing_dispatched()));
}

#[tokio::test]
async fn jobs_under_an_alias_and_names_that_look_alike_are_pointed_out() {
    let queue = Queue::<MemoryBackend>::fake();
    let Mail { to, template, locale } =
        Mail { to: "ada".to_owned(), template: "old".to_owned(), locale: "en".to_owned() };
    queue.dispatch(Mail { to, template, locale }).await.unwrap();
    golden("alias", &message(|| queue.assert_not_dispatched::<SendEmail>()));
    golden("looks_alike", &message(|| queue.assert_dispatched::<Digest>()));
    queue.clear();
    queue.dispatch(email("ada@example.com", "welcome")).await.unwrap();
    golden("looks_alike_too", &message(|| queue.assert_dispatched::<Digest>()));
}

#[tokio::test]
async fn a_sequence_or_a_chain_is_another_one() {
    let queue = three_jobs().await;
    golden("sequence", &message(|| queue.assert_sequence::<(SendEmail, Audit)>()));
    golden("sequence_too_short", &message(|| queue.assert_sequence::<(SendEmail, Resize, Audit, Audit)>()));
    golden("chain_of_none", &message(|| queue.assert_chained::<(SendEmail, Audit)>()));
    let parent = queue.dispatch(email("ada@example.com", "welcome")).await.unwrap();
    queue.dispatch(audit("sent")).after(parent.job_ref()).await.unwrap();
    golden("chain", &message(|| queue.assert_chained::<(SendEmail, Resize, Audit)>()));
    golden("chain_without_a_start", &message(|| queue.assert_chained::<(Digest, Audit)>()));
}

#[tokio::test]
async fn a_payload_that_cannot_be_read_back_is_named() {
    let queue = Queue::<MemoryBackend>::fake();
    let draft = queue.dispatch(audit("x")).into_draft().unwrap();
    drop(draft);
    #[derive(serde::Serialize, serde::Deserialize, Job)]
    #[job(name = "audit")]
    struct OtherAudit {
        number: u32,
    }
    queue.dispatch(OtherAudit { number: 1 }).await.unwrap();
    golden("unreadable", &message(|| queue.assert_dispatched::<Audit>()));
    assert_eq!(queue.dispatched::<OtherAudit>().assert_once().number, 1);
}

#[tokio::test]
async fn a_long_log_is_cut() {
    let queue = Queue::<MemoryBackend>::fake();
    for n in 0..60 {
        queue.dispatch(audit(&"x".repeat(n * 10))).await.unwrap();
    }
    let text = message(|| queue.assert_dispatched::<Resize>());
    assert!(text.contains("dispatched instead (60 jobs, oldest first)") && text.ends_with("... and 10 more"));
}
