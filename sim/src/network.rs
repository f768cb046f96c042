//! What lies between a client and the engine: requests are refused, delayed, sent twice, their answers lost; a client is cut
//! off for a while.
//!
//! Each call meets the engine in one step; `client` says which.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use windlass_core::{Backend, Error, ErrorKind, QueueName, Result, SessionId, Timestamp, Wake};

use crate::oracle::{Call, Stage};
use crate::rng::Rng;

/// How bad it is, for all clients of a history.
#[derive(Clone, Debug)]
pub(crate) struct Weather(Arc<Rates>);

#[derive(Debug)]
struct Rates {
    fair: AtomicBool,
    /// In a thousand calls: refused, answer lost, slow, sent twice.
    refused: u64,
    lost: u64,
    slow: u64,
    twice: u64,
}

impl Weather {
    pub(crate) fn fair() -> Self {
        Self::new([0; 4])
    }

    pub(crate) fn foul(rng: &mut Rng) -> Self {
        let mut rate = || if rng.percent(60) { rng.within(2, 60) } else { 0 };
        Self::new([rate(), rate(), rate(), rate()])
    }

    fn new([refused, lost, slow, twice]: [u64; 4]) -> Self {
        Self(Arc::new(Rates { fair: AtomicBool::new(false), refused, lost, slow, twice }))
    }

    /// From now on nothing goes wrong.
    pub(crate) fn clear(&self) {
        self.0.fair.store(true, Ordering::Release);
    }

    fn fate(&self, rng: &mut Rng) -> Fate {
        if self.0.fair.load(Ordering::Acquire) {
            return Fate::Fine;
        }
        let mut draw = rng.next() % 1_000;
        let Rates { refused, lost, slow, twice, .. } = &*self.0;
        for (rate, fate) in
            [(refused, Fate::Refused), (lost, Fate::Lost), (slow, Fate::Slow), (twice, Fate::Twice)]
        {
            if draw < *rate {
                return fate;
            }
            draw -= rate;
        }
        Fate::Fine
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    /// Nothing happens, and the client hears so.
    Refused,
    /// It happens, and the client cannot know.
    Lost,
    /// It takes long, before or after it happens.
    Slow,
    /// It arrives twice.
    Twice,
}

/// One client's way to the engine.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) stage: Stage,
    weather: Weather,
    pub(crate) id: u32,
    rng: Mutex<Rng>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.0.id)
    }
}

fn refused() -> Error {
    Error::new(ErrorKind::Unavailable, "simulated: refused")
}

fn lost() -> Error {
    Error::new(ErrorKind::Connection, "simulated: the answer was lost").effect_unknown()
}

/// Tells the oracle when a client gives a call up.
struct Pending<'a> {
    client: &'a Client,
    call: Call,
    over: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.client.0.stage.lock().gave_up(self.client.0.id, &self.call);
        }
    }
}

impl Client {
    pub(crate) fn new(stage: Stage, weather: Weather, id: u32, rng: Rng) -> Self {
        Self(Arc::new(Inner { stage, weather, id, rng: Mutex::new(rng) }))
    }

    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.0.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a client hears that is cut off: mostly at once that nobody can be reached, now and then nothing, until its
    /// connection is given up.
    async fn cut_off(&self) -> Option<Error> {
        let left = || self.0.stage.lock().cut_off_for(self.0.id);
        left()?;
        let (silent, time) = self.draw(|rng| (rng.percent(20), rng.millis(1, 60)));
        if silent {
            // By the half second, since the weather may clear before.
            while let Some(left) = left() {
                pause(left.min(Duration::from_millis(500))).await;
            }
        } else {
            pause(time).await;
        }
        let error = Error::new(ErrorKind::Connection, "simulated: cut off");
        Some(if silent { error.effect_unknown() } else { error })
    }

    /// Waits for a wake-up, which may be late, or for nothing.
    pub(crate) async fn listen(
        &self,
        session: SessionId,
        queues: &[QueueName],
        due: Option<Timestamp>,
        max: Duration,
    ) -> Result<Wake> {
        if let Some(error) = self.cut_off().await {
            return Err(error);
        }
        match self.draw(|rng| self.0.weather.fate(rng)) {
            Fate::Refused => return Err(refused()),
            Fate::Lost => {
                pause(self.draw(|rng| rng.millis(1, 200))).await;
                return Ok(self.draw(|rng| if rng.percent(50) { Wake::Work } else { Wake::Control }));
            }
            Fate::Slow => {
                pause(max).await;
                return Ok(Wake::Nothing);
            }
            Fate::Fine | Fate::Twice => {}
        }
        let engine = self.0.stage.lock().engine.clone();
        engine.wait(session, queues, due, max).await
    }

    /// One call through the weather. `meet` is the step at the engine.
    pub(crate) async fn call<T, M>(&self, call: Call, meet: M) -> Result<T>
    where
        M: Fn(&Stage, u32) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let Inner { stage, weather, id, .. } = &*self.0;
        stage.lock().calls(*id, &call);
        let mut pending = Pending { client: self, call, over: false };
        let answer = self.through(&pending.call, weather, meet).await;
        pending.over = true;
        stage.lock().heard(*id, &pending.call, answer.as_ref().err());
        answer
    }

    async fn through<T, M>(&self, call: &Call, weather: &Weather, meet: M) -> Result<T>
    where
        M: Fn(&Stage, u32) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let Inner { stage, id, .. } = &*self.0;
        let (fate, latency, coin) = self.draw(|rng| {
            (weather.fate(rng), if rng.percent(70) { 0 } else { rng.within(1, 8) }, rng.percent(50))
        });
        pause(Duration::from_millis(latency)).await;
        if let Some(error) = self.cut_off().await {
            return Err(error);
        }
        if fate != Fate::Fine {
            stage.lock().fault();
        }
        match fate {
            Fate::Fine => meet(stage, *id),
            Fate::Refused => {
                pause(self.draw(|rng| rng.millis(0, 300))).await;
                Err(refused())
            }
            Fate::Lost => {
                let met = meet(stage, *id);
                pause(self.draw(|rng| rng.millis(0, 2_000))).await;
                met.and_then(|_| Err(lost()))
            }
            Fate::Slow => {
                let time = self.draw(|rng| rng.millis(100, 5_000));
                if coin {
                    pause(time).await;
                    stage.lock().takes(*id);
                    return meet(stage, *id);
                }
                let met = meet(stage, *id);
                pause(time).await;
                stage.lock().takes(*id);
                met
            }
            Fate::Twice => {
                stage.lock().takes(*id);
                let first = meet(stage, *id);
                if !coin {
                    return meet(stage, *id);
                }
                if call.may_linger() {
                    // The copy lies about somewhere, and arrives when nobody thinks of it any more.
                    let (stage, id, later) = (stage.clone(), *id, self.draw(|rng| rng.millis(1, 8_000)));
                    drop(tokio::spawn(async move {
                        tokio::time::sleep(later).await;
                        stage.lock().takes(id);
                        let _ = meet(&stage, id);
                    }));
                }
                first
            }
        }
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// The answer of a verb that the memory engine gives at once.
pub(crate) fn now<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    answer.now_or_never().unwrap_or_else(|| Err(Error::new(ErrorKind::Timeout, "the memory engine waited")))
}
