//! Calls to the upstream: connections, proxy, certificates, failures, retries, circuit breaker, concurrency limit, fair queue.

mod breaker;
mod bulkhead;
mod client_certificate;
mod connections;
mod content_encoding;
mod failures;
mod fair_queue;
mod forward_proxy;
mod hedging;
mod http2;
mod old_servers;
mod request_id;
mod retries;
mod upstream_calls;
