//! The fleet: replicas of the gateway that share a Redis (`shared.*`).
//!
//! Without `shared.url` a gateway is alone, and nothing here does anything. With it, each replica
//!
//! - holds a lease in Redis and receives the messages of the change bus ([`session`]),
//! - publishes changes, revocations and findings of pollers ([`message`]), and waits until all replicas with a live lease
//!   have acknowledged a change,
//! - keeps messages until they are published ([`outbox`]).
//!
//! **Order.** Redis numbers all messages of an epoch. A replica that misses a number, loses its connection or cannot renew
//! its lease distrusts every copy that it holds, and joins again.
//!
//! **Failure.** Each call has a deadline (`shared.timeout`), and is refused at once while there is no connection or the
//! [circuit breaker](breaker) is open. No request waits for Redis longer than that.
//!
//! **Privacy.** Values are encrypted ([`seal`]), and the names of keys are digests ([`Names`]).

mod acknowledgements;
mod breaker;
mod check;
mod connection;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod message;
mod names;
mod outbox;
mod replay_window;
pub(crate) mod seal;
mod session;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{FromRedisValue, Script};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use uuid::Uuid;

pub use self::check::check;
use self::{
    acknowledgements::Acknowledgements,
    breaker::Breaker,
    connection::Connector,
    message::{Event, Position, ReplicaId},
    outbox::{Outbox, Outgoing},
    seal::Sealer,
    session::{Published, Session},
};
pub(crate) use self::{
    names::Names,
    outbox::{SharedCopies, Unpublished},
};
use crate::{
    config::shared::{OnOutage, SharedConfig},
    credentials::key_ring::KeyRing,
    metrics::metrics,
};

/// How long a replica without a session is expected to join again: an interruption of the connection takes less.
const JOINING: Duration = Duration::from_secs(2);

/// The fleet of which this process is a replica. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(
    /// None for a gateway that is alone.
    Option<Arc<Inner>>,
);

struct Inner {
    replica: ReplicaId,
    names: Names,
    sealer: Sealer,
    keys: KeyRing,
    timeout: Duration,
    lease: Duration,
    publish_timeout: Duration,
    has_cache: bool,
    /// `shared.outage_ttl`, if `shared.on_outage` says so.
    outage_ttl: Option<Duration>,
    /// The session, while there is a connection and a lease.
    session: watch::Sender<Option<Arc<Session>>>,
    outbox: Outbox,
    acknowledgements: Acknowledgements,
    breaker: Breaker,
    /// Set once, by [`Fleet::start`].
    receiver: OnceLock<Arc<dyn FleetReceiver>>,
    /// The number of the last message of this replica.
    last_number: AtomicU64,
    has_left: AtomicBool,
    /// When the last session ended, or the process started.
    alone_since: Mutex<Instant>,
}

/// Receives the messages of other replicas.
pub(crate) trait FleetReceiver: Send + Sync + 'static {
    /// Takes effect before the message is acknowledged. `is_own` if this replica has published it.
    fn receive(&self, event: &Event, position: Position, is_own: bool);

    /// Messages were missed, or may have been: no copy from before may be served until the upstream has confirmed it.
    /// Until the next call of [`trust_until`](Self::trust_until), no other replica waits for this one.
    fn distrust(&self, outage: Outage);

    /// Copies are valid until `end`, unless this is called again: the lease ends then.
    fn trust_until(&self, end: Instant);
}

/// Whether a replica goes on without the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// The replica has joined.
    None,
    /// The shared Redis fails. Copies are fresh for so long at most.
    Until(Option<Duration>),
}

/// The reason for which a call got no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unavailable;

impl Fleet {
    /// A gateway that shares nothing.
    pub fn alone() -> Self {
        Self(None)
    }

    /// The fleet that `config` names. Nothing is connected before [`start`](Self::start).
    ///
    /// # Errors
    /// A text for the operator.
    pub fn new(config: &SharedConfig) -> Result<Self, String> {
        let (Some(_), Some(keys)) = (&config.url, &config.key_file) else { return Ok(Self::alone()) };
        let outage_ttl = (config.on_outage == OnOutage::Shorten).then_some(config.outage_ttl);
        Ok(Self(Some(Arc::new(Inner {
            replica: ReplicaId(Uuid::new_v4()),
            names: Names::new(&config.prefix, keys.clone()),
            sealer: Sealer::new(keys.clone()),
            keys: keys.clone(),
            timeout: config.timeout,
            lease: config.lease,
            publish_timeout: config.publish_timeout,
            has_cache: config.cache,
            outage_ttl,
            session: watch::Sender::new(None),
            outbox: Outbox::default(),
            acknowledgements: Acknowledgements::default(),
            breaker: Breaker::default(),
            receiver: OnceLock::new(),
            last_number: AtomicU64::new(0),
            has_left: AtomicBool::new(false),
            alone_since: Mutex::new(Instant::now()),
        }))))
    }

    /// Joins the fleet in the background, and never gives up. `receiver` gets the messages of other replicas.
    ///
    /// # Errors
    /// A text for the operator, if TLS cannot be set up.
    pub(crate) fn start(
        &self,
        config: &SharedConfig,
        receiver: Arc<dyn FleetReceiver>,
    ) -> Result<(), String> {
        let (Some(inner), Some(url)) = (&self.0, &config.url) else { return Ok(()) };
        let connector = Connector::new(config, url.clone())?;
        receiver.distrust(Outage::Until(inner.outage_ttl));
        if inner.receiver.set(receiver).is_ok() {
            tokio::spawn(session::run(Arc::downgrade(inner), connector));
        }
        Ok(())
    }

    /// Publishes the waiting messages and ends the lease, so that no change of another replica waits for this one. For the end of
    /// the process; takes no longer than `shared.publish_timeout`.
    pub(crate) async fn leave(&self) {
        let Some(inner) = &self.0 else { return };
        inner.has_left.store(true, Ordering::SeqCst);
        if let Some(session) = inner.session() {
            // After a failure the lease ends by itself.
            let _ = timeout(inner.publish_timeout, session.leave(inner)).await;
        }
    }

    /// Whether there is a fleet, joined or not.
    pub(crate) fn is_configured(&self) -> bool {
        self.0.is_some()
    }

    /// Whether this replica has joined the fleet.
    pub(crate) fn is_joined(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.session.borrow().is_some())
    }

    /// Whether the replica is not joined for such a short time that it probably joins soon.
    pub(crate) fn is_joining(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| {
            inner.session.borrow().is_none() && inner.lock_alone_since().elapsed() < JOINING
        })
    }

    /// Whether copies are shared (`shared.cache`).
    pub(crate) fn has_cache(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.has_cache)
    }

    /// The keys of the fleet.
    pub fn keys(&self) -> Option<&KeyRing> {
        self.0.as_ref().map(|inner| &inner.keys)
    }

    /// The names of keys in Redis.
    pub(crate) fn names(&self) -> Option<&Names> {
        self.0.as_ref().map(|inner| &inner.names)
    }

    /// Encrypts everything that goes to Redis.
    pub(crate) fn sealer(&self) -> Option<&Sealer> {
        self.0.as_ref().map(|inner| &inner.sealer)
    }

    /// The name of this process in the fleet, which holds leases.
    pub(crate) fn replica(&self) -> Option<ReplicaId> {
        self.0.as_ref().map(|inner| inner.replica)
    }

    /// The last message that this replica has received; none without a session.
    pub(crate) fn position(&self) -> Option<Position> {
        self.0.as_ref()?.session.borrow().as_ref().map(|session| session.position())
    }

    /// Runs `script` in Redis, within `shared.timeout`.
    ///
    /// # Errors
    /// There is no connection, no result in time, or the server reported an error.
    pub(crate) async fn call<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        arguments: &[&[u8]],
    ) -> Result<T, Unavailable> {
        let Some(inner) = &self.0 else { return Err(Unavailable) };
        let Some(session) = inner.session() else { return Err(Unavailable) };
        let Some(attempt) = inner.breaker.admit() else { return Err(Unavailable) };
        let result = timeout(inner.timeout, session.run(script, keys, arguments)).await;
        let result = result.map_err(|_| "timeout").and_then(|result| result.map_err(|_| "error"));
        attempt.report(result.is_ok());
        metrics().shared_calls.count(result.as_ref().err().unwrap_or(&"ok"));
        result.map_err(|_| Unavailable)
    }

    /// Runs `script` in Redis as [`call`](Self::call) does, but until `deadline`, for a lease at most, and whatever the
    /// circuit breaker says: for calls on which correctness depends.
    ///
    /// # Errors
    /// There is no connection, no result in time, or the server reported an error.
    pub(crate) async fn call_patiently<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        arguments: &[&[u8]],
        deadline: Instant,
    ) -> Result<T, Unavailable> {
        let Some(inner) = &self.0 else { return Err(Unavailable) };
        let Some(session) = inner.session() else { return Err(Unavailable) };
        let deadline = deadline.min(Instant::now() + inner.lease);
        let result = timeout_at(deadline, session.run(script, keys, arguments)).await;
        result.map_err(|_| Unavailable)?.map_err(|_| Unavailable)
    }

    /// Publishes `event`, and ends shared copies at the same moment. Waits until all replicas have acknowledged it,
    /// for `shared.publish_timeout` at most. A message that cannot be published now is published once Redis is back.
    ///
    /// `unpublished` is dropped once the message is published.
    pub(crate) async fn publish(&self, event: Event, ends: SharedCopies, unpublished: Unpublished) {
        let Some(inner) = &self.0 else { return };
        let deadline = Instant::now() + inner.publish_timeout;
        let outgoing = Outgoing { event, ends, _unpublished: unpublished };
        let outcome = inner.publish_now(outgoing, deadline).await;
        metrics().shared_changes.count(outcome);
    }

    /// Publishes `event` soon, without waiting.
    pub(crate) fn announce(&self, event: Event, ends: SharedCopies, unpublished: Unpublished) {
        let Some(inner) = &self.0 else { return };
        // An observation is of no use later.
        if matches!(event, Event::Observed(_)) && inner.session.borrow().is_none() {
            return;
        }
        inner.publish_later(Outgoing { event, ends, _unpublished: unpublished });
    }
}

impl Inner {
    fn session(&self) -> Option<Arc<Session>> {
        self.session.borrow().clone()
    }

    async fn publish_now(&self, outgoing: Outgoing, deadline: Instant) -> &'static str {
        let Some(session) = self.session() else {
            self.publish_later(outgoing);
            return "unpublished";
        };
        let published = timeout_at(deadline, session.publish(self, &outgoing)).await;
        let Ok(Ok(published)) = published else {
            // It may have been published. Published twice, it ends the same copies.
            self.publish_later(outgoing);
            return "unpublished";
        };
        self.take_effect(&outgoing.event, published.as_ref());
        drop(outgoing);
        let Some(published) = published else { return "unneeded" };
        let others = published.replicas.into_iter().filter(|replica| *replica != self.replica).collect();
        match timeout_at(deadline, self.acknowledgements.wait(published.position, others)).await {
            Ok(()) => "acknowledged",
            Err(_) => "unacknowledged",
        }
    }

    /// The keys by which all scripts of the bus work: epoch, sequence, members.
    fn shared_names(&self) -> Vec<Vec<u8>> {
        ["epoch", "sequence", "members"].map(|name| self.names.plain(name)).to_vec()
    }

    fn publish_later(&self, outgoing: Outgoing) {
        if self.outbox.push(outgoing).is_err() {
            // The next session begins a new epoch.
            self.session.send_replace(None);
        }
    }

    /// Notes a published message of this replica, before its `unpublished` guard is dropped.
    fn take_effect(&self, event: &Event, published: Option<&Published>) {
        if let (Some(published), Some(receiver)) = (published, self.receiver.get()) {
            receiver.receive(event, published.position, true);
        }
    }

    fn lock_alone_since(&self) -> MutexGuard<'_, Instant> {
        self.alone_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the replica has left the fleet for good.
    fn has_left(&self) -> bool {
        self.has_left.load(Ordering::SeqCst)
    }

    /// The next number of a message of this replica.
    fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::SeqCst) + 1
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}
