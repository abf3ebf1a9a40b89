//! `shared.*`: the Redis that the replicas of a fleet share.

use std::{path::PathBuf, time::Duration};

use super::secret::Secret;
use crate::credentials::key_ring::KeyRing;

/// `shared.*`: address, credentials and keys of the shared Redis, and what holds while it fails.
#[derive(Debug, Clone, Default)]
pub struct SharedConfig {
    /// `shared.url`; `None` means that the gateway shares nothing.
    pub url: Option<SharedUrl>,
    /// `shared.password_file`
    pub password_file: Option<Secret>,
    /// `shared.ca_file`
    pub ca_file: Option<PathBuf>,
    /// `shared.key_file`
    pub key_file: Option<KeyRing>,
    /// `shared.prefix`
    pub prefix: String,
    /// `shared.timeout`
    pub timeout: Duration,
    /// `shared.lease`
    pub lease: Duration,
    /// `shared.publish_timeout`
    pub publish_timeout: Duration,
    /// `shared.cache`
    pub cache: bool,
    /// `shared.on_outage`
    pub on_outage: OnOutage,
    /// `shared.outage_ttl`
    pub outage_ttl: Duration,
}

/// The address of a Redis, or of the sentinels that know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedUrl {
    /// Host and port of the Redis, or of each sentinel.
    pub nodes: Vec<(String, u16)>,
    /// The name of the master, if the nodes are sentinels.
    pub master: Option<String>,
    /// Whether connections use TLS.
    pub tls: bool,
    /// The name of an ACL user.
    pub user: Option<String>,
    /// The number of the database.
    pub database: i64,
}

/// How long copies are served while the shared Redis fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOutage {
    /// For `cache.ttl`, as without a shared Redis.
    #[default]
    Serve,
    /// For `shared.outage_ttl` at most.
    Shorten,
}
