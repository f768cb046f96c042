//! The memory engine against the executable specification.

use windlass_conformance::{Conn, Env, TransactionalEnv};
use windlass_core::{Result, Retention};
use windlass_memory::{MemoryBackend, MemoryOptions};

struct Memory(MemoryBackend);

async fn fresh() -> Memory {
    Memory(MemoryBackend::new())
}

impl Env for Memory {
    type Backend = MemoryBackend;

    fn backend(&self) -> &MemoryBackend {
        &self.0
    }

    async fn with_retention(&self, retention: Retention) -> MemoryBackend {
        MemoryBackend::with_options(MemoryOptions { retention, ..MemoryOptions::default() })
    }

    async fn server_timed(&self) -> MemoryBackend {
        MemoryBackend::new()
    }
}

impl TransactionalEnv for Memory {
    async fn begin(&self) -> Result<Conn<Self>> {
        Ok(self.0.begin())
    }

    async fn commit(&self, conn: Conn<Self>) -> Result<()> {
        conn.commit().await
    }

    async fn rollback(&self, conn: Conn<Self>) -> Result<()> {
        conn.rollback();
        Ok(())
    }
}

windlass_conformance::conformance!(fresh);
windlass_conformance::transactional!(fresh);
