//! Several Redis servers that make one: a cluster, and a master with a replica under Sentinels.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::redis::{Redis, Role, until};

/// A private cluster: three nodes that own a third of the slots each, and a replica of each or none.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts masters and replicas, and waits until they agree.
    ///
    /// # Errors
    /// When a node does not start, or they do not agree in time.
    pub fn start() -> Result<Self> {
        Self::start_of(1)
    }

    /// Starts masters without replicas, and waits until they agree.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_masters() -> Result<Self> {
        Self::start_of(0)
    }

    fn start_of(replicas: usize) -> Result<Self> {
        const MASTERS: usize = 3;
        const SLOTS: usize = 16_384;
        let settings = [
            ("cluster-enabled", "yes"),
            ("cluster-node-timeout", "1000"),
            ("cluster-replica-validity-factor", "0"),
        ];
        let nodes = (0..(1 + replicas) * MASTERS)
            .map(|_| Redis::start_with(&settings))
            .collect::<Result<Vec<_>>>()?;
        let cluster = Self { nodes };
        for (at, node) in cluster.nodes.iter().enumerate().take(MASTERS) {
            // Redis 6.2 takes no ranges.
            let slots: Vec<String> =
                (SLOTS * at / MASTERS..SLOTS * (at + 1) / MASTERS).map(|slot| slot.to_string()).collect();
            let mut words = vec!["CLUSTER", "ADDSLOTS"];
            words.extend(slots.iter().map(String::as_str));
            node.ask(&words)?;
            // Of two that never met the higher one wins; all of the same would fight over it.
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()])?;
        }
        for node in &cluster.nodes[1..] {
            cluster.nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string()])?;
        }
        let ids =
            cluster.nodes.iter().map(|node| node.ask(&["CLUSTER", "MYID"])).collect::<Result<Vec<_>>>()?;
        let ids: Vec<&str> = ids.iter().filter_map(|answer| answer.lines().nth(1)).collect();
        ensure!(ids.len() == cluster.nodes.len(), "a node has no name");
        for (at, node) in cluster.nodes.iter().enumerate().skip(MASTERS) {
            until("a replica knows its master", || {
                node.ask(&["CLUSTER", "REPLICATE", ids[at - MASTERS]]).is_ok()
            })?;
        }
        for node in &cluster.nodes {
            until("the nodes of the cluster agree", || {
                let info = node.ask(&["CLUSTER", "INFO"]).unwrap_or_default();
                let seen = node.ask(&["CLUSTER", "NODES"]).unwrap_or_default();
                info.contains("cluster_state:ok")
                    && seen.matches("slave").count() == replicas * MASTERS
                    && seen.lines().filter(|line| line.contains(" connected")).count() == cluster.nodes.len()
                    && !seen.contains("handshake")
            })?;
        }
        for node in &cluster.nodes[MASTERS..] {
            until("a replica has caught up", || {
                node.ask(&["INFO", "replication"]).is_ok_and(|info| info.contains("master_link_status:up"))
            })?;
        }
        Ok(cluster)
    }

    /// The URL of one of its masters: the others are learnt from it.
    #[must_use]
    pub fn url(&self) -> String {
        self.nodes[0].url()
    }

    /// Leaves it running for others: the process ids and folders of its nodes, which the caller must end and remove.
    ///
    /// # Errors
    /// When a node is not running.
    pub fn leave(self) -> Result<Vec<(u32, PathBuf)>> {
        self.nodes.into_iter().map(Redis::leave).collect()
    }

    /// Its nodes: three masters, then the replica of each, if there are any.
    pub fn nodes(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }
}

/// A private master with a replica, and three Sentinels that watch over them as `jobs`.
#[derive(Debug)]
pub struct RedisSentinels {
    servers: [Redis; 2],
    sentinels: Vec<Redis>,
}

impl RedisSentinels {
    /// Starts them and waits until the Sentinels know each other and the replica.
    ///
    /// # Errors
    /// When one does not start, or they do not agree in time.
    pub fn start() -> Result<Self> {
        let servers = [Redis::start()?, Redis::start()?];
        let master = servers[0].port().to_string();
        servers[1].ask(&["REPLICAOF", "127.0.0.1", &master])?;
        until("the replica has caught up", || {
            servers[1].ask(&["INFO", "replication"]).is_ok_and(|info| info.contains("master_link_status:up"))
        })?;
        let sentinels = (0..3).map(|_| Redis::start_as(&[], Role::Sentinel)).collect::<Result<Vec<_>>>()?;
        for sentinel in &sentinels {
            sentinel.ask(&["SENTINEL", "MONITOR", "jobs", "127.0.0.1", &master, "2"])?;
            for (name, value) in [("down-after-milliseconds", "1000"), ("failover-timeout", "5000")] {
                sentinel.ask(&["SENTINEL", "SET", "jobs", name, value])?;
            }
        }
        for sentinel in &sentinels {
            until("the Sentinels know each other", || {
                let known = sentinel.ask(&["INFO", "sentinel"]).unwrap_or_default();
                known.contains("slaves=1") && known.contains("sentinels=3")
            })?;
        }
        Ok(Self { servers, sentinels })
    }

    /// The URL that names the Sentinels and the master.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<_> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("redis+sentinel://{}/jobs", hosts.join(","))
    }

    /// The master that there was at the start, and its replica.
    pub fn servers(&mut self) -> &mut [Redis; 2] {
        &mut self.servers
    }

    /// The Sentinels.
    pub fn sentinels(&mut self) -> &mut [Redis] {
        &mut self.sentinels
    }
}
