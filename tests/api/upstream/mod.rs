//! Calls to the upstream: failures, retries, circuit breaker, concurrency limit, fair queue.

mod breaker;
mod bulkhead;
mod connections;
mod content_encoding;
mod failures;
mod fair_queue;
mod hedging;
mod http2;
mod old_servers;
mod retries;
mod upstream_calls;
