//! Calls to the upstream: failures, retries, circuit breaker, concurrency limit, fair queue.

mod breaker;
mod bulkhead;
mod failures;
mod fair_queue;
mod hedging;
mod old_servers;
mod retries;
mod upstream_calls;
