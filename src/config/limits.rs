//! `limits.*`: request limits and the concurrency limit of operations.

use std::time::Duration;

use bytesize::ByteSize;

/// `limits.*`: limits of a single request, and of concurrent operations.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// `limits.body`
    pub body: ByteSize,
    /// `limits.headers`
    pub headers: ByteSize,
    /// `limits.header_count`
    pub header_count: usize,
    /// `limits.uri`
    pub uri: ByteSize,
    /// `limits.token`
    pub token: ByteSize,
    /// `limits.batch`
    pub batch: usize,
    /// `limits.query`
    pub query: ByteSize,
    /// `limits.tokens`
    pub tokens: usize,
    /// `limits.depth`
    pub depth: usize,
    /// `limits.fields`
    pub fields: usize,
    /// `limits.root_fields`
    pub root_fields: usize,
    /// `limits.aliases`
    pub aliases: usize,
    /// `limits.directives`
    pub directives: usize,
    /// `limits.cost`
    pub cost: usize,
    /// `limits.errors`
    pub errors: usize,
    /// `limits.ids`
    pub ids: usize,
    /// `limits.items`
    pub items: usize,
    /// `limits.answer`
    pub answer: ByteSize,
    /// `limits.operations`
    pub operations: usize,
    /// `limits.operations_waiting`
    pub operations_waiting: usize,
    /// `limits.operations_wait`
    pub operations_wait: Duration,
    /// `limits.caller_share`, in percent
    pub caller_share: usize,
}
