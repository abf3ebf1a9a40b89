//! The rules by which any cached copy of upstream data may be served, whatever it is a copy of: how long it is fresh
//! ([`freshness`]), and whether anything has happened since it was read ([`validity`]).

mod freshness;
mod scope_state;
mod validity;

pub(crate) use freshness::{Freshness, StalePolicy, Use};
pub(crate) use validity::{Guarded, ReadVersion, Resource, Served, Validity};
