//! `cache.*`: the caches.

use std::time::Duration;

use bytesize::ByteSize;

/// `cache.*`: sizes, TTLs and stale policy of the caches.
#[derive(Debug, Clone, Default)]
pub struct CacheConfig {
    /// `cache.size`
    pub size: ByteSize,
    /// `cache.ttl`
    pub ttl: Duration,
    /// `cache.absence_ttl`
    pub absence_ttl: Duration,
    /// `cache.list_ttl`
    pub list_ttl: Duration,
    /// `cache.list_size`
    pub list_size: ByteSize,
    /// `cache.answers_size`
    pub answers_size: ByteSize,
    /// `cache.stale_if_error`
    pub stale_if_error: Duration,
    /// `cache.stale_while_revalidate`
    pub stale_while_revalidate: Duration,
    /// `cache.keep_expired`
    pub keep_expired: Duration,
    /// `cache.caller_share`, in percent
    pub caller_share: u8,
}
