//! The table of records: their memory, their expiry, and the state of each change.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{KeyRefusal, RequestDigest, outcome::Outcome};
use crate::{cache::quota::Quotas, caller::Scope, metrics::metrics, upstream::error::UpstreamError};

/// The bytes that a record takes without its changes: its places in the table, which is partly empty, and in the
/// [quota](Quotas). A record with one change took 607 bytes, as measured with 100,000 of them.
const RECORD: usize = 768;

/// The bytes that a change takes in its record, with its time of expiry.
const CHANGE: usize = 192;

/// The length up to which a queue of the table is never compacted.
pub(super) const MIN_QUEUE: usize = 1024;

/// The records of all callers, and the settings that they have in common.
pub(super) struct RecordTable {
    pub(super) ttl: Duration,
    pub(super) size: u64,
    /// The random key of this process for digests. It never leaves the process, so a record reveals neither the key nor the
    /// request of the client.
    pub(super) digest_key: [u8; 32],
    pub(super) quotas: Quotas<RecordKey>,
    pub(super) table: Mutex<Table>,
    /// The reason of each recorded outcome that is unknown.
    pub(super) unknown: Arc<str>,
}

/// The owner of a record, and the key that it chose.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RecordKey {
    /// The identity: callers that share a cache share no records.
    pub(super) caller: Scope,
    /// A digest of the client's key.
    pub(super) digest: [u8; 32],
}

/// The records, in the orders of their end.
#[derive(Default)]
pub(super) struct Table {
    pub(super) records: HashMap<RecordKey, Record>,
    /// The times at which records expire, soonest first. A record has one for each outcome.
    pub(super) expiries: VecDeque<(Instant, RecordKey)>,
    /// Records that were [disposable](Record::is_disposable) at some time, oldest first.
    pub(super) disposable: VecDeque<RecordKey>,
}

impl Table {
    /// Forgets the queued times and keys of removed records, once they are the most.
    fn compact(&mut self) {
        let Self { records, expiries, disposable } = self;
        let maximum = 2 * records.len() + MIN_QUEUE;
        if expiries.len() > maximum {
            expiries.retain(|(at, key)| records.get(key).is_some_and(|record| record.expires == Some(*at)));
        }
        if disposable.len() > maximum {
            disposable.retain(|key| records.contains_key(key));
        }
    }
}

/// The record of a caller and a key.
pub(super) struct Record {
    /// The number in the quota.
    number: u64,
    request: RequestDigest,
    /// By the index of the root field.
    pub(super) changes: Vec<ChangeState>,
    /// How many operations and changes in flight use the record, which keeps it.
    pub(super) users: usize,
    /// `changes.idempotency_ttl` after the last outcome.
    expires: Option<Instant>,
}

impl Record {
    /// Whether nothing was made for it, so that a repeat may be sent: the upstream has rejected each change, or none was sent.
    fn is_disposable(&self) -> bool {
        let was_not_made = |change: &ChangeState| match change {
            ChangeState::Unsent => true,
            ChangeState::InFlight { .. } => false,
            ChangeState::Recorded(outcome) => outcome.is_rejection(),
        };
        self.users == 0 && self.changes.iter().all(was_not_made)
    }
}

/// The state of a change.
pub(super) enum ChangeState {
    Unsent,
    InFlight {
        /// Ends with an error that is not recorded, or is closed.
        error: watch::Receiver<Option<UpstreamError>>,
        is_sent: bool,
    },
    Recorded(Outcome),
}

impl RecordTable {
    /// How many records a single caller may have, with one change each: beyond its share, it leaves as much free as it uses.
    pub(super) fn max_of_one_caller(&self) -> u64 {
        (self.size / 2 / (RECORD + CHANGE) as u64).max(1)
    }

    pub(super) fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.digest_key)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing that runs under the lock leaves the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(
        &self,
        key: RecordKey,
        request: RequestDigest,
        changes: usize,
    ) -> Result<(), KeyRefusal> {
        let (mut table, now) = (self.lock(), Instant::now());
        self.remove_expired(&mut table, now);
        if let Some(record) = table.records.get_mut(&key) {
            if record.request != request {
                metrics().idempotent_changes.count("mismatch");
                return Err(KeyRefusal::OtherRequest);
            }
            record.users += 1;
            return Ok(());
        }
        let bytes = u32::try_from(RECORD + CHANGE * changes).unwrap_or(u32::MAX);
        let held = loop {
            match self.quotas.try_take(key.caller, key, bytes) {
                None if self.dispose(&mut table) => {}
                held => break held,
            }
        };
        let Some(held) = held else {
            metrics().idempotent_changes.count("refused");
            let first = table.expiries.front().map(|(expires, _)| expires.saturating_duration_since(now));
            let retry_after = first.unwrap_or_default();
            return Err(KeyRefusal::NoMemory { maximum: self.size, retry_after });
        };
        let changes = std::iter::repeat_with(|| ChangeState::Unsent).take(changes).collect();
        table.records.insert(key, Record { number: held.number, request, changes, users: 1, expires: None });
        Ok(())
    }

    /// Removes the oldest disposable record. False if there is none.
    fn dispose(&self, table: &mut Table) -> bool {
        while let Some(key) = table.disposable.pop_front() {
            if table.records.get(&key).is_some_and(Record::is_disposable)
                && let Some(record) = table.records.remove(&key)
            {
                self.quotas.leave(key.caller, record.number);
                table.compact();
                return true;
            }
        }
        false
    }

    /// Removes the records past their time that are not in use.
    pub(super) fn remove_expired(&self, table: &mut Table, now: Instant) {
        while let Some(&(expires, key)) = table.expiries.front()
            && expires <= now
        {
            table.expiries.pop_front();
            self.remove_unused(table, key, now);
        }
        while let Some(key) = table.disposable.front()
            && !table.records.contains_key(key)
        {
            table.disposable.pop_front();
        }
    }

    /// Removes the record unless it is in use, or has an outcome that is not past its time.
    pub(super) fn remove_unused(&self, table: &mut Table, key: RecordKey, now: Instant) {
        let is_unused = |record: &Record| record.users == 0 && record.expires.is_none_or(|at| at <= now);
        if table.records.get(&key).is_some_and(is_unused)
            && let Some(record) = table.records.remove(&key)
        {
            self.quotas.leave(key.caller, record.number);
        }
    }

    /// Records an outcome. Without memory for a long list of errors in the input, the change is unsent again: it was not made.
    /// The outcome is forgotten after `ttl`.
    pub(super) fn record(&self, key: RecordKey, index: usize, outcome: Outcome, ttl: Duration) {
        let (mut table, expires) = (self.lock(), Instant::now() + ttl);
        let table = &mut *table;
        let Some(record) = table.records.get_mut(&key) else { return };
        let more = u32::try_from(outcome.size()).unwrap_or(u32::MAX);
        if more > 0 && !self.quotas.try_grow(key.caller, record.number, more) {
            record.changes[index] = ChangeState::Unsent;
            return;
        }
        let is_failure = matches!(outcome, Outcome::Failed(_));
        record.changes[index] = ChangeState::Recorded(outcome);
        let expires = record.expires.map_or(expires, |earlier| earlier.max(expires));
        record.expires = Some(expires);
        if is_failure {
            // The request still uses the record, so whether it is disposable turns out later.
            table.disposable.push_back(key);
        }
        // Almost always the last one. Only an outcome of another replica expires sooner than a new one.
        let position = table.expiries.partition_point(|(at, _)| *at <= expires);
        table.expiries.insert(position, (expires, key));
    }

    /// Notes whether a change in flight may have been made, here or on another replica.
    pub(super) fn set_sent(&self, key: RecordKey, index: usize, may_be_made: bool) {
        let mut table = self.lock();
        let state = table.records.get_mut(&key).and_then(|record| record.changes.get_mut(index));
        if let Some(ChangeState::InFlight { is_sent, .. }) = state {
            *is_sent = may_be_made;
        }
    }

    /// Whether a change of the record has neither an outcome nor a sender on this replica.
    pub(super) fn has_unsent(&self, key: RecordKey) -> bool {
        let table = self.lock();
        let is_unsent = |change: &ChangeState| matches!(change, ChangeState::Unsent);
        table.records.get(&key).is_some_and(|record| record.changes.iter().any(is_unsent))
    }

    pub(super) fn set_unsent(&self, key: RecordKey, index: usize) {
        if let Some(record) = self.lock().records.get_mut(&key) {
            record.changes[index] = ChangeState::Unsent;
        }
    }
}
