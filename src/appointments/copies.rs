//! All copies of appointments that the process holds, and their revocation: entries of both caches, and the state of
//! watched appointments.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use super::{
    cache_ttl::CacheTtl,
    keys::{AppointmentKey, PageKey},
    served::CachedLookup,
    shared_cache::SharedCache,
    shared_copy::SharedCopy,
    watch_registry::{Recheck, WatchRegistry},
};
use crate::{
    cache::{
        freshness::ReadPurpose,
        representation::Representation,
        store::{CacheStore, Size, TAG},
        validity::{ReadVersion, Validity},
    },
    caller::{Caller, Scope},
    config::cache::CacheConfig,
    fleet::{
        Fleet,
        message::{Event, RevokedSubject},
    },
    model::SharedAppointment,
    upstream::{
        cache_control::CacheDirectives,
        response::{Page, PageItem},
    },
};

impl Size for Arc<Page> {
    fn size(&self) -> usize {
        let item = |item: &Option<PageItem>| item.as_ref().map_or(0, |item| TAG + item.appointment.size());
        self.items.iter().map(|it| size_of_val(it) + item(it)).sum()
    }

    fn tags(&self) -> impl Iterator<Item = Uuid> {
        self.items.iter().flatten().map(|item| item.appointment.id.0)
    }
}

/// The copies of appointments. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Copies {
    pub(crate) validity: Validity,
    pub(crate) appointments: CacheStore<AppointmentKey, Representation<CachedLookup>>,
    /// Evicted with the appointments that they show.
    pub(crate) pages: CacheStore<PageKey, Representation<Arc<Page>>>,
    pub(crate) watches: WatchRegistry,
    pub(crate) ttl: CacheTtl,
    /// The copies of all replicas.
    pub(crate) shared: SharedCache,
    /// Other replicas, whose copies end with those of this one.
    pub(crate) fleet: Fleet,
}

impl Copies {
    /// No copies.
    pub(crate) fn new(config: &CacheConfig, watches: WatchRegistry, fleet: Fleet) -> Self {
        let (validity, ttl) = (Validity::new(), CacheTtl::new(config));
        let shared = SharedCache::new(config, fleet.clone(), validity.clone(), ttl.clone());
        Self {
            validity,
            appointments: CacheStore::new(config.size, config.caller_share),
            pages: CacheStore::new(config.list_size, config.caller_share),
            watches,
            ttl,
            shared,
            fleet,
        }
    }

    /// Stores an appointment from a page of the list that was read at `page`. If the cached copy is equal, its
    /// validators are kept, since they belong to the same value.
    pub(crate) fn store_listed(
        &self,
        caller: &Caller,
        appointment: &SharedAppointment,
        upstream: CacheDirectives,
        page: &ReadVersion,
    ) {
        let (scope, id) = (caller.scope(), appointment.id.0);
        let key = AppointmentKey { scope, id };
        let validators = self.appointments.get(&key).and_then(|entry| {
            let copy = self.validity.read(&entry, ReadPurpose::Revalidate)?.value;
            let is_equal = copy.validators.is_some() && copy.value.as_ref() == Some(appointment);
            copy.validators.clone().filter(|_| is_equal)
        });
        // In this order: a change increments the counter of all appointments before its own, so a change that the first check
        // misses, the second one finds.
        let version = self.validity.version_of_item(page, id);
        let freshness = self.ttl.of_appointment(caller, upstream);
        let value = Some(appointment.clone());
        let copy = Representation { value, validators }.into_copy(version.clone(), freshness);
        let is_storable = || self.validity.is_storable(page) && self.validity.is_storable(&version);
        self.appointments.put(key, copy, is_storable);
    }

    /// Stores the copy of another replica, as a read of this `version`.
    pub(crate) fn store_shared(&self, key: AppointmentKey, copy: &SharedCopy, version: &ReadVersion) {
        self.appointments.put(key, copy.to_copy(version.clone()), || self.validity.is_storable(version));
    }

    /// Ends all copies of `id`, which the upstream has withdrawn from `caller`, and of the pages that show it. `recheck`
    /// says when its pollers poll again.
    pub(crate) fn revoke(&self, caller: &Caller, id: Uuid, recheck: Recheck) {
        self.announce(caller, RevokedSubject::Appointment(id), recheck);
        self.end(caller.scope(), RevokedSubject::Appointment(id), recheck);
    }

    /// Records that a read of this `version` has found no appointment `id`, and ends older copies of it. Returns the version
    /// of the absence.
    pub(crate) fn found_absent(&self, caller: &Caller, id: Uuid, version: &ReadVersion) -> ReadVersion {
        self.announce(caller, RevokedSubject::Appointment(id), Recheck::Now);
        let absent = self.validity.found_absent(version, id);
        self.evict(caller.scope(), id, Recheck::Now);
        absent
    }

    /// Ends all pages of `caller`.
    pub(crate) fn revoke_list(&self, caller: &Caller) {
        self.announce(caller, RevokedSubject::List, Recheck::Now);
        self.end(caller.scope(), RevokedSubject::List, Recheck::Now);
    }

    /// Ends all copies of `caller`, whose credential is not accepted any more.
    pub(crate) fn revoke_everything(&self, caller: &Caller) {
        self.announce(caller, RevokedSubject::Everything, Recheck::Now);
        self.end(caller.scope(), RevokedSubject::Everything, Recheck::Now);
    }

    /// Ends the copies that the upstream has withdrawn from `scope`, on this replica.
    pub(crate) fn end(&self, scope: Scope, subject: RevokedSubject, recheck: Recheck) {
        match subject {
            RevokedSubject::Appointment(id) => {
                self.validity.revoke(scope, id);
                self.evict(scope, id, recheck);
            }
            RevokedSubject::List => {
                self.validity.revoke_list(scope);
                self.pages.evict_scope(scope);
            }
            RevokedSubject::Everything => {
                self.shared.forget(scope);
                self.validity.revoke_everything(scope);
                self.watches.reject(scope);
                self.appointments.evict_scope(scope);
                self.pages.evict_scope(scope);
            }
        }
    }

    /// Ends the copies that the upstream has withdrawn from `scope` in its answer to another replica. The absence of an
    /// appointment stays: two replicas would otherwise end the absences of each other again and again.
    pub(crate) fn end_elsewhere(&self, scope: Scope, subject: RevokedSubject, recheck: Recheck) {
        let is_absent = |id| {
            let entry = self.appointments.get(&AppointmentKey { scope, id });
            let is_absent = |copy: &Representation<CachedLookup>| copy.value.is_none();
            let served =
                |entry: &_| self.validity.read(entry, ReadPurpose::Fresh).map(|it| is_absent(it.value));
            entry.is_some_and(|entry| served(&entry) == Some(true))
        };
        match subject {
            RevokedSubject::Appointment(id) if is_absent(id) => {}
            subject => self.end(scope, subject, recheck),
        }
    }

    fn evict(&self, scope: Scope, id: Uuid, recheck: Recheck) {
        let key = AppointmentKey { scope, id };
        self.appointments.evict(key);
        self.pages.evict_tagged(scope, id);
        self.watches.revoke(key, recheck);
    }

    /// Ends the copies on the other replicas, and those that all replicas share.
    fn announce(&self, caller: &Caller, subject: RevokedSubject, recheck: Recheck) {
        if let Some(ended) = self.shared.ended_by_revocation(caller, subject) {
            let recheck = recheck == Recheck::Now;
            let event = Event::Revoked { scopes: caller.scopes(), subject, recheck };
            // Until it is published, this replica itself reads no shared copy of the caller.
            let unpublished = self.validity.unpublished_revocation(caller.scope());
            self.fleet.announce(event, ended, Some(Arc::new(unpublished)));
        }
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").finish_non_exhaustive()
    }
}
