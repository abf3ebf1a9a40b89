//! The appointments, and everything that can be done to them.
//!
//! Stands behind the routes, which have read and judged the request by the time they come here. One lock holds them all;
//! it is taken for a look-up or a change and never while anything is awaited.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    access::Sight,
    record::{Cancellation, Completeness, Record},
    refusal::Refusal,
    scenarios,
    validate::Change,
};

/// How many appointments clients can create, so that memory stays bounded.
const MAX_CREATED: u32 = 10_000;
/// Where the numbers of created appointments begin, far above those of the programme.
const FIRST_CREATED: u32 = 1_000_000;

/// Every appointment of one sandbox.
pub(crate) struct Store {
    state: RwLock<State>,
}

struct State {
    records: HashMap<Uuid, Record>,
    created: u32,
}

/// One page of the list, as it is served, and how many there are in all.
pub(crate) struct Page {
    pub(crate) items: Vec<Value>,
    pub(crate) total: usize,
}

impl Store {
    /// The programme, for a sandbox that starts at this moment.
    pub(crate) fn new(start: Timestamp) -> Self {
        let records = scenarios::programme(start).into_iter().map(|record| (record.id, record)).collect();
        Self { state: RwLock::new(State { records, created: 0 }) }
    }

    pub(crate) fn get(&self, id: Uuid, sight: Sight, now: Timestamp) -> Result<Value, Refusal> {
        Ok(self.read().find(id, sight)?.shown(now))
    }

    /// By time and then by id, an order that no passing of time changes. Skips `skipped` and shows at most `limit`.
    pub(crate) fn page(&self, sight: Sight, skipped: usize, limit: usize, now: Timestamp) -> Page {
        let state = self.read();
        let mut seen: Vec<_> = state.records.values().filter(|record| is_seen(record, sight)).collect();
        seen.sort_unstable_by_key(|record| (record.at, record.id));
        let items = seen.iter().skip(skipped).take(limit).map(|record| record.shown(now)).collect();
        Page { items, total: seen.len() }
    }

    /// Whoever creates an appointment sees it.
    pub(crate) fn create(
        &self,
        at: Timestamp,
        change: Change,
        sight: Sight,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let mut state = self.write();
        if state.created >= MAX_CREATED {
            return Err(Refusal::Full);
        }
        let nth = FIRST_CREATED + state.created;
        state.created += 1;
        let mut record = scenarios::created(nth, sight == Sight::Shared, at, now);
        apply(&mut record, change);
        let shown = record.shown(now);
        state.records.insert(record.id, record);
        Ok(shown)
    }

    /// What the change leaves out stays as it is.
    pub(crate) fn update(
        &self,
        id: Uuid,
        change: Change,
        sight: Sight,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let mut state = self.write();
        let record = state.find_mut(id, sight)?;
        apply(record, change);
        Ok(record.shown(now))
    }

    /// Cancels what is not cancelled yet, whatever else has become of it.
    pub(crate) fn cancel(
        &self,
        id: Uuid,
        reason: Option<String>,
        sight: Sight,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let mut state = self.write();
        let record = state.find_mut(id, sight)?;
        if record.cancelled.is_some() {
            return Err(Refusal::Cancelled);
        }
        record.cancelled = Some(Cancellation { at: now, reason });
        record.fields.remove("status");
        fill_in(record);
        Ok(record.shown(now))
    }

    /// A panic elsewhere leaves the records as they were: no change is made in two steps that could come apart.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, id: Uuid, sight: Sight) -> Result<&Record, Refusal> {
        let record = self.records.get(&id).ok_or_else(|| Refusal::NoAppointment(id.to_string()))?;
        if is_seen(record, sight) { Ok(record) } else { Err(Refusal::Forbidden) }
    }

    fn find_mut(&mut self, id: Uuid, sight: Sight) -> Result<&mut Record, Refusal> {
        let record = self.records.get_mut(&id).ok_or_else(|| Refusal::NoAppointment(id.to_string()))?;
        if is_seen(record, sight) { Ok(record) } else { Err(Refusal::Forbidden) }
    }
}

fn is_seen(record: &Record, sight: Sight) -> bool {
    sight == Sight::Everything || record.shared
}

/// A move starts the appointment's course over, since all of that follows from its time.
fn apply(record: &mut Record, change: Change) {
    record.at = change.at.unwrap_or(record.at);
    record.fields.extend(change.fields);
    if record.cancelled.is_some() {
        record.fields.remove("status");
    }
    if let Some(changed) = change.claimant {
        let mut claimant = match record.fields.remove("claimant") {
            Some(Value::Object(claimant)) => claimant,
            _ => nobody(),
        };
        claimant.extend(changed);
        record.fields.insert("claimant".to_owned(), Value::Object(claimant));
    }
    fill_in(record);
}

/// What was changed has to show, also where nothing but the id was known before.
fn fill_in(record: &mut Record) {
    if record.completeness == Completeness::Bare {
        record.completeness = Completeness::Terse;
    }
}

/// A claimant of whom nothing is known.
fn nobody() -> Map<String, Value> {
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
    fn pages_neither_overlap_nor_miss_and_time_does_not_move_them() {
        let store = Store::new(start());
        let whole = store.page(Sight::Everything, 0, 1000, start());
        assert_eq!(whole.total, 244);
        let later = after(start(), 86_400 * 5);
        let paged: Vec<_> =
            (0..25).flat_map(|page| store.page(Sight::Everything, page * 10, 10, later).items).collect();
        let ids = |items: &[Value]| -> Vec<_> { items.iter().map(|item| item["id"].clone()).collect() };
        assert_eq!(ids(&paged), ids(&whole.items));
        assert!(store.page(Sight::Shared, 0, 1000, start()).total < 120);
    }

    #[test]
    fn the_number_of_created_ones_is_bounded() {
        let store = Store::new(start());
        store.write().created = MAX_CREATED - 1;
        let create = || store.create(start(), change(json!({})), Sight::Shared, start());
        assert!(create().is_ok());
        assert!(matches!(create(), Err(Refusal::Full)));
    }

    #[test]
    fn a_bare_one_shows_what_was_changed() {
        let store = Store::new(start());
        let bare = scenarios::example_ids()[6];
        let shown = store.update(bare, change(json!({"status": "waiting"})), Sight::Shared, start());
        assert_eq!(shown.unwrap()["status"], "waiting");
    }

    #[test]
    fn a_cancelled_one_stays_cancelled() {
        let store = Store::new(start());
        let cancelled = scenarios::example_ids()[4];
        let shown = store.update(cancelled, change(json!({"status": "waiting"})), Sight::Everything, start());
        assert_eq!(shown.unwrap()["status"], "cancelled");
        let again = store.cancel(cancelled, None, Sight::Everything, start());
        assert!(matches!(again, Err(Refusal::Cancelled)));
    }

    #[test]
    fn what_is_not_seen_is_not_changed() {
        let store = Store::new(start());
        let hidden = scenarios::example_ids()[2];
        assert!(matches!(store.cancel(hidden, None, Sight::Shared, start()), Err(Refusal::Forbidden)));
        let nobody = scenarios::example_ids()[7];
        assert!(matches!(store.get(nobody, Sight::Shared, start()), Err(Refusal::NoAppointment(_))));
    }
}
