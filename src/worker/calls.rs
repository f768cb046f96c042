//! Calls to the engine that are under way: one, or two where the engine takes the next while it answers the last.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use futures::future::BoxFuture;
use tokio::time::Instant;
use windlass_core::{Claim, Claimed, Result, Settled};

use super::drive::Shared;
use super::hand::Ruled;
use crate::any::Engine;

/// Calls that are under way at once, at most: one that the engine works on, and the next behind it. More would only wait
/// there, and claim for later what another worker could run now.
const AT_ONCE: usize = 2;

/// One call: verdicts, a claim, or both.
pub(crate) struct Call {
    pub(crate) ruled: Arc<Ruled>,
    pub(crate) claim: Option<Claim>,
    /// When it was made.
    pub(crate) asked: Instant,
}

/// A call and its answer.
pub(crate) struct Answered {
    pub(crate) call: Call,
    pub(crate) answer: Result<(Vec<Settled>, Option<Claimed>)>,
    /// Whether another call was under way beside it: what one did, the other need not have seen.
    pub(crate) crowded: bool,
}

/// The calls under way.
pub(crate) struct Calls {
    under_way: Vec<UnderWay>,
    at_once: usize,
    crowded: bool,
}

struct UnderWay {
    call: BoxFuture<'static, Answered>,
    /// The answer, of an engine that had it at once.
    answered: Option<Answered>,
    /// Jobs that it may bring.
    room: usize,
    /// Whether one of them may be a suspect.
    suspects: bool,
}

impl Calls {
    /// `pipelined`: see [`Capabilities`](windlass_core::Capabilities).
    pub(crate) fn new(pipelined: bool) -> Self {
        Self { under_way: Vec::new(), at_once: if pipelined { AT_ONCE } else { 1 }, crowded: false }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// How many may be under way at once.
    pub(crate) fn at_once(&self) -> usize {
        self.at_once
    }

    /// Whether one more may be made.
    pub(crate) fn has_room(&self) -> bool {
        self.under_way.len() < self.at_once
    }

    /// Jobs that they may bring together.
    pub(crate) fn may_bring(&self) -> usize {
        self.under_way.iter().map(|one| one.room).sum()
    }

    /// Whether one of them may bring a suspect.
    pub(crate) fn may_bring_suspect(&self) -> bool {
        self.under_way.iter().any(|one| one.suspects)
    }

    /// Makes a call: it is sent before the next one is made.
    pub(crate) async fn make<B: Engine>(&mut self, shared: &Arc<Shared<B>>, call: Call) {
        self.crowded |= !self.under_way.is_empty();
        let claim = call.claim.as_ref();
        let mut made = UnderWay {
            room: claim.map_or(0, |claim| claim.limit + claim.ahead),
            suspects: claim.is_some_and(|claim| claim.suspects),
            call: Box::pin(ask(Arc::clone(shared), call)),
            answered: None,
        };
        poll_fn(|cx| {
            if let Poll::Ready(answered) = made.call.as_mut().poll(cx) {
                made.answered = Some(answered);
            }
            Poll::Ready(())
        })
        .await;
        self.under_way.push(made);
    }

    /// The next answer, of the earlier call when both are there; `None` when nothing is under way. Giving up waiting gives up
    /// no call.
    pub(crate) async fn next(&mut self) -> Option<Answered> {
        poll_fn(|cx| {
            for at in 0..self.under_way.len() {
                let one = &mut self.under_way[at];
                let answered = match one.answered.take() {
                    None => one.call.as_mut().poll(cx),
                    Some(answered) => Poll::Ready(answered),
                };
                if let Poll::Ready(mut answered) = answered {
                    drop(self.under_way.remove(at));
                    answered.crowded = self.crowded;
                    self.crowded &= !self.under_way.is_empty();
                    return Poll::Ready(Some(answered));
                }
            }
            if self.under_way.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// Gives up all that is under way: it may happen, and nobody hears of it.
    pub(crate) fn give_up(&mut self) {
        self.under_way.clear();
        self.crowded = false;
    }
}

async fn ask<B: Engine>(shared: Arc<Shared<B>>, call: Call) -> Answered {
    let (backend, at) = (shared.queue.backend(), shared.queue.at());
    let verdicts = &call.ruled.verdicts[..];
    let answer = match &call.claim {
        Some(claim) if verdicts.is_empty() => {
            backend.claim(claim, at).await.map(|claimed| (Vec::new(), Some(claimed)))
        }
        Some(claim) => {
            let both = backend.settle_and_claim(verdicts, claim, at).await;
            both.map(|(settled, claimed)| (settled, Some(claimed)))
        }
        None => backend.settle(verdicts, at).await.map(|settled| (settled, None)),
    };
    Answered { call, answer, crowded: false }
}
