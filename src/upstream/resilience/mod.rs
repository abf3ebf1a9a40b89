//! Protection of the upstream from overload, and of the gateway from its failures: concurrency limit with fair queuing,
//! circuit breakers, retries with backoff and a retry budget, hedging, and pauses for `Retry-After`.

pub mod breaker;
pub mod call_policy;
pub mod hedging;
pub mod retry_after;
pub mod retry_budget;
