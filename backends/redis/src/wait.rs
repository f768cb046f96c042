//! Sleeping until there may be something to do.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use windlass_core::{QueueName, Result, SessionId, Timestamp, Wake};

use crate::backend::RedisBackend;
use crate::keys::session_bytes;
use crate::notify::Event;
use crate::{record, reply};

impl RedisBackend {
    pub(crate) async fn wait_for(
        &self,
        session: SessionId,
        queues: &[QueueName],
        due: Option<Timestamp>,
        max: Duration,
    ) -> Result<Wake> {
        let deadline = Instant::now() + max;
        let control = &*self.shared.keys.control;
        let keys: Vec<_> = queues.iter().map(|queue| self.shared.keys.of(queue)).collect();
        let mut channels: Vec<&str> = keys.iter().map(|keys| keys.wake()).collect();
        channels.push(control);
        loop {
            // Listens before it looks, so that nothing falls between.
            let mut events = self.shared.notify.listen(&self.shared.route, &channels).await?;
            if self.take_control(session).await? {
                return Ok(Wake::Control);
            }
            let looks = queues.iter().map(|queue| self.has_work(queue, due));
            if futures::future::try_join_all(looks).await?.contains(&true) {
                return Ok(Wake::Work);
            }
            loop {
                match tokio::time::timeout_at(deadline, events.recv()).await {
                    Err(_) => return Ok(Wake::Nothing),
                    Ok(Ok(Event::Message { channel, payload })) if *channel == *control => {
                        if *payload == session_bytes(session) && self.take_control(session).await? {
                            return Ok(Wake::Control);
                        }
                    }
                    Ok(Ok(Event::Message { channel, .. })) => {
                        // Whatever it is, a claim finds out with one call, as another look would.
                        if keys.iter().any(|keys| keys.wake() == &*channel) {
                            return Ok(Wake::Work);
                        }
                    }
                    // Something may have been missed: look again.
                    Ok(Ok(Event::Lost) | Err(RecvError::Lagged(_))) => break,
                    Ok(Err(RecvError::Closed)) => {
                        tokio::time::sleep_until(deadline).await;
                        return Ok(Wake::Nothing);
                    }
                }
            }
        }
    }

    /// Whether a claim might bring something, or a job is due before what the caller knows.
    async fn has_work(&self, queue: &QueueName, due: Option<Timestamp>) -> Result<bool> {
        let look = self.look(queue, "-").await?;
        if reply::number(reply::at(&look, 0)?)? > 0 {
            return Ok(false);
        }
        let next = reply::bytes(reply::at(&look, 9)?)?;
        let next = if next.is_empty() { None } else { Some(record::instant(next)?) };
        let sooner = next.is_some_and(|next| due.is_none_or(|due| next < due));
        Ok(sooner || reply::number(reply::at(&look, 8)?)? > 0)
    }
}
