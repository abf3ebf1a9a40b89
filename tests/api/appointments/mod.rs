//! Reading, listing and changing appointments.

mod batching;
mod change_bodies;
mod changes;
mod decoding;
mod idempotency;
mod idempotency_chaos;
mod idempotency_keys;
mod list_arguments;
mod list_items;
mod list_sharing;
mod lists;
mod lost_changes;
