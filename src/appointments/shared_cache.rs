//! The second-level cache (`shared.cache`): copies of appointments in the shared Redis, for all replicas.
//!
//! A replica that has to read an appointment looks for a copy of another one first, once for each call in flight, and stores
//! its reads in the background. Absences and pages of the list are not shared: they live for seconds, and a 404 is
//! announced as a revocation anyway.
//!
//! **Keys.** A copy has a key of its own, of the appointment and the scope, that expires when nobody may use it any more. Two
//! markers say which copies are valid: one of the appointment and one of the scope. A marker is the position of the
//! read that has set it. A change deletes the marker of its appointment, and a 401 that of its scope, and with it all copies
//! below. Any other revocation deletes the copy. In the same step the message leaves its own number, so that reads which
//! started before are not stored any more. All names are keyed digests, and copies are encrypted with their name as context.
//!
//! **Validity.** A copy that a look-up finds is as good as a read of this replica that starts at the look-up:
//!
//! 1. Redis numbers a message and ends copies in one step, so every message up to the look-up that concerns the copy had a
//!    lower number than the read of the copy started with. A change that is published before a read starts is in its result.
//! 2. Every later message takes effect on this replica after the look-up, and thus outdates the [`ReadVersion`] of the read
//!    for which it looked. The version was taken before.
//! 3. A change or revocation of this replica that is not published yet makes it look for no copy
//!    ([`Validity::is_shareable`]). The same holds while a change may still take effect.
//! 4. The numbers of another epoch say nothing: Redis has lost data, or messages. Copies of other epochs are not used.
//! 5. A replica that has lost its session may have missed a change which another one could not publish meanwhile, and will only
//!    publish when it is back. So after a gap, a replica uses only copies that were read since it has joined again.
//!
//! The age of a copy is counted by the clock of Redis, from the look-up before its read. So a command that arrives late, for
//! example after Redis was suspended, makes no copy younger.
//!
//! **Accepted scopes.** The marker of a scope also says that the upstream has accepted the caller not long ago, whether copies
//! are shared or not. Without it no replica has copies of the scope, so a revocation ends nothing and is not published:
//! made-up tokens leave nothing in Redis, and other replicas never hear of them.

use std::{
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use moka::sync::Cache;
use redis::Script;
use uuid::Uuid;

use super::{
    cache_ttl::CacheTtl,
    served::CachedLookup,
    shared_copy::{SharedCopy, encode_read, layout},
};
use crate::{
    cache::{
        read_through::Read,
        validity::{ReadVersion, Validity},
    },
    caller::{Caller, Scope},
    config::cache::CacheConfig,
    fleet::{
        Fleet, Names, SharedCopies, Unavailable,
        message::{Epoch, Position, RevokedSubject},
    },
    metrics::metrics,
};

/// How many accepted scopes a replica remembers. It marks the others again at each read.
const REMEMBERED_SCOPES: u64 = 16_384;

/// How long a mark or a copy waits for Redis, in the background.
const MARK_TIMEOUT: Duration = Duration::from_secs(2);

static LOOK_UP: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../fleet/scripts/look_up_copy.lua")));
static SHARE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../fleet/scripts/share_copy.lua")));

/// The shared cache, and the markers of accepted scopes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SharedCache(
    /// None for a gateway that is alone.
    Option<Arc<Inner>>,
);

struct Inner {
    fleet: Fleet,
    names: Names,
    validity: Validity,
    ttl: CacheTtl,
    /// How long the marker of a scope lasts: twice as long as any copy, so that a replica has to renew it only once in half of
    /// the time.
    accepted_for: Duration,
    /// The scopes that this replica has marked in an epoch.
    accepted: Cache<Scope, Epoch>,
    joins: Mutex<Joins>,
    /// The bytes of copies that all callers may store within the lifetime of one (`cache.size`).
    room: u64,
    /// The part of it that a caller has for certain (`cache.caller_share`).
    share: u64,
}

/// When this replica has joined the fleet.
#[derive(Default)]
struct Joins {
    has_joined: bool,
    /// The last time, unless it was the first.
    again: Option<Instant>,
}

/// The permission to store the result of a read, from the look-up before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    as_of: Position,
    /// The time of the look-up in milliseconds, by the clock of Redis.
    looked_up: u64,
}

/// The time, the marker of the appointment, that of the scope, the copy, and how long it lasts.
type Reply = (u64, Vec<u8>, Vec<u8>, Vec<u8>, i64);

impl SharedCache {
    pub(crate) fn new(config: &CacheConfig, fleet: Fleet, validity: Validity, ttl: CacheTtl) -> Self {
        let Some(names) = fleet.names().cloned() else { return Self(None) };
        let accepted_for = 2 * ttl.longest().max(Duration::from_secs(1));
        let accepted =
            Cache::builder().max_capacity(REMEMBERED_SCOPES).time_to_live(accepted_for / 2).build();
        let room = config.size.as_u64();
        let share = room / 100 * u64::from(config.caller_share);
        let joins = Mutex::default();
        let inner = Inner { fleet, names, validity, ttl, accepted_for, accepted, joins, room, share };
        Self(Some(Arc::new(inner)))
    }

    /// Looks for a copy that is good for a read of this `version`. The ticket permits to store the result of that read.
    pub(crate) async fn look_up(
        &self,
        caller: &Caller,
        id: Uuid,
        version: &ReadVersion,
    ) -> (Option<Ticket>, Option<SharedCopy>) {
        match &self.0 {
            // Boxed, so that a call without a shared cache is no larger than before.
            Some(inner) if inner.fleet.has_cache() => Box::pin(inner.look_up(caller, id, version)).await,
            _ => (None, None),
        }
    }

    /// Stores a `read` in the background, if there is a `ticket` and the read may be stored.
    pub(crate) fn share(&self, caller: &Caller, id: Uuid, ticket: Option<Ticket>, read: &Read<CachedLookup>) {
        let Some(inner) = &self.0 else { return };
        let is_storable = read.freshness.is_storable() && !read.freshness.forbids_storage();
        match (ticket, &read.value) {
            (Some(ticket), Some(_)) if is_storable => {
                let (inner, caller, read) = (inner.clone(), caller.clone(), read.clone());
                tokio::spawn(async move { inner.share(&caller, id, ticket, read).await });
            }
            (_, Some(_)) => inner.note_accepted(caller),
            // An absence is no proof that the upstream knows the caller.
            (_, None) => {}
        }
    }

    /// Notes that the upstream has accepted `caller`, so that a revocation is published.
    pub(crate) fn note_accepted(&self, caller: &Caller) {
        if let Some(inner) = &self.0 {
            inner.note_accepted(caller);
        }
    }

    /// Forgets that the upstream has accepted `scope`.
    pub(crate) fn forget(&self, scope: Scope) {
        if let Some(inner) = &self.0 {
            inner.accepted.invalidate(&scope);
        }
    }

    /// Notes that this replica has joined the fleet.
    pub(crate) fn note_joined(&self) {
        if let Some(inner) = &self.0 {
            let mut joins = inner.joins();
            if std::mem::replace(&mut joins.has_joined, true) {
                joins.again = Some(Instant::now());
            }
        }
    }

    /// The shared copies that a change ends. Also without `shared.cache`: other replicas may have it.
    pub(crate) fn ended_by_change(&self, id: Option<Uuid>) -> SharedCopies {
        let (Some(inner), Some(id)) = (&self.0, id) else { return SharedCopies::default() };
        let markers = inner.names.digests("appointment", &[id.as_bytes()]);
        let numbered = markers.iter().map(|marker| last_of(marker)).collect();
        SharedCopies { deleted: markers, numbered, ..SharedCopies::default() }
    }

    /// The shared copies that a revocation ends. None if it need not be published.
    pub(crate) fn ended_by_revocation(
        &self,
        caller: &Caller,
        subject: RevokedSubject,
    ) -> Option<SharedCopies> {
        let inner = self.0.as_ref()?;
        // Without Redis, nobody knows which scopes are made up. They must not fill the outbox.
        if !inner.fleet.is_joined() && !inner.accepted.contains_key(&caller.scope()) {
            return None;
        }
        let markers = inner.names_of(caller, "scope", &[]);
        let only_with = markers.first().cloned();
        let (deleted, numbered) = match subject {
            RevokedSubject::Everything => (markers.clone(), markers.iter().map(|it| last_of(it)).collect()),
            // One number for the scope, not one for each appointment: callers choose ids.
            RevokedSubject::Appointment(id) => (
                inner.names_of(caller, "copy", &[id.as_bytes()]),
                markers.iter().map(|it| last_of(it)).collect(),
            ),
            RevokedSubject::List => Default::default(),
        };
        Some(SharedCopies { only_with, deleted, numbered })
    }
}

impl Inner {
    async fn look_up(
        &self,
        caller: &Caller,
        id: Uuid,
        version: &ReadVersion,
    ) -> (Option<Ticket>, Option<SharedCopy>) {
        let found = self.find(caller, id, version).await;
        metrics().shared_cache_lookups.count(match &found {
            Ok(Some((_, Some(copy)))) if copy.is_fresh() => "hit",
            Ok(Some(_)) => "miss",
            Err(Unavailable) => "unavailable",
            Ok(None) => return (None, None),
        });
        found.ok().flatten().map_or((None, None), |(ticket, copy)| (Some(ticket), copy))
    }

    /// None if no copy would be good for the read.
    async fn find(
        &self,
        caller: &Caller,
        id: Uuid,
        version: &ReadVersion,
    ) -> Result<Option<(Ticket, Option<SharedCopy>)>, Unavailable> {
        let as_of = self.fleet.position().ok_or(Unavailable)?;
        if !self.validity.is_shareable(version, as_of.sequence) {
            return Ok(None);
        }
        let epoch = as_of.epoch.0.to_string();
        let name = self.copy_name(caller.scope(), id);
        let keys = [
            self.names.epoch(),
            self.names.digest("appointment", &[id.as_bytes()]),
            self.names.digest("scope", &[&caller.scope().digest()]),
            name.clone(),
        ];
        let reply: Option<Reply> = self.fleet.call(&LOOK_UP, &keys, &[epoch.as_bytes()]).await?;
        let (looked_up, appointment, scope, sealed, left) = reply.ok_or(Unavailable)?;
        if scope.is_empty() {
            self.accepted.invalidate(&caller.scope());
        }
        let copy = self.open(&name, &sealed).and_then(|mut copy| {
            let is_marked = [appointment, scope].iter().all(|marker| {
                position(marker).is_some_and(|marker| {
                    marker.epoch == copy.as_of.epoch && marker.sequence <= copy.as_of.sequence
                })
            });
            let lifetime = copy.freshness.lifetime();
            copy.age = lifetime.saturating_sub(Duration::from_millis(left.try_into().ok()?));
            copy.freshness = self.ttl.of_shared_copy(caller, copy.freshness, copy.age);
            let is_good = is_marked
                && copy.as_of.epoch == as_of.epoch
                && self.joins().again.is_none_or(|joined| copy.age < joined.elapsed())
                && self.validity.is_shareable(version, copy.as_of.sequence)
                && self.validity.is_storable(version);
            is_good.then_some(copy)
        });
        Ok(Some((Ticket { as_of, looked_up }, copy)))
    }

    async fn share(&self, caller: &Caller, id: Uuid, ticket: Ticket, read: Read<CachedLookup>) {
        let freshness = match &read.validators {
            Some(_) => read.freshness,
            None => read.freshness.without_revalidation(),
        };
        let read = Read { freshness, ..read };
        let Some(plain) = encode_read(&read, ticket.as_of) else { return };
        let name = self.copy_name(caller.scope(), id);
        let Some(sealed) = self.seal(&name, &plain) else { return };
        if !self.validity.is_storable(&read.version) {
            return self.mark(caller, ticket.as_of, Vec::new(), Vec::new()).await;
        }
        let (marker, mine) = (
            self.names.digest("appointment", &[id.as_bytes()]),
            self.names.digest("bytes", &[&caller.scope().digest()]),
        );
        let keys = [last_of(&marker), marker, name, mine, self.names.plain("bytes")];
        let [last, marker, name, mine, all] = keys;
        let ends = ticket.looked_up.saturating_add(freshness.lifetime().as_millis() as u64);
        let numbers = [ends, self.share, self.room, self.ttl.longest_of_appointments().as_millis() as u64];
        let numbers = numbers.map(|number| number.to_string());
        let arguments = std::iter::once(sealed.as_slice()).chain(numbers.iter().map(String::as_bytes));
        self.mark(caller, ticket.as_of, [marker, last, name, mine, all].into(), arguments.collect()).await;
    }

    fn note_accepted(self: &Arc<Self>, caller: &Caller) {
        let Some(position) = self.fleet.position() else { return };
        if self.accepted.get(&caller.scope()) != Some(position.epoch) {
            let (inner, caller) = (self.clone(), caller.clone());
            tokio::spawn(async move { inner.mark(&caller, position, Vec::new(), Vec::new()).await });
        }
    }

    /// Marks the scope of `caller`, and stores a copy if `keys` and `arguments` name one.
    async fn mark(&self, caller: &Caller, as_of: Position, keys: Vec<Vec<u8>>, arguments: Vec<&[u8]>) {
        let markers = self.names_of(caller, "scope", &[]);
        let words = [
            as_of.epoch.0.to_string(),
            as_of.sequence.to_string(),
            self.accepted_for.as_millis().to_string(),
            markers.len().to_string(),
        ];
        let arguments = words.iter().map(String::as_bytes).chain(arguments).collect::<Vec<_>>();
        let markers = markers.into_iter().flat_map(|marker| [marker.clone(), last_of(&marker)]);
        let keys = std::iter::once(self.names.epoch()).chain(markers).chain(keys).collect::<Vec<_>>();
        // First, so that a revocation which is received meanwhile is not forgotten.
        self.accepted.insert(caller.scope(), as_of.epoch);
        let deadline = tokio::time::Instant::now() + MARK_TIMEOUT;
        if self.fleet.call_patiently(&SHARE, &keys, &arguments, deadline).await != Ok(1_u8) {
            self.accepted.invalidate(&caller.scope());
        }
    }

    fn copy_name(&self, scope: Scope, id: Uuid) -> Vec<u8> {
        self.names.digest("copy", &[id.as_bytes(), &scope.digest()])
    }

    /// The names of a `kind` of thing of `caller`, under each key of the fleet with the scope under that key. The last part is the
    /// scope.
    fn names_of(&self, caller: &Caller, kind: &str, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let name = |(index, scope): (usize, Scope)| {
            let digest = scope.digest();
            let parts = parts.iter().copied().chain([digest.as_slice()]).collect::<Vec<_>>();
            self.names.digests(kind, &parts).into_iter().nth(index)
        };
        caller.scopes().into_iter().enumerate().filter_map(name).collect()
    }

    fn seal(&self, name: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        Some(self.fleet.sealer()?.seal(&context(name), plain))
    }

    fn open(&self, name: &[u8], sealed: &[u8]) -> Option<SharedCopy> {
        SharedCopy::decode(&self.fleet.sealer()?.open(&context(name), sealed)?)
    }

    fn joins(&self) -> MutexGuard<'_, Joins> {
        self.joins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key with the number of the last message that has ended the copies under `name`.
fn last_of(name: &[u8]) -> Vec<u8> {
    [name, b":last"].concat()
}

/// The context in which the copy under `name` is encrypted.
fn context(name: &[u8]) -> Vec<u8> {
    [name, &layout()].concat()
}

/// The position that a marker consists of.
fn position(marker: &[u8]) -> Option<Position> {
    let (epoch, sequence) = std::str::from_utf8(marker).ok()?.split_once(':')?;
    Some(Position { epoch: Epoch(Uuid::parse_str(epoch).ok()?), sequence: sequence.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        caller::ScopeKey,
        config::{
            Config,
            shared::{SharedConfig, SharedUrl},
        },
        credentials::key_ring::KeyRing,
        model::Appointment,
    };

    const ONE: Uuid = Uuid::from_u128(1);

    /// A cache of a fleet with these keys that has not joined.
    fn cache(prefix: &str, keys: &[&str]) -> SharedCache {
        let keys = keys.iter().map(|digit| digit.repeat(64)).collect::<Vec<_>>().join("\n");
        let url = SharedUrl { nodes: Vec::new(), master: None, tls: false, user: None, database: 0 };
        let config = SharedConfig {
            url: Some(url),
            key_file: Some(KeyRing::parse(&keys).unwrap()),
            prefix: prefix.to_owned(),
            cache: true,
            ..SharedConfig::default()
        };
        let cache = Config::default().cache;
        let ttl = CacheTtl::new(&cache);
        SharedCache::new(&cache, Fleet::new(&config).unwrap(), Validity::new(), ttl)
    }

    fn caller(token: &str) -> Caller {
        Caller::with_token(token, &ScopeKey::random())
    }

    fn inner(cache: &SharedCache) -> &Arc<Inner> {
        cache.0.as_ref().unwrap()
    }

    #[test]
    fn a_copy_is_bound_to_its_appointment_and_its_caller() {
        let cache = cache("gateway", &["a"]);
        let inner = inner(&cache);
        let (one, other) = (caller("one"), caller("other"));
        let name = inner.copy_name(one.scope(), ONE);
        let version = inner.validity.start_read(one.scope(), crate::cache::validity::Subject::Derived);
        let as_of = Position { epoch: Epoch(ONE), sequence: 7 };
        let freshness = crate::cache::freshness::Freshness::of(Duration::from_secs(1));
        let value = Some(Arc::new(Appointment::bare(ONE)));
        let read = Read { value, validators: None, version, freshness, shared_age: None };
        let sealed = inner.seal(&name, &encode_read(&read, as_of).unwrap()).unwrap();
        assert_eq!(inner.open(&name, &sealed).unwrap().as_of, as_of);
        for name in [inner.copy_name(other.scope(), ONE), inner.copy_name(one.scope(), Uuid::from_u128(2))] {
            assert!(inner.open(&name, &sealed).is_none());
        }
        // Encrypted for another place, by a holder of the keys.
        let foreign = inner.fleet.sealer().unwrap().seal(&name, &encode_read(&read, as_of).unwrap());
        assert!(inner.open(&name, &foreign).is_none());
    }

    #[test]
    fn names_differ_by_prefix_and_key() {
        let scope = caller("one").scope();
        let caches = [cache("a", &["a"]), cache("b", &["a"]), cache("a", &["b"])];
        let names = caches.each_ref().map(|cache| inner(cache).copy_name(scope, ONE));
        assert!(names[0] != names[1] && names[0] != names[2]);
    }

    #[test]
    fn a_change_ends_copies_under_every_key() {
        let [old, both] = [cache("g", &["a"]), cache("g", &["b", "a"])];
        let [old, both] = [&old, &both].map(|cache| cache.ended_by_change(Some(ONE)));
        assert_eq!((old.deleted.len(), both.deleted.len(), both.numbered.len()), (1, 2, 2));
        assert!(both.deleted.contains(&old.deleted[0]) && both.numbered.contains(&old.numbered[0]));
        assert!(both.only_with.is_none());
    }

    #[test]
    fn revocations_of_unknown_scopes_do_not_wait_for_redis() {
        let cache = cache("g", &["a"]);
        let (known, unknown) = (caller("known"), caller("unknown"));
        inner(&cache).accepted.insert(known.scope(), Epoch(ONE));
        for subject in [RevokedSubject::Everything, RevokedSubject::Appointment(ONE), RevokedSubject::List] {
            assert!(cache.ended_by_revocation(&unknown, subject).is_none());
            assert!(cache.ended_by_revocation(&known, subject).unwrap().only_with.is_some());
        }
        cache.forget(known.scope());
        assert!(cache.ended_by_revocation(&known, RevokedSubject::Everything).is_none());
    }

    #[test]
    fn a_gateway_that_is_alone_shares_nothing() {
        let config = Config::default().cache;
        let cache = SharedCache::new(&config, Fleet::alone(), Validity::new(), CacheTtl::new(&config));
        assert!(cache.0.is_none() && cache.ended_by_change(Some(ONE)).deleted.is_empty());
        assert!(cache.ended_by_revocation(&caller("one"), RevokedSubject::Everything).is_none());
    }

    proptest! {
        #[test]
        fn a_marker_is_a_position_and_garbage_is_none(garbage: Vec<u8>, epoch: u128, sequence: u64) {
            let epoch = Uuid::from_u128(epoch);
            let expected = Position { epoch: Epoch(epoch), sequence };
            prop_assert_eq!(position(format!("{epoch}:{sequence}").as_bytes()), Some(expected));
            let _ = position(&garbage);
        }
    }
}
