//! Private servers: each in a temporary folder of its own, on a free port of the loopback interface, ended by its own
//! process id when its handle is dropped. The machine's own servers are never touched. And a proxy that cuts connections.

mod family;
mod find;
mod postgres;
mod process;
mod proxy;
mod redis;
mod redis_groups;

pub use family::kill_family;
pub use find::{Package, find_or_install};
pub use postgres::{Postgres, PostgresSettings};
pub use process::{Process, cpu_time, free_port};
pub use proxy::{Proxy, Side};
pub use redis::Redis;
pub use redis_groups::{RedisCluster, RedisSentinels};
