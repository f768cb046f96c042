//! Virtual time: the hands of the clock, and the clock that goes along with tokio's.

use windlass::prelude::*;
use windlass::testing::Fake;

use super::support::*;

#[tokio::test]
async fn a_fake_starts_when_it_is_told_and_moves_when_it_is_told() {
    let queue = Fake::new().start_at("2031-05-01T08:00:00Z").queue();
    assert_eq!(queue.now().to_string(), "2031-05-01T08:00:00Z");
    assert_eq!(queue.advance(minutes(90)).to_string(), "2031-05-01T09:30:00Z");
    let noon: windlass::Timestamp = "2031-05-01T12:00:00Z".parse().unwrap();
    assert_eq!(queue.advance_to(noon), noon);
    assert_eq!(queue.advance_to("2020-01-01T00:00:00Z".parse::<windlass::Timestamp>().unwrap()), noon);
    queue.dispatch(audit("noon")).await.unwrap();
    assert_eq!(queue.dispatched::<Audit>().assert_once().entry().at(), noon);
}

#[tokio::test(start_paused = true)]
async fn a_clock_slaved_to_tokio_moves_with_it_and_by_hand() {
    let queue = Fake::new().tokio_time().queue();
    let start = queue.now();
    tokio::time::sleep(seconds(90)).await;
    assert_eq!(queue.now().since(start), seconds(90));
    queue.advance(hours(1));
    tokio::time::sleep(milliseconds(500)).await;
    assert_eq!(queue.now().since(start), hours(1) + seconds(90) + milliseconds(500));
    queue.dispatch(audit("later")).await.unwrap();
    assert_eq!(queue.dispatched::<Audit>().assert_once().entry().at(), queue.now());
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_millisecond_are_not_lost() {
    let queue = Fake::new().tokio_time().queue();
    let start = queue.now();
    for _ in 0..10 {
        tokio::time::advance(std::time::Duration::from_micros(300)).await;
        let _ = queue.now();
    }
    assert_eq!(queue.now().since(start), milliseconds(3));
}

#[test]
#[should_panic(expected = "`tomorrow` is no RFC 3339 time such as `2030-01-01T00:00:00Z`")]
fn a_start_that_is_no_time_is_refused() {
    let _ = Fake::new().start_at("tomorrow");
}

#[test]
#[should_panic(expected = "this queue goes by its engine's clock, which cannot be moved")]
fn a_clock_that_is_not_virtual_cannot_be_moved() {
    Queue::new(MemoryBackend::new()).advance(seconds(1));
}
