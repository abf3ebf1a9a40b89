//! The appointment cache: appointments, and their absence, by caller scope and id.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    copies::Copies,
    keys::AppointmentKey,
    read_set::ReadSet,
    served::{CachedLookup, Outcome, Served},
    watch_registry::Recheck,
};
use crate::{
    cache::{
        read_through::{Cached, Lookup, Read, ReadThrough, Resource, Source},
        representation::Representation,
        validity::{ReadVersion, Subject},
    },
    caller::Caller,
    metrics::metrics,
    upstream::{
        client::UpstreamClient,
        deadline::Deadline,
        error::{Revocation, UpstreamError},
        response::ReadResponse,
    },
};

/// The appointment cache. Cheap to clone.
pub(crate) type AppointmentCache = ReadThrough<AppointmentResource>;

/// Appointments, read one by one.
pub(crate) struct AppointmentResource {
    pub(crate) copies: Copies,
    upstream: UpstreamClient,
}

impl AppointmentCache {
    /// An empty cache in front of `upstream`.
    pub(crate) fn of_appointments(copies: Copies, upstream: UpstreamClient) -> Self {
        let (store, validity) = (copies.appointments.clone(), copies.validity.clone());
        Self::new(AppointmentResource { copies, upstream }, store, validity)
    }

    /// The appointment `id` for `caller`, by the `deadline`, for an operation with these `reads`.
    pub(crate) async fn get(&self, caller: &Caller, id: Uuid, deadline: Instant, reads: &ReadSet) -> Outcome {
        let Cached { value, stale_age, forbids_storage } =
            self.read(caller, key(caller, id), deadline).await?;
        if forbids_storage {
            reads.forbid_storage();
        }
        Ok(value.map(|appointment| Served { appointment, age: stale_age }))
    }

    /// The fresh cached value of `id` for `caller`, if there is one.
    pub(crate) fn get_fresh(&self, caller: &Caller, id: Uuid) -> Option<Option<Served>> {
        self.read_cached(&key(caller, id)).map(|lookup| lookup.map(Served::now))
    }
}

fn key(caller: &Caller, id: Uuid) -> AppointmentKey {
    AppointmentKey { scope: caller.scope(), id }
}

impl Resource for AppointmentResource {
    type Key = AppointmentKey;
    type Value = CachedLookup;

    fn subject(key: &AppointmentKey) -> Subject {
        Subject::Appointment(key.id)
    }

    async fn fetch(
        &self,
        caller: &Caller,
        key: AppointmentKey,
        version: ReadVersion,
        last: Option<Representation<CachedLookup>>,
        source: Source,
        deadline: &Deadline,
    ) -> Result<Read<CachedLookup>, UpstreamError> {
        let (id, shared) = (key.id, &self.copies.shared);
        let (ticket, copy) = match source {
            Source::Any => shared.look_up(caller, id, &version).await,
            Source::Upstream => Default::default(),
        };
        let last = match copy {
            Some(copy) if copy.is_fresh() => return Ok(copy.into_read(version)),
            Some(copy) => {
                // It may be served stale if the upstream fails, and is good for a conditional request.
                self.copies.store_shared(key, &copy, &version);
                last.or_else(|| copy.revalidation_candidate())
            }
            None => last,
        };
        let validators = last.as_ref().and_then(|last| last.validators.as_deref());
        let response = self.upstream.appointment(caller, id, validators, deadline).await?;
        let ReadResponse { value, validators, directives } = response;
        // Without a value, the last one is current. An absence has no validators.
        let value = value.unwrap_or_else(|| last.and_then(|last| last.value));
        let (version, freshness) = match value {
            Some(_) => (version, self.copies.ttl.of_appointment(caller, directives)),
            None => (
                self.copies.found_absent(caller, id, &version),
                self.copies.ttl.of_absence(caller, directives),
            ),
        };
        let validators = validators.map(Into::into);
        let read = Read { value, validators, version, freshness, shared_age: None };
        self.copies.shared.share(caller, id, ticket, &read);
        Ok(read)
    }

    fn revoke(&self, caller: &Caller, key: AppointmentKey, error: &UpstreamError) {
        match error.revocation() {
            Revocation::Everything => self.copies.revoke_everything(caller),
            Revocation::Resource if error.is_final() => self.copies.revoke(caller, key.id, Recheck::Now),
            Revocation::Resource => self.copies.revoke(caller, key.id, Recheck::Later),
            Revocation::Nothing => {}
        }
    }

    fn log(key: &AppointmentKey, result: &Result<Read<CachedLookup>, UpstreamError>, duration: Duration) {
        let duration_ms = duration.as_millis() as u64;
        match result {
            Ok(read) => {
                tracing::debug!(appointment.id = %key.id, found = read.value.is_some(), duration_ms, "fetched");
            }
            Err(error) => tracing::debug!(appointment.id = %key.id, %error, duration_ms, "fetch failed"),
        }
    }

    fn count(lookup: Lookup) {
        metrics().appointments.count(lookup.label());
    }
}
