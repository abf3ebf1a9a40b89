//! The rules by which any cached copy of upstream data may be served, whatever it is a copy of: how long it is fresh
//! ([`freshness`]), and whether anything has happened since it was read ([`validity`]).

pub mod freshness;
pub mod quota;
pub mod read_through;
pub mod scope_state;
pub mod single_flight;
pub mod store;
pub mod validity;
