//! Protection of the upstream and of the gateway from it: the call policy (retries, hedging, deadlines), the retry budget,
//! circuit breakers, and `Retry-After`.

pub mod breaker;
pub mod call_policy;
pub mod hedging;
pub mod retry_after;
pub mod retry_budget;
