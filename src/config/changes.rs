//! `changes.*`: the records of idempotency keys.

use std::time::Duration;

use bytesize::ByteSize;

/// `changes.*`: lifetime and memory of the records of idempotency keys.
#[derive(Debug, Clone, Default)]
pub struct ChangesConfig {
    /// `changes.idempotency_ttl`
    pub idempotency_ttl: Duration,
    /// `changes.idempotency_size`
    pub idempotency_size: ByteSize,
}
