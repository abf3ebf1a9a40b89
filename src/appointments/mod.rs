//! The appointments layer, with the caching dataloader: batched reads, changes and subscriptions over shared caches.
//!
//! [`Appointments`](operation::Appointments) belongs to one operation of one caller. Its [`loader`] gathers the ids that the
//! fields ask for into one batch, over the caches that all operations share ([`shared`]): the [`appointment_cache`] and the
//! [`page_cache`], both a [`ReadThrough`](crate::cache::read_through::ReadThrough). [`cache_ttl`] sets their TTLs.
//! [`copies`] revokes all cached copies of an appointment at once. [`changes`] are sent once, even if their request is repeated with its key ([`idempotency`]). [`subscriptions`] share one [`poller`] for each watched appointment.
//! In a fleet, the [`fleet_receiver`] ends copies that changed on other replicas, and the [`shared_cache`] has copies of all
//! replicas. The poller with the [`poll_lease`] sends its [`findings`] to those that are [`following`] it.
//! Finished responses are cached as long as their [`dependencies`] are current ([`dependent_cache`]).

pub mod appointment_cache;
pub mod cache_ttl;
pub mod changed;
pub mod changes;
pub mod copies;
pub mod dependencies;
pub mod dependent_cache;
pub mod failure_log;
pub mod findings;
pub mod fleet_receiver;
pub mod following;
pub mod idempotency;
pub mod keys;
pub mod list;
pub mod loader;
pub mod operation;
pub mod page_cache;
pub mod poll_lease;
pub mod poller;
pub mod read_set;
pub mod served;
pub mod shared;
pub mod shared_cache;
pub mod shared_copy;
pub mod subscriptions;
pub mod watch_registry;
