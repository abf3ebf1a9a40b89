//! Revocations of each caller scope: definite answers of the upstream that withdraw access.
//!
//! A scope has a state for as long as a copy or a read of that scope exists, and no longer: revocations touch only copies
//! that were read before them. So made-up tokens leave nothing behind, and no caller's revocations affect another's
//! copies.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use crate::caller::Scope;

/// How many revoked appointments a scope remembers, for the reads in flight. When it forgets the oldest, reads from before
/// that one count as revoked.
const REMEMBERED: usize = 128;

/// The states of all scopes that have any. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scopes(Arc<Mutex<HashMap<Scope, Weak<ScopeState>>>>);

/// The revocations of one scope, numbered from 1.
#[derive(Debug)]
pub(crate) struct ScopeState {
    scope: Scope,
    latest: AtomicU64,
    /// The latest revocation of everything (401).
    everything: AtomicU64,
    /// The latest revocation of the list.
    list: AtomicU64,
    appointments: Mutex<Revoked>,
    /// How many revocations the other replicas of the fleet do not know yet.
    unpublished: AtomicU64,
    scopes: Scopes,
}

/// A revocation that is not published yet. Until then, shared copies may be revoked.
#[derive(Debug)]
pub(crate) struct UnpublishedRevocation(Arc<ScopeState>);

/// The latest revocation of each appointment.
#[derive(Debug, Default)]
struct Revoked {
    by_id: HashMap<Uuid, u64>,
    in_order: VecDeque<(u64, Uuid)>,
    /// The latest revocation that was forgotten.
    forgotten: u64,
}

impl Scopes {
    /// The state of `scope`, which lives until the last holder drops it.
    pub(crate) fn state(&self, scope: Scope) -> Arc<ScopeState> {
        // Declared before the lock is taken, thus dropped after it: the last holder of a state takes the lock.
        let found;
        let mut states = self.lock();
        found = states.get(&scope).and_then(Weak::upgrade);
        found.unwrap_or_else(|| {
            let state = Arc::new(ScopeState::new(scope, self.clone()));
            states.insert(scope, Arc::downgrade(&state));
            state
        })
    }

    /// The state of `scope`, if it has one.
    pub(crate) fn existing(&self, scope: Scope) -> Option<Arc<ScopeState>> {
        self.lock().get(&scope).and_then(Weak::upgrade)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Scope, Weak<ScopeState>>> {
        // Nothing that runs under the lock leaves the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ScopeState {
    fn new(scope: Scope, scopes: Scopes) -> Self {
        let [latest, everything, list, unpublished] = [const { AtomicU64::new(0) }; 4];
        Self { scope, latest, everything, list, appointments: Mutex::default(), unpublished, scopes }
    }

    /// The number of the latest revocation.
    pub(crate) fn latest(&self) -> u64 {
        self.latest.load(Ordering::SeqCst)
    }

    /// Whether everything was revoked after revocation number `since`.
    pub(crate) fn is_everything_revoked(&self, since: u64) -> bool {
        self.everything.load(Ordering::SeqCst) > since
    }

    /// Whether the list was revoked after revocation number `since`.
    pub(crate) fn is_list_revoked(&self, since: u64) -> bool {
        self.list.load(Ordering::SeqCst) > since
    }

    /// Whether any of the appointments `ids` was revoked after revocation number `since`.
    pub(crate) fn is_any_revoked(&self, ids: impl IntoIterator<Item = Uuid>, since: u64) -> bool {
        let revoked = self.lock();
        revoked.forgotten > since
            || ids.into_iter().any(|id| revoked.by_id.get(&id).is_some_and(|number| *number > since))
    }

    /// Whether there is an [`UnpublishedRevocation`].
    pub(crate) fn has_unpublished_revocation(&self) -> bool {
        self.unpublished.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn revoke_everything(&self) {
        self.record(|_, number| self.everything.store(number, Ordering::SeqCst));
    }

    pub(crate) fn revoke_list(&self) {
        self.record(|_, number| self.list.store(number, Ordering::SeqCst));
    }

    /// Returns the number of this revocation.
    pub(crate) fn revoke(&self, id: Uuid) -> u64 {
        self.record(|revoked, number| revoked.insert(id, number))
    }

    /// Numbers a revocation. The number is published last: a reader that has seen it finds the revocation.
    fn record(&self, write: impl FnOnce(&mut Revoked, u64)) -> u64 {
        let mut revoked = self.lock();
        let number = self.latest() + 1;
        write(&mut revoked, number);
        self.latest.store(number, Ordering::SeqCst);
        number
    }

    fn lock(&self) -> MutexGuard<'_, Revoked> {
        self.appointments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnpublishedRevocation {
    pub(crate) fn new(scope: Arc<ScopeState>) -> Self {
        scope.unpublished.fetch_add(1, Ordering::SeqCst);
        Self(scope)
    }
}

impl Drop for UnpublishedRevocation {
    fn drop(&mut self) {
        self.0.unpublished.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Revoked {
    fn insert(&mut self, id: Uuid, number: u64) {
        self.by_id.insert(id, number);
        self.in_order.push_back((number, id));
        if self.in_order.len() > REMEMBERED
            && let Some((number, id)) = self.in_order.pop_front()
        {
            self.forgotten = number;
            if self.by_id.get(&id) == Some(&number) {
                self.by_id.remove(&id);
            }
        }
    }
}

impl Drop for ScopeState {
    fn drop(&mut self) {
        let mut states = self.scopes.lock();
        // Another state may have taken the place since.
        if states.get(&self.scope).is_some_and(|state| std::ptr::eq(state.as_ptr(), self)) {
            states.remove(&self.scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{Caller, ScopeKey};

    fn scope() -> Scope {
        Caller::with_token("token", &ScopeKey::random()).scope()
    }

    #[test]
    fn a_scope_has_a_state_only_while_somebody_holds_it() {
        let (scopes, scope) = (Scopes::default(), scope());
        assert!(scopes.existing(scope).is_none());
        let state = scopes.state(scope);
        state.revoke_everything();
        assert_eq!(scopes.state(scope).latest(), 1);
        drop(state);
        assert!(scopes.existing(scope).is_none() && scopes.lock().is_empty());
        assert_eq!(scopes.state(scope).latest(), 0);
    }

    #[test]
    fn the_memory_of_revocations_is_bounded_and_errs_on_the_safe_side() {
        let state = Scopes::default().state(scope());
        for n in 0..3 * REMEMBERED as u128 {
            let (id, since) = (Uuid::from_u128(n), state.latest());
            assert!(!state.is_any_revoked([id], since));
            state.revoke(id);
            assert!(state.is_any_revoked([id], since));
            assert!(!state.is_any_revoked([id], state.latest()));
        }
        assert_eq!(state.lock().by_id.len(), REMEMBERED);
        let never = Uuid::from_u128(u128::MAX);
        assert!(state.is_any_revoked([never], 0), "too old to tell");
        assert!(!state.is_any_revoked([never], state.latest() - 1));
    }
}
