//! The raw limit of Redis: bare scripts that keep bodies in a hash and ids in a list, lease what they hand out, and compare a
//! nonce before they let it go. No codec, no options, no other states, no history beyond a set of what is done.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use crate::store;

/// Jobs that a script of a drain settles, and claims.
const BATCH: usize = 128;

const DISPATCH: &str = "
local n = #ARGV / 2
local hash = {}
for i = 1, n do hash[2 * i - 1] = ARGV[i]; hash[2 * i] = ARGV[n + i] end
redis.call('HSET', KEYS[1], unpack(hash))
redis.call('RPUSH', KEYS[2], unpack(ARGV, 1, n))
return n";

const WORK: &str = "
local done = #ARGV - 2
if done > 0 then
  local fences, gone, scores = redis.call('HMGET', KEYS[3], unpack(ARGV, 3)), {}, {}
  for i, fence in ipairs(fences) do
    if fence and string.sub(fence, 1, 16) == ARGV[1] then
      gone[#gone + 1] = ARGV[2 + i]; scores[#scores + 1] = 1; scores[#scores + 1] = ARGV[2 + i]
    end
  end
  redis.call('ZREM', KEYS[4], unpack(gone))
  redis.call('HDEL', KEYS[3], unpack(gone))
  redis.call('HDEL', KEYS[1], unpack(gone))
  redis.call('ZADD', KEYS[5], unpack(scores))
  if redis.call('ZCARD', KEYS[5]) > 10000 then redis.call('ZPOPMIN', KEYS[5], #gone) end
end
local ids = redis.call('LPOP', KEYS[2], ARGV[2])
if not ids then return {} end
local bodies = redis.call('HMGET', KEYS[1], unpack(ids))
local hash, leases, out = {}, {}, {}
local record = ARGV[1] .. string.rep('x', 50)
for i, id in ipairs(ids) do
  hash[#hash + 1] = id; hash[#hash + 1] = record
  leases[#leases + 1] = 1732432094123; leases[#leases + 1] = id
  out[#out + 1] = id; out[#out + 1] = bodies[i]
end
redis.call('HSET', KEYS[3], unpack(hash))
redis.call('ZADD', KEYS[4], unpack(leases))
return out";

pub(crate) struct Raw {
    connection: MultiplexedConnection,
    dispatch: String,
    work: String,
    next: u128,
}

impl Raw {
    pub(crate) async fn open(url: &str) -> Self {
        let client = redis::Client::open(url).expect("a URL");
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&config).await.expect("it answers");
        let mut load = async |source: &str| -> String {
            redis::cmd("SCRIPT").arg("LOAD").arg(source).query_async(&mut connection).await.expect("a script")
        };
        let (dispatch, work) = (load(DISPATCH).await, load(WORK).await);
        Self { connection, dispatch, work, next: 1 }
    }

    fn insert(&mut self, count: usize) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.dispatch).arg(2).arg("{raw}:b").arg("{raw}:w");
        for n in 0..count {
            // Spread, as the library's ids are.
            command.arg(
                &(self.next + n as u128)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
                    .to_be_bytes()[..],
            );
        }
        for n in 0..count {
            // No two alike: Lua keeps one copy of strings that are, which would be a job's body for nothing.
            let head = format!("\u{1}greet{{\"n\":{},\"pad\":\"", self.next + n as u128);
            command.arg(format!("{head:x<120}\"}}").as_bytes());
        }
        self.next += count as u128;
        command
    }
}

impl store::Raw for Raw {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    async fn dispatch(&mut self, jobs: usize, in_flight: usize) -> Duration {
        let commands: Vec<Cmd> = (0..jobs).map(|_| self.insert(1)).collect();
        let begun = Instant::now();
        stream::iter(commands)
            .map(|command| {
                let mut connection = self.connection.clone();
                async move { connection.send_packed_command(&command).await.expect("a dispatch") }
            })
            .buffer_unordered(in_flight)
            .for_each(|_| std::future::ready(()))
            .await;
        begun.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    async fn bulk(&mut self, jobs: usize) -> Duration {
        let begun = Instant::now();
        for from in (0..jobs).step_by(1_000) {
            let command = self.insert(1_000.min(jobs - from));
            self.connection.send_packed_command(&command).await.expect("a batch");
        }
        begun.elapsed()
    }

    /// Settles one batch and claims the next with one script, until nothing is left.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    async fn drain(&mut self, jobs: usize) -> Duration {
        let begun = Instant::now();
        let (mut held, mut done): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
        loop {
            let mut command = redis::cmd("EVALSHA");
            command.arg(&self.work).arg(5);
            command.arg(&["{raw}:b", "{raw}:w", "{raw}:s", "{raw}:l", "{raw}:c"][..]);
            command.arg(&[7_u8; 16][..]).arg(BATCH);
            for id in &held {
                command.arg(&id[..]);
            }
            done += held.len();
            let Value::Array(parts) = self.connection.send_packed_command(&command).await.expect("work")
            else {
                panic!("no array");
            };
            held.clear();
            for pair in parts.chunks_exact(2) {
                let [Value::BulkString(id), Value::BulkString(body)] = pair else { panic!("no job") };
                std::hint::black_box(body);
                held.push(id.clone());
            }
            if held.is_empty() {
                break;
            }
        }
        let took = begun.elapsed();
        assert_eq!(done, jobs, "each job was settled once");
        took
    }
}
