//! Caches: sharing, freshness, validity after changes and revocations, quotas.

mod cache_model;
mod caller_shares;
mod changes_in_flight;
mod freshness;
mod isolation;
mod response_cache;
mod response_cache_bounds;
mod revalidation;
mod revocation;
mod single_flight;
mod stale;
mod validity;
mod write_during_read;
mod write_then_read;
