//! Asking Sentinels who the master is, at each new connection: after a failover it is another server.

use std::time::Duration;

use redis::{Client, Value};
use windlass_core::{Error, ErrorKind, Result};

use crate::reply;

/// How long one Sentinel may take: the next one is there to be asked.
const ANSWER_MOST: Duration = Duration::from_secs(1);

/// The Sentinels of an address.
#[derive(Clone)]
pub(crate) struct Sentinels {
    sentinels: Vec<Client>,
    master: String,
    /// The address of the master with everything but its host.
    pub(crate) base: String,
}

impl Sentinels {
    /// Reads `redis+sentinel://[user:password@]host[:port][,host[:port]]../master[/database]`, or with `rediss`; `None` for
    /// an address of another sort. User and password are the master's.
    pub(crate) fn read(url: &str) -> Option<Result<Self>> {
        let (scheme, rest) = url.split_once("+sentinel://")?;
        Some(Self::parts(scheme, rest).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "the address is not understood: use \
                 redis+sentinel://[user:password@]host[:port][,host[:port]]../master[/database], or rediss+sentinel:// \
                 for TLS",
            )
        }))
    }

    fn parts(scheme: &str, rest: &str) -> Option<Self> {
        if scheme != "redis" && scheme != "rediss" {
            return None;
        }
        let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(user, rest)| (user, rest));
        let (hosts, rest) = rest.split_once('/')?;
        let (master, database) = rest.split_once('/').unwrap_or((rest, ""));
        if master.is_empty() {
            return None;
        }
        let mut sentinels = Vec::new();
        for host in hosts.split(',') {
            let port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
                ""
            } else {
                ":26379"
            };
            sentinels.push(Client::open(format!("{scheme}://{host}{port}")).ok()?);
        }
        let at = if user.is_empty() { "" } else { "@" };
        Some(Self {
            sentinels,
            master: master.to_owned(),
            base: format!("{scheme}://{user}{at}localhost/{database}"),
        })
    }

    /// Where the master is, `host:port`, by the first Sentinel that says so.
    pub(crate) async fn master(&self) -> Result<String> {
        let mut why = Error::new(ErrorKind::Connection, "no Sentinel answers");
        for sentinel in &self.sentinels {
            let asked = tokio::time::timeout(ANSWER_MOST, self.ask(sentinel)).await;
            match asked {
                Ok(Ok(Some(address))) => return Ok(address),
                Ok(Ok(None)) => {
                    why = Error::new(
                        ErrorKind::Config,
                        format!("the Sentinels know no master `{}`", self.master),
                    );
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(why)
    }

    async fn ask(&self, sentinel: &Client) -> redis::RedisResult<Option<String>> {
        let mut connection = sentinel.get_multiplexed_async_connection().await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let answer: Value = ask.query_async(&mut connection).await?;
        let Value::Array(parts) = answer else { return Ok(None) };
        let part = |at: usize| reply::some_bytes(parts.get(at)).map(String::from_utf8_lossy);
        Ok(part(0).zip(part(1)).map(|(host, port)| format!("{host}:{port}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_sentinels_and_a_master() {
        assert!(Sentinels::read("redis://localhost").is_none());
        let read = |url: &str| Sentinels::read(url).expect("Sentinels");
        let one = read("redis+sentinel://:secret@a:1,b,[::1]:3/shop/2").expect("an address");
        assert_eq!(
            (one.sentinels.len(), &*one.master, &*one.base),
            (3, "shop", "redis://:secret@localhost/2")
        );
        assert_eq!(read("rediss+sentinel://a/shop").expect("an address").base, "rediss://localhost/");
        for url in [
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "http+sentinel://a/b",
            "redis+sentinel://:secret@/b c:d/",
        ] {
            if let Err(error) = read(url) {
                assert!(
                    error.kind() == ErrorKind::Config && !error.to_string().contains("secret"),
                    "{error}"
                );
            }
        }
        assert!(Sentinels::read("redis+sentinel://a").is_some_and(|read| read.is_err()));
    }
}
