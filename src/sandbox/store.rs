//! The appointments of a sandbox, in memory.
//!
//! The routes validate each request before they call the store. A single lock protects all appointments and is never held
//! across an await.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    access::Visibility,
    record::{AppointmentRecord, Cancellation, Completeness},
    refusal::SandboxError,
    scenarios,
    validate::Change,
};

/// The maximum number of created appointments, which bounds the memory.
const MAX_CREATED: u32 = 10_000;
/// The first index of created appointments, far above those of the scenarios.
const FIRST_CREATED: u32 = 1_000_000;

/// The appointments of a sandbox.
pub(crate) struct AppointmentStore {
    state: RwLock<StoreState>,
}

struct StoreState {
    records: HashMap<Uuid, AppointmentRecord>,
    created: u32,
}

/// A page of the list, as it is served, and the total number of visible appointments.
pub(crate) struct ListPage {
    pub(crate) items: Vec<Value>,
    pub(crate) total: usize,
}

impl AppointmentStore {
    /// Creates the appointments of a sandbox that starts at `start`.
    pub(crate) fn new(start: Timestamp) -> Self {
        let records = scenarios::all_records(start).into_iter().map(|record| (record.id, record)).collect();
        Self { state: RwLock::new(StoreState { records, created: 0 }) }
    }

    pub(crate) fn get(
        &self,
        id: Uuid,
        visibility: Visibility,
        now: Timestamp,
    ) -> Result<Value, SandboxError> {
        Ok(self.read().find(id, visibility)?.to_json(now))
    }

    /// Returns at most `limit` appointments after the first `skipped`. They are ordered by time and then id, a stable
    /// order.
    pub(crate) fn page(
        &self,
        visibility: Visibility,
        skipped: usize,
        limit: usize,
        now: Timestamp,
    ) -> ListPage {
        let state = self.read();
        let mut visible: Vec<_> =
            state.records.values().filter(|record| is_visible(record, visibility)).collect();
        visible.sort_unstable_by_key(|record| (record.at, record.id));
        let items = visible.iter().skip(skipped).take(limit).map(|record| record.to_json(now)).collect();
        ListPage { items, total: visible.len() }
    }

    /// Creates an appointment that is visible to its creator.
    pub(crate) fn create(
        &self,
        at: Timestamp,
        change: Change,
        visibility: Visibility,
        now: Timestamp,
    ) -> Result<Value, SandboxError> {
        let mut state = self.write();
        if state.created >= MAX_CREATED {
            return Err(SandboxError::Full);
        }
        let nth = FIRST_CREATED + state.created;
        state.created += 1;
        let mut record = scenarios::created(nth, visibility == Visibility::Shared, at, now);
        apply(&mut record, change);
        let served = record.to_json(now);
        state.records.insert(record.id, record);
        Ok(served)
    }

    /// Updates an appointment. Omitted fields stay unchanged.
    pub(crate) fn update(
        &self,
        id: Uuid,
        change: Change,
        visibility: Visibility,
        now: Timestamp,
    ) -> Result<Value, SandboxError> {
        let mut state = self.write();
        let record = state.find_mut(id, visibility)?;
        apply(record, change);
        Ok(record.to_json(now))
    }

    /// Cancels an appointment in any state except cancelled.
    pub(crate) fn cancel(
        &self,
        id: Uuid,
        reason: Option<String>,
        visibility: Visibility,
        now: Timestamp,
    ) -> Result<Value, SandboxError> {
        let mut state = self.write();
        let record = state.find_mut(id, visibility)?;
        if record.cancelled.is_some() {
            return Err(SandboxError::AlreadyCancelled);
        }
        record.cancelled = Some(Cancellation { at: now, reason });
        record.fields.remove("status");
        show_fields(record);
        Ok(record.to_json(now))
    }

    /// Ignores poisoning: no code panics in the middle of a change.
    fn read(&self) -> RwLockReadGuard<'_, StoreState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, StoreState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoreState {
    fn find(&self, id: Uuid, visibility: Visibility) -> Result<&AppointmentRecord, SandboxError> {
        let record =
            self.records.get(&id).ok_or_else(|| SandboxError::AppointmentNotFound(id.to_string()))?;
        if is_visible(record, visibility) { Ok(record) } else { Err(SandboxError::Forbidden) }
    }

    fn find_mut(&mut self, id: Uuid, visibility: Visibility) -> Result<&mut AppointmentRecord, SandboxError> {
        let record =
            self.records.get_mut(&id).ok_or_else(|| SandboxError::AppointmentNotFound(id.to_string()))?;
        if is_visible(record, visibility) { Ok(record) } else { Err(SandboxError::Forbidden) }
    }
}

fn is_visible(record: &AppointmentRecord, visibility: Visibility) -> bool {
    visibility == Visibility::All || record.shared
}

/// Applies a change. A new time also moves the session, which is derived from it.
fn apply(record: &mut AppointmentRecord, change: Change) {
    record.at = change.at.unwrap_or(record.at);
    record.fields.extend(change.fields);
    if record.cancelled.is_some() {
        record.fields.remove("status");
    }
    if let Some(changed) = change.claimant {
        let mut claimant = match record.fields.remove("claimant") {
            Some(Value::Object(claimant)) => claimant,
            _ => unknown_claimant(),
        };
        claimant.extend(changed);
        record.fields.insert("claimant".to_owned(), Value::Object(claimant));
    }
    show_fields(record);
}

/// Makes the fields of a record visible that was served with its id only.
fn show_fields(record: &mut AppointmentRecord) {
    if record.completeness == Completeness::IdOnly {
        record.completeness = Completeness::WithoutNulls;
    }
}

/// A claimant with empty fields.
fn unknown_claimant() -> Map<String, Value> {
    let unknown =
        ["name", "phone_number", "email", "date_of_birth"].map(|name| (name.to_owned(), Value::Null));
    unknown.into_iter().chain([("data".to_owned(), json!([]))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::record::after;

    fn start() -> Timestamp {
        "2026-03-05T12:00:00Z".parse().unwrap()
    }

    fn change(fields: Value) -> Change {
        let Value::Object(fields) = fields else { panic!("an object") };
        Change { at: None, fields, claimant: None }
    }

    #[test]
    fn pages_are_disjoint_complete_and_stable() {
        let store = AppointmentStore::new(start());
        let whole = store.page(Visibility::All, 0, 1000, start());
        assert_eq!(whole.total, 244);
        let later = after(start(), 86_400 * 5);
        let paged: Vec<_> =
            (0..25).flat_map(|page| store.page(Visibility::All, page * 10, 10, later).items).collect();
        let ids = |items: &[Value]| -> Vec<_> { items.iter().map(|item| item["id"].clone()).collect() };
        assert_eq!(ids(&paged), ids(&whole.items));
        assert!(store.page(Visibility::Shared, 0, 1000, start()).total < 120);
    }

    #[test]
    fn created_appointments_are_bounded() {
        let store = AppointmentStore::new(start());
        store.write().created = MAX_CREATED - 1;
        let create = || store.create(start(), change(json!({})), Visibility::Shared, start());
        assert!(create().is_ok());
        assert!(matches!(create(), Err(SandboxError::Full)));
    }

    #[test]
    fn changed_fields_of_an_id_only_appointment_are_served() {
        let store = AppointmentStore::new(start());
        let bare = scenarios::example_ids()[6];
        let served = store.update(bare, change(json!({"status": "waiting"})), Visibility::Shared, start());
        assert_eq!(served.unwrap()["status"], "waiting");
    }

    #[test]
    fn cancellation_is_final() {
        let store = AppointmentStore::new(start());
        let cancelled = scenarios::example_ids()[4];
        let served = store.update(cancelled, change(json!({"status": "waiting"})), Visibility::All, start());
        assert_eq!(served.unwrap()["status"], "cancelled");
        let again = store.cancel(cancelled, None, Visibility::All, start());
        assert!(matches!(again, Err(SandboxError::AlreadyCancelled)));
    }

    #[test]
    fn invisible_appointments_cannot_be_changed() {
        let store = AppointmentStore::new(start());
        let hidden = scenarios::example_ids()[2];
        assert!(matches!(
            store.cancel(hidden, None, Visibility::Shared, start()),
            Err(SandboxError::Forbidden)
        ));
        let unknown = scenarios::example_ids()[7];
        assert!(matches!(
            store.get(unknown, Visibility::Shared, start()),
            Err(SandboxError::AppointmentNotFound(_))
        ));
    }
}
