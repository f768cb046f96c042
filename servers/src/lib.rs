//! Private servers: each in a temporary folder of its own, on a free port of the loopback interface, ended by its own
//! process id when its handle is dropped. The machine's own servers are never touched.

mod find;
mod postgres;
mod process;
mod redis;
mod redis_groups;

pub use find::{Package, find_or_install};
pub use postgres::{Postgres, PostgresSettings};
pub use process::{Process, cpu_time, free_port};
pub use redis::Redis;
pub use redis_groups::{RedisCluster, RedisSentinels};
