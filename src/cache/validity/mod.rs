//! The one validity check of every copy of upstream data: cached appointments and pages, the state that subscribers are
//! shown, finished responses, and calls in flight.
//!
//! A copy is a [`Guarded`] value, and [`Validity::read`] is the only way to its contents, so no cache can forget the check.
//! A copy is valid while all of this holds:
//!
//! - It is fresh, or stale within the bounds of its [`Freshness`], which ends with the caller's token.
//! - It was not evicted.
//! - The upstream has not revoked it since it was read: a 401 revokes everything of the scope, any other definite answer
//!   revokes its appointment (and the pages that show it) or its list. Revoked appointments and pages are evicted by key;
//!   reads in flight compare the numbers of revocations.
//! - In a fleet: the replica has received all messages since, and its lease lasts ([`trust`]).
//! - No change that may have taken effect since could have altered it. A change counts from the moment at which it is sent
//!   ([`Validity::open_change`]). While it is open, copies read earlier are not served to anybody; a read that starts
//!   meanwhile is shared with reads that start meanwhile, and is not stored.
//!
//! A check costs a few atomic loads, however many copies there are.

pub(crate) mod trust;

#[cfg(test)]
mod tests;

use std::{
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::quality::RandomState;
use uuid::Uuid;

use self::trust::Trust;
use super::{
    freshness::{Freshness, ReadPurpose},
    scope_state::{ScopeState, Scopes, UnpublishedRevocation},
};
use crate::caller::Scope;

/// Appointments share counters of changes, so that the memory is bounded (768 KiB) however many there are. Where two share
/// one, a change of the first only means that the second is fetched again, too.
const COUNTERS: usize = 1 << 14;

/// Decides which copies may be served. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Validity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    by_appointment: Box<[Changes]>,
    /// The changes of all appointments, created ones included.
    all: Changes,
    scopes: Scopes,
    trust: Trust,
    hasher: RandomState,
    /// The origin of the timestamps in [`Changes`].
    start: Instant,
}

/// The changes of one appointment, or of all.
#[derive(Debug, Default)]
struct Changes {
    /// How many may have taken effect.
    applied: AtomicU64,
    /// The number of changes in flight.
    open: AtomicU64,
    /// How often a change was opened or closed.
    epoch: AtomicU64,
    /// Until when a change with an unknown outcome may still take effect, in milliseconds since the start.
    uncertain_until: AtomicU64,
    /// The number of the last message of the fleet about them, in its present epoch.
    last_message: AtomicU64,
    /// How many messages about them are not published yet.
    unpublished: AtomicU64,
}

/// The kind of upstream data that a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// One appointment, or its absence.
    Appointment(Uuid),
    /// A page of the list.
    List,
    /// Data that was made from other copies, which are checked themselves.
    Derived,
}

/// The moment at which a read started, with all that had happened by then.
#[derive(Debug, Clone)]
pub(crate) struct ReadVersion {
    pub(crate) started: Instant,
    subject: Subject,
    /// The index of the resource's counter of changes.
    counter: usize,
    applied: u64,
    epoch: u64,
    /// Whether a change was open.
    is_open: bool,
    /// The generation of [`Trust`].
    generation: u64,
    scope: Arc<ScopeState>,
    /// The number of the latest revocation.
    revocation: u64,
}

/// A copy of upstream data.
#[derive(Debug)]
pub(crate) struct Guarded<T> {
    value: T,
    version: ReadVersion,
    freshness: Freshness,
    stored: Instant,
    is_evicted: AtomicBool,
}

/// The contents of a valid copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served<'c, T> {
    pub(crate) value: &'c T,
    /// How long ago the copy was stored, if it is stale.
    pub(crate) stale_age: Option<Duration>,
}

/// A change on its way to the upstream. If it is dropped before its outcome is known, the outcome is unknown.
#[derive(Debug)]
pub(crate) struct OpenChange {
    validity: Validity,
    scope: Arc<ScopeState>,
    id: Option<Uuid>,
    before: ReadVersion,
    /// How long a change with an unknown outcome may still take effect.
    uncertainty: Duration,
    is_settled: bool,
}

impl Validity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            by_appointment: (0..COUNTERS).map(|_| Changes::default()).collect(),
            all: Changes::default(),
            scopes: Scopes::default(),
            trust: Trust::default(),
            hasher: RandomState::default(),
            start: Instant::now(),
        }))
    }

    /// The version of a read of `resource` that `scope` starts now.
    pub(crate) fn start_read(&self, scope: Scope, subject: Subject) -> ReadVersion {
        self.version(self.0.scopes.state(scope), subject, Instant::now())
    }

    /// The version of the appointment `id` that a page of this `version` has brought.
    pub(crate) fn version_of_item(&self, version: &ReadVersion, id: Uuid) -> ReadVersion {
        let now = self.version(version.scope.clone(), Subject::Appointment(id), version.started);
        ReadVersion { revocation: version.revocation, ..now }
    }

    fn version(&self, scope: Arc<ScopeState>, subject: Subject, started: Instant) -> ReadVersion {
        let counter = match subject {
            Subject::Appointment(id) => self.counter(id),
            Subject::List | Subject::Derived => 0,
        };
        let revocation = scope.latest();
        let read = ReadVersion {
            started,
            subject,
            counter,
            applied: 0,
            epoch: 0,
            is_open: false,
            generation: self.0.trust.generation(),
            scope,
            revocation,
        };
        let Some(changes) = self.changes(&read) else { return read };
        // The epoch first: a change that is opened between these loads shows in the epoch.
        let epoch = changes.epoch.load(Ordering::SeqCst);
        let applied = changes.applied.load(Ordering::SeqCst);
        let is_open = changes.is_open(self.milliseconds(started));
        ReadVersion { applied, epoch, is_open, ..read }
    }

    /// Whether the result of a read of this `version` is good for a read that starts now: nothing has happened since that a
    /// new read must see.
    pub(crate) fn is_current(&self, version: &ReadVersion) -> bool {
        let has_same_changes = || {
            self.changes(version).is_none_or(|changes| {
                let is_open = changes.is_open(self.milliseconds(Instant::now()));
                changes.epoch.load(Ordering::SeqCst) == version.epoch && is_open == version.is_open
            })
        };
        self.is_trusted(version, Instant::now())
            && (self.has_no_change_since(version) || has_same_changes())
            && !version.is_revoked()
    }

    /// Whether a change has taken effect, or may have elsewhere, or the upstream has revoked the subject, since a read of
    /// this `version` started.
    pub(crate) fn is_outdated(&self, version: &ReadVersion) -> bool {
        let is_changed = self
            .changes(version)
            .is_some_and(|changes| changes.applied.load(Ordering::SeqCst) != version.applied);
        is_changed || version.generation != self.0.trust.generation() || version.is_revoked()
    }

    /// Whether the result of a read of this `version` may be stored.
    pub(crate) fn is_storable(&self, version: &ReadVersion) -> bool {
        version.generation == self.0.trust.generation()
            && self.has_no_change_since(version)
            && !version.is_revoked()
    }

    /// The contents of `copy`, if it is valid and may be put to this `purpose`.
    pub(crate) fn read<'c, T>(&self, copy: &'c Guarded<T>, purpose: ReadPurpose) -> Option<Served<'c, T>> {
        self.read_at(copy, purpose, Instant::now())
    }

    /// As [`read`](Self::read), for a moment that was taken just now.
    pub(crate) fn read_at<'c, T>(
        &self,
        copy: &'c Guarded<T>,
        purpose: ReadPurpose,
        now: Instant,
    ) -> Option<Served<'c, T>> {
        let age = copy.age(now);
        // A copy that the upstream confirms need not be trusted.
        let is_trusted = purpose == ReadPurpose::Revalidate || self.is_trusted(&copy.version, now);
        let is_valid = is_trusted
            && copy.freshness.permits(purpose, age)
            && !copy.is_evicted.load(Ordering::Acquire)
            && self.has_no_change_since(&copy.version)
            && !copy.is_revoked();
        let stale_age = copy.freshness.left(age).is_none().then_some(age);
        is_valid.then_some(Served { value: &copy.value, stale_age })
    }

    /// The contents of `copy` for a reader that has waited since `since`. If the copy was stored after that moment, it is
    /// the result that the reader waited for: it need not be storable, and a read that has started since may even overlap
    /// with an open change.
    pub(crate) fn read_awaited<'c, T>(&self, copy: &'c Guarded<T>, since: Instant) -> Option<&'c T> {
        let version = &copy.version;
        let is_awaited = copy.stored >= since
            && !copy.is_evicted.load(Ordering::Acquire)
            && !self.is_outdated(version)
            && (version.started >= since || self.is_current(version));
        let awaited = is_awaited.then_some(&copy.value);
        awaited.or_else(|| self.read(copy, ReadPurpose::Fresh).map(|served| served.value))
    }

    /// Opens a change of the appointment `id`, or the creation of one, by `scope`. From now on, copies that were read earlier
    /// are not served. If the outcome stays unknown, the change may still take effect for as long as `uncertainty`.
    pub(crate) fn open_change(&self, scope: Scope, id: Option<Uuid>, uncertainty: Duration) -> OpenChange {
        let scope = self.0.scopes.state(scope);
        self.each_counter(id, |changes| {
            changes.epoch.fetch_add(1, Ordering::SeqCst);
            changes.open.fetch_add(1, Ordering::SeqCst);
        });
        let subject = id.map_or(Subject::List, Subject::Appointment);
        let before = self.version(scope.clone(), subject, Instant::now());
        OpenChange { validity: self.clone(), scope, id, before, uncertainty, is_settled: false }
    }

    /// Revokes everything that `scope` has read.
    pub(crate) fn revoke_everything(&self, scope: Scope) {
        // Without a state there is no copy and no read.
        if let Some(state) = self.0.scopes.existing(scope) {
            state.revoke_everything();
        }
    }

    /// Revokes the appointment `id` that `scope` has read, and pages that show it.
    pub(crate) fn revoke(&self, scope: Scope, id: Uuid) {
        if let Some(state) = self.0.scopes.existing(scope) {
            state.revoke(id);
        }
    }

    /// A read of this `version` has found no appointment: older copies of it, and pages that show it, are revoked. Returns
    /// the version of that absence, which is revoked only if something else had revoked the read.
    pub(crate) fn found_absent(&self, version: &ReadVersion, id: Uuid) -> ReadVersion {
        let was_revoked = version.is_revoked();
        let number = version.scope.revoke(id);
        let is_revoked = was_revoked || version.scope.is_everything_revoked(version.revocation);
        let revocation = if is_revoked { version.revocation } else { number };
        ReadVersion { revocation, ..version.clone() }
    }

    /// Revokes all pages that `scope` has read.
    pub(crate) fn revoke_list(&self, scope: Scope) {
        if let Some(state) = self.0.scopes.existing(scope) {
            state.revoke_list();
        }
    }

    /// Whether no message of the fleet was missed since a read of this `version`.
    fn is_trusted(&self, version: &ReadVersion, now: Instant) -> bool {
        // A read that started after the lease had ended is as good as one without a fleet.
        let is_in_time = || self.0.trust.holds(self.milliseconds(now), self.milliseconds(version.started));
        version.generation == self.0.trust.generation() && is_in_time()
    }

    /// Distrusts all copies: messages of the fleet were missed. They may be revalidated.
    pub(crate) fn distrust(&self) {
        // First: later reads are not compared with numbers of the former epoch.
        self.0.trust.renew();
        for changes in self.0.by_appointment.iter().chain([&self.0.all]) {
            changes.last_message.store(0, Ordering::SeqCst);
        }
    }

    /// Trusts copies until `end`.
    pub(crate) fn trust_until(&self, end: Instant) {
        self.0.trust.hold_until(self.milliseconds(end));
    }

    /// A change on another replica has taken effect, or may do so for as long as `uncertain_for`. Message number
    /// `sequence` says so.
    pub(crate) fn changed_elsewhere(&self, id: Option<Uuid>, uncertain_for: Option<Duration>, sequence: u64) {
        let until = uncertain_for.map(|uncertainty| self.milliseconds(Instant::now() + uncertainty) + 1);
        self.each_counter(id, |changes| {
            if let Some(until) = until {
                changes.uncertain_until.fetch_max(until, Ordering::SeqCst);
            }
            changes.applied.fetch_add(1, Ordering::SeqCst);
            changes.epoch.fetch_add(1, Ordering::SeqCst);
        });
        self.note_message(id, sequence);
    }

    /// Notes that message number `sequence` was about the appointment `id`.
    pub(crate) fn note_message(&self, id: Option<Uuid>, sequence: u64) {
        self.each_counter(id, |changes| {
            changes.last_message.fetch_max(sequence, Ordering::SeqCst);
        });
    }

    /// Counts a message about the appointment `id` as unpublished until the guard is dropped.
    pub(crate) fn unpublished(&self, id: Option<Uuid>) -> UnpublishedMessage {
        self.each_counter(id, |changes| {
            changes.unpublished.fetch_add(1, Ordering::SeqCst);
        });
        UnpublishedMessage { validity: self.clone(), id }
    }

    /// Counts a revocation of data of `scope` as unpublished until the guard is dropped.
    pub(crate) fn unpublished_revocation(&self, scope: Scope) -> UnpublishedRevocation {
        UnpublishedRevocation::new(self.0.scopes.state(scope))
    }

    /// Whether a copy of another replica, read when it had received message number `as_of`, is good for a read of this
    /// `version`: no change and no revocation is known that it may lack.
    pub(crate) fn is_shareable(&self, version: &ReadVersion, as_of: u64) -> bool {
        let is_ahead = |changes: &Changes| {
            changes.unpublished.load(Ordering::SeqCst) > 0
                || changes.last_message.load(Ordering::SeqCst) > as_of
        };
        !version.is_open
            && !version.scope.has_unpublished_revocation()
            && !self.changes(version).is_some_and(is_ahead)
    }

    fn has_no_change_since(&self, version: &ReadVersion) -> bool {
        !version.is_open
            && self.changes(version).is_none_or(|changes| {
                changes.open.load(Ordering::SeqCst) == 0
                    && changes.applied.load(Ordering::SeqCst) == version.applied
            })
    }

    /// The changes by which a read of this `version` is outdated.
    fn changes(&self, version: &ReadVersion) -> Option<&Changes> {
        match version.subject {
            Subject::Appointment(_) => self.0.by_appointment.get(version.counter),
            Subject::List => Some(&self.0.all),
            Subject::Derived => None,
        }
    }

    /// Counts for all appointments first: a reader that sees the change of an appointment sees it in the list, too.
    fn each_counter(&self, id: Option<Uuid>, count: impl Fn(&Changes)) {
        count(&self.0.all);
        if let Some(id) = id {
            count(self.by_id(id));
        }
    }

    fn by_id(&self, id: Uuid) -> &Changes {
        &self.0.by_appointment[self.counter(id)]
    }

    fn counter(&self, id: Uuid) -> usize {
        self.0.hasher.hash_one(id) as usize % COUNTERS
    }

    fn milliseconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.0.start).as_millis() as u64
    }
}

/// A message that is not published yet. Until then, shared copies may be outdated.
#[derive(Debug)]
pub(crate) struct UnpublishedMessage {
    validity: Validity,
    id: Option<Uuid>,
}

impl Drop for UnpublishedMessage {
    fn drop(&mut self) {
        self.validity.each_counter(self.id, |changes| {
            changes.unpublished.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

impl Changes {
    fn is_open(&self, milliseconds: u64) -> bool {
        self.open.load(Ordering::SeqCst) > 0 || milliseconds < self.uncertain_until.load(Ordering::SeqCst)
    }
}

impl ReadVersion {
    /// Whether the upstream has revoked the subject since. A page counts as revoked with anything of its scope, since the
    /// appointments on it are not known before it has arrived.
    pub(crate) fn is_revoked(&self) -> bool {
        if self.scope.latest() == self.revocation {
            return false;
        }
        self.scope.is_everything_revoked(self.revocation)
            || match self.subject {
                Subject::Appointment(id) => self.scope.is_any_revoked([id], self.revocation),
                Subject::List => true,
                Subject::Derived => false,
            }
    }
}

impl<T> Guarded<T> {
    /// A copy, stored now, of a read of this `version`.
    pub(crate) fn new(value: T, version: ReadVersion, freshness: Freshness) -> Self {
        Self { value, version, freshness, stored: Instant::now(), is_evicted: AtomicBool::new(false) }
    }

    /// The same copy, but stored `age` ago.
    pub(crate) fn of_age(self, age: Duration) -> Self {
        match self.stored.checked_sub(age) {
            Some(stored) => Self { stored, ..self },
            // Older than the clock of this machine.
            None => Self { freshness: self.freshness.after(age), ..self },
        }
    }

    /// Whether the upstream has revoked the copy since it was read, other than by its key: then it is evicted.
    fn is_revoked(&self) -> bool {
        let ReadVersion { subject, scope, revocation, .. } = &self.version;
        scope.is_everything_revoked(*revocation)
            || *subject == Subject::List && scope.is_list_revoked(*revocation)
    }

    pub(crate) fn version(&self) -> &ReadVersion {
        &self.version
    }

    pub(crate) fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// How much longer the copy is fresh, as of `now`; none if it is stale.
    pub(crate) fn fresh_for(&self, now: Instant) -> Option<Duration> {
        self.freshness.left(self.age(now))
    }

    /// Looks at the contents for bookkeeping: their size and their tags. They are not to be served from here.
    pub(crate) fn account<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.value)
    }

    /// Ends the copy for all of its holders.
    pub(crate) fn evict(&self) {
        self.is_evicted.store(true, Ordering::Release);
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.stored)
    }
}

impl OpenChange {
    /// The change has taken effect, on the appointment `id` as far as that is known. Returns the version of its answer, if
    /// that is the latest word: if no other change of the appointment was open meanwhile, and nothing was revoked.
    pub(crate) fn applied(mut self, id: Option<Uuid>) -> Option<ReadVersion> {
        let is_latest = {
            let changes = self.validity.changes(&self.before);
            let is_only = changes.is_some_and(|changes| {
                changes.epoch.load(Ordering::SeqCst) == self.before.epoch
                    && changes.open.load(Ordering::SeqCst) == 1
                    && self.validity.milliseconds(self.before.started)
                        >= changes.uncertain_until.load(Ordering::SeqCst)
            });
            // A created appointment may have been changed since, by another caller that found it in the list.
            is_only && !self.before.is_revoked()
        };
        if let (None, Some(created)) = (self.id, id) {
            // Reads of the appointment that started before it was created say that there is none.
            self.validity.by_id(created).applied.fetch_add(1, Ordering::SeqCst);
        }
        let id = self.id.or(id);
        let subject = Subject::Appointment(id?);
        let version = match self.id {
            // Of this very change: one that takes effect from now on outdates it.
            Some(_) => ReadVersion {
                started: Instant::now(),
                applied: self.before.applied + 1,
                epoch: self.before.epoch + 1,
                is_open: false,
                ..self.before.clone()
            },
            None => self.validity.version(self.scope.clone(), subject, Instant::now()),
        };
        self.close(|changes| {
            changes.applied.fetch_add(1, Ordering::SeqCst);
        });
        is_latest.then_some(version)
    }

    /// The upstream has refused the change: copies that were read before it become valid again.
    pub(crate) fn refused(mut self) {
        self.close(|_| {});
    }

    /// Nobody knows whether the change has taken effect, or will.
    pub(crate) fn unknown(mut self) {
        self.close_uncertain();
    }

    fn close_uncertain(&mut self) {
        let until = self.validity.milliseconds(Instant::now() + self.uncertainty) + 1;
        self.close(|changes| {
            changes.uncertain_until.fetch_max(until, Ordering::SeqCst);
            changes.applied.fetch_add(1, Ordering::SeqCst);
        });
    }

    fn close(&mut self, settle: impl Fn(&Changes)) {
        self.is_settled = true;
        self.validity.each_counter(self.id, |changes| {
            // Settled first: while the change is open, nothing that was read before it is served.
            settle(changes);
            changes.epoch.fetch_add(1, Ordering::SeqCst);
            changes.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

impl Drop for OpenChange {
    fn drop(&mut self) {
        if !self.is_settled {
            self.close_uncertain();
        }
    }
}
