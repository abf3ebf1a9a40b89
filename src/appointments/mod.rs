//! The caching dataloader: what resolvers ask for appointments, and change them through.
//!
//! [`Appointments`] belongs to one operation of one caller. It gathers the ids that the operation's fields ask for
//! into one batch ([`loader`]) over what all operations of the process share ([`Shared`]): what is kept ([`cache`],
//! [`lists`], in memory with a bound: [`kept`], and with one for each caller: [`shares`]), what is under way ([`flight`]),
//! what is watched ([`live`], [`poller`]). Which of the copies may be served is for [`crate::cache`] to say; [`changes`] and
//! refusals end them. What is made from appointments knows from which ([`provenance`]), and can be kept for as long as these
//! are current ([`derived`]).

pub mod appointment_cache;
pub mod changes;
pub mod copies;
pub mod dependencies;
pub mod dependent_cache;
pub mod failure_log;
pub mod keys;
pub mod list;
pub mod loader;
pub mod operation;
pub mod page_cache;
pub mod poller;
pub mod read_set;
pub mod served;
pub mod shared;
pub mod subscriptions;
pub mod watch_registry;
