//! The caching rules, for every copy of upstream data.
//!
//! [`read_through`] is the cache: lookup, [`single_flight`], call, revalidation, stale-if-error. [`store`] holds its
//! entries, bounded in bytes, with a [`quota`] for each caller. A [`representation`] is a value with its validators.
//! [`freshness`] is how long a copy may be served, and [`validity`] the one check that every copy passes when it is
//! served. [`scope_state`] records the revocations of a scope.

pub mod freshness;
pub mod quota;
pub mod read_through;
pub mod representation;
pub mod scope_state;
pub mod single_flight;
pub mod store;
pub mod validity;
