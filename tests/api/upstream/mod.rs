//! Calls to the upstream: connections, proxy, certificates, failures, retries, circuit breaker, concurrency limit, fair queue.

mod breaker;
mod bulkhead;
mod client_certificate;
mod failures;
mod fair_queue;
mod forward_proxy;
mod hedging;
mod request_id;
mod retries;
mod upstream_calls;
