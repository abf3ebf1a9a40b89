//! Memory with a bound in bytes, in which everything brings its own time to live.

use std::{
    hash::Hash,
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use moka::{Expiry, sync::Cache};

/// Something that can be kept.
pub(super) trait Kept: Clone + Send + Sync + 'static {
    /// For how long.
    fn ttl(&self) -> Duration;

    /// The bytes that it takes beside itself.
    fn size(&self) -> usize;
}

/// What moka spends on an entry, about: its node, its two places in queues, its timer.
const ENTRY: usize = 256;

/// An empty memory of `size`.
pub(super) fn memory<K, V>(size: ByteSize) -> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Kept,
{
    Cache::builder()
        .max_capacity(size.as_u64())
        .weigher(|_: &K, kept: &V| {
            u32::try_from(size_of::<(K, V)>() + ENTRY + kept.size()).unwrap_or(u32::MAX)
        })
        .expire_after(ByItsOwnTime)
        .build()
}

struct ByItsOwnTime;

impl<K, V: Kept> Expiry<K, V> for ByItsOwnTime {
    fn expire_after_create(&self, _: &K, kept: &V, _: Instant) -> Option<Duration> {
        Some(kept.ttl())
    }

    fn expire_after_update(&self, _: &K, kept: &V, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(kept.ttl())
    }
}
