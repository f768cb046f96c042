//! Looking: records, listings page by page, filters, counts.

use windlass_core::{Backend, Cursor, ErrorKind, Filter, Inspect, Kind, Manage, QueueName, StateKind};

use crate::{Env, World, complete, draft, ids, mail, secs};

pub async fn what_is_not_stored_is_not_found<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    assert!(w.find(&draft().job()).await.is_none());
    assert!(w.find(&draft().queue("never-seen").job()).await.is_none());
    assert!(w.find(&draft().id(job.id).queue("other").job()).await.is_none());
}

pub async fn looking_changes_nothing<E: Env>(w: &mut World<E>) {
    let job = w.put(draft().after(secs(5))).await;
    let before = w.record(&job).await;
    w.advance(secs(10));
    assert_eq!(w.everything().await, std::slice::from_ref(&before), "what is due is promoted by others");
    assert_eq!(w.record(&job).await, before);
    w.counts(&mail()).await;
    assert_eq!(w.sweep().await.promoted, 1);
}

pub async fn a_listing_is_in_the_order_of_the_ids<E: Env>(w: &mut World<E>) {
    let mut jobs: Vec<_> = (0..30_u8)
        .map(|at| {
            let queue = ["mail", "other", "third"][usize::from(at % 3)];
            draft().queue(queue).priority(at % 10).build()
        })
        .collect();
    let wanted: Vec<_> = jobs.iter().map(|job| job.body.id).collect();
    jobs.reverse();
    w.push_all(&jobs).await;
    for page in [1, 7, 30, 1_000] {
        let listed = w.list(&Filter::default(), page).await;
        let got: Vec<_> = listed.iter().map(|record| record.body.id).collect();
        assert_eq!(got, wanted, "pages of {page}");
    }
}

pub async fn one_id_in_two_queues_is_listed_twice<E: Env>(w: &mut World<E>) {
    let here = w.put(draft()).await;
    w.put(draft().id(here.id).queue("other")).await;
    for page in [1, 2, 10] {
        let mut queues: Vec<_> = w
            .list(&Filter::default(), page)
            .await
            .into_iter()
            .map(|record| record.body.queue.clone())
            .collect();
        queues.sort_unstable();
        assert_eq!(queues, [mail(), QueueName::from_static("other")], "pages of {page}");
    }
}

pub async fn filters_hold_together<E: Env>(w: &mut World<E>) {
    let wanted = w.put(draft().kind("report").tag("vip").queue("other")).await;
    w.put(draft().kind("report").tag("vip")).await;
    w.put(draft().kind("report").queue("other")).await;
    w.put(draft().tag("vip").queue("other")).await;
    w.put(draft().kind("report").tag("vip").queue("other").after(secs(60))).await;
    w.put(draft().kind("report").tag("vip2").queue("other")).await;
    let count = async |change: &dyn Fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        let records = w.list(&filter, 2).await;
        assert!(records.iter().all(|record| filter.passes(record)), "{filter:?}");
        records.len()
    };
    let other = QueueName::from_static("other");
    assert_eq!(count(&|_| {}).await, 6);
    assert_eq!(count(&|filter| filter.queue = Some(other.clone())).await, 5);
    assert_eq!(count(&|filter| filter.kind = Some(Kind::from_static("report"))).await, 5);
    assert_eq!(count(&|filter| filter.tag = Some("vip".to_owned())).await, 4);
    assert_eq!(count(&|filter| filter.states = vec![StateKind::Scheduled]).await, 1);
    assert_eq!(count(&|filter| filter.states = StateKind::ALL.to_vec()).await, 6);
    assert_eq!(count(&|filter| filter.states = vec![StateKind::Dead]).await, 0);
    assert_eq!(count(&|filter| filter.tag = Some("nobody".to_owned())).await, 0);
    assert_eq!(count(&|filter| filter.queue = Some(QueueName::from_static("never"))).await, 0);
    let all = Filter {
        queue: Some(other),
        states: vec![StateKind::Ready],
        kind: Some(Kind::from_static("report")),
        tag: Some("vip".to_owned()),
    };
    let records = w.list(&all, 10).await;
    assert_eq!(records.iter().map(|record| record.body.id).collect::<Vec<_>>(), [wanted.id]);
}

pub async fn a_filter_finds_each_state<E: Env>(w: &mut World<E>) {
    w.put(draft().limit("one", 1)).await;
    w.put(draft().limit("one", 1)).await;
    w.put(draft().after(secs(60))).await;
    w.put(draft().priority(9)).await;
    w.put(draft().priority(9)).await;
    w.apply(&w.take().await.lease, complete()).await;
    w.take().await;
    for state in
        [StateKind::Blocked, StateKind::Scheduled, StateKind::Ready, StateKind::Running, StateKind::Completed]
    {
        let filter = Filter { states: vec![state], ..Filter::default() };
        let records = w.list(&filter, 10).await;
        assert_eq!(records.iter().map(|record| record.state.kind()).collect::<Vec<_>>(), [state]);
    }
}

pub async fn a_listing_goes_on_while_jobs_come_and_go<E: Env>(w: &mut World<E>) {
    for _ in 0..10 {
        w.put(draft()).await;
    }
    let any = Filter::default();
    let first = w.backend().list(&any, None, 4, w.at()).await.expect("list");
    let run = w.take().await;
    w.apply(&run.lease, complete()).await;
    w.backend().delete(&run.lease.job, w.at()).await.expect("delete");
    let last = first.records.last().expect("a record").body.job();
    w.backend().cancel(&last, "no longer", w.at()).await.expect("cancel");
    w.backend().delete(&last, w.at()).await.expect("delete");
    let newest = w.put(draft()).await;
    let mut seen: Vec<_> = first.records.iter().map(|record| record.body.id).collect();
    let mut after = first.next;
    while let Some(cursor) = after {
        let page = w.backend().list(&any, Some(&cursor), 4, w.at()).await.expect("list");
        seen.extend(page.records.iter().map(|record| record.body.id));
        after = page.next;
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "none is shown twice: {seen:?}");
    assert_eq!((seen.len(), seen.last()), (11, Some(&newest.id)));
}

pub async fn a_page_has_a_size<E: Env>(w: &mut World<E>) {
    for limit in [0, 1_001, usize::MAX] {
        let error = w.backend().list(&Filter::default(), None, limit, w.at()).await.expect_err("size");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

pub async fn a_strange_cursor_is_refused<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    for text in ["", "x", "0", "/", "'; drop table jobs", "\0", "not-a-uuid/mail", "❄"] {
        let cursor = Cursor(text.into());
        let error = w.backend().list(&Filter::default(), Some(&cursor), 10, w.at()).await.expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text:?}: {error}");
    }
}

pub async fn queues_are_listed_by_name_once_they_held_a_job<E: Env>(w: &mut World<E>) {
    assert_eq!(w.backend().queues(w.at()).await.expect("queues"), []);
    for queue in ["zebra", "mail", "ant"] {
        w.put(draft().queue(queue)).await;
    }
    w.backend().pause(&QueueName::from_static("quiet"), w.at()).await.expect("pause");
    let queues = w.backend().queues(w.at()).await.expect("queues");
    let got: Vec<_> = queues.iter().map(|info| (info.name.as_str(), info.paused)).collect();
    assert_eq!(got, [("ant", false), ("mail", false), ("quiet", true), ("zebra", false)]);
    let run = w.take().await;
    w.apply(&run.lease, complete()).await;
    w.backend().delete(&run.lease.job, w.at()).await.expect("delete");
    assert_eq!(w.backend().queues(w.at()).await.expect("queues").len(), 4, "ever held a job");
}

pub async fn a_second_handle_sees_the_same_store<E: Env>(w: &mut World<E>) {
    let other = w.env().second().await;
    let job = w.put(draft()).await;
    assert_eq!(other.get(&job, w.at()).await.expect("get"), w.find(&job).await);
    let claimed = other.claim(&w.ask(1), w.at()).await.expect("claim");
    assert_eq!(ids(&claimed.jobs), [job.id]);
    w.nothing_to_claim().await;
    assert_eq!(w.apply(&claimed.jobs[0].lease, complete()).await, StateKind::Completed);
    assert_eq!(other.get(&job, w.at()).await.expect("get"), w.find(&job).await);
}
