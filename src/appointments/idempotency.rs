//! Idempotency keys: records of the outcomes of changes, for clients that send a request again.
//!
//! A record belongs to one caller and one key. It holds a digest of the request, and the outcome of each change: the
//! appointment's id, the errors in the input, or the error. It holds no appointment data: for a repeat, the appointment is
//! read with the credential of the repeat.
//!
//! **Changes.** Each root field of the operation is recorded by itself. The first request that comes to an unsent change sends
//! it; the others wait for its outcome. A change that the upstream has certainly not made, for a reason that may pass, becomes
//! unsent again ([`recorded`]). Any other outcome is recorded, an unknown one included.
//!
//! **Memory.** A forgotten record would let a change be made twice. So none is evicted, except for those of changes that the
//! upstream has rejected: a repeat is rejected again. Without memory for its record, a request is refused before anything is
//! sent.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::changed::Changed;
use crate::{
    cache::quota::Quotas,
    caller::{Caller, Scope},
    config::changes::ChangesConfig,
    metrics::metrics,
    model::change::InputFault,
    upstream::error::UpstreamError,
};

/// The bytes that a record takes without its changes: its places in the table, which is partly empty, and in the
/// [quota](Quotas). A record with one change took 607 bytes, as measured with 100,000 of them.
const RECORD: usize = 768;

/// The bytes that a change takes in its record, with its time of expiry.
const CHANGE: usize = 192;

/// The length up to which a queue of the table is never compacted.
const MIN_QUEUE: usize = 1024;

/// The records of all callers. Cheap to clone.
#[derive(Clone)]
pub struct IdempotencyRecords(
    /// None if they are disabled: `changes.idempotency_ttl` or `changes.idempotency_size` is 0.
    Option<Arc<Inner>>,
);

struct Inner {
    ttl: Duration,
    size: u64,
    /// The key for digests, of the fleet or of this process. It never leaves the gateway, so a record reveals neither the key
    /// nor the request of the client.
    digest_key: [u8; 32],
    quotas: Quotas<RecordKey>,
    table: Mutex<Table>,
    /// The reason of each recorded outcome that is unknown.
    unknown: Arc<str>,
}

/// A digest of the document, the operation name and the variables of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestDigest(pub(crate) [u8; 32]);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct RecordKey {
    /// The identity: callers that share a cache share no records.
    caller: Scope,
    /// A digest of the client's key.
    digest: [u8; 32],
}

#[derive(Default)]
struct Table {
    records: HashMap<RecordKey, Record>,
    /// The times at which records expire, soonest first. A record has one for each outcome.
    expiries: VecDeque<(Instant, RecordKey)>,
    /// Records that were [disposable](Record::is_disposable) at some time, oldest first.
    disposable: VecDeque<RecordKey>,
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

struct Record {
    /// The number in the quota.
    number: u64,
    request: RequestDigest,
    /// By the index of the root field.
    changes: Vec<ChangeState>,
    /// How many operations and changes in flight use the record, which keeps it.
    users: usize,
    /// `changes.idempotency_ttl` after the last outcome.
    expires: Option<Instant>,
}

impl Record {
    /// Whether nothing was made for it, so that a repeat may be sent: the upstream has rejected each change, or none was sent.
    fn is_disposable(&self) -> bool {
        let was_not_made = |change: &ChangeState| match change {
            ChangeState::Unsent => true,
            ChangeState::InFlight { .. } => false,
            ChangeState::Recorded(Outcome::Failed(error)) => matches!(
                error,
                UpstreamError::Forbidden
                    | UpstreamError::NotFound
                    | UpstreamError::Conflict
                    | UpstreamError::UnexpectedStatus { status: 400..=499 }
            ),
            ChangeState::Recorded(_) => false,
        };
        self.users == 0 && self.changes.iter().all(was_not_made)
    }
}

/// The state of a change.
enum ChangeState {
    Unsent,
    InFlight {
        /// Ends with an error that is not recorded, or is closed.
        error: watch::Receiver<Option<UpstreamError>>,
        is_sent: bool,
    },
    Recorded(Outcome),
}

/// A recorded outcome.
#[derive(Clone)]
enum Outcome {
    /// The change was made; with the id of the appointment, if the upstream returned it.
    Applied(Option<Uuid>),
    Rejected(Arc<[InputFault]>),
    Failed(UpstreamError),
}

/// The reason to refuse a request with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyRefusal {
    /// The key belongs to another request.
    OtherRequest,
    /// There is no memory for a record.
    NoMemory {
        /// `changes.idempotency_size`
        maximum: u64,
        /// When memory is released.
        retry_after: Duration,
    },
}

/// A record in use by an operation or by a change in flight.
pub(crate) struct RecordInUse {
    records: Arc<Inner>,
    key: RecordKey,
}

/// The next step of an operation that comes to a change.
pub(crate) enum Claim {
    /// Send the change.
    Send(ClaimedChange),
    /// The outcome is known.
    Known(Result<Changed, UpstreamError>),
}

/// A change that its holder sends. Dropped before it was [sent](Self::mark_sent), it is unsent again, and another operation
/// sends it. Dropped later without an outcome, its outcome is unknown.
pub(crate) struct ClaimedChange {
    record: RecordInUse,
    index: usize,
    is_sent: bool,
    is_settled: bool,
    /// Tells the operations that wait.
    error: watch::Sender<Option<UpstreamError>>,
}

impl IdempotencyRecords {
    /// No records yet, with a quota of `percent` for each caller. `digest_key` is the key for digests.
    pub(crate) fn new(config: &ChangesConfig, percent: u8, digest_key: [u8; 32]) -> Self {
        let (ttl, size) = (config.idempotency_ttl, config.idempotency_size.as_u64());
        if ttl.is_zero() || size == 0 {
            return Self(None);
        }
        Self(Some(Arc::new(Inner {
            ttl,
            size,
            digest_key,
            quotas: Quotas::new(size, percent),
            table: Mutex::default(),
            unknown: "it was unknown when the change was sent".into(),
        })))
    }

    /// The hasher of a [`RequestDigest`]; None if records are disabled.
    pub(crate) fn hasher(&self) -> Option<blake3::Hasher> {
        self.0.as_ref().map(|inner| inner.hasher())
    }

    /// Opens the record of `caller` under `key`, or begins it for a `request` with so many `changes`. None if records are
    /// disabled.
    ///
    /// # Errors
    /// The reason to refuse the request. Nothing was sent for it.
    pub(crate) fn open(
        &self,
        caller: &Caller,
        key: &str,
        request: RequestDigest,
        changes: usize,
    ) -> Result<Option<RecordInUse>, KeyRefusal> {
        let Some(records) = &self.0 else { return Ok(None) };
        let digest = *records.hasher().update(key.as_bytes()).finalize().as_bytes();
        let key = RecordKey { caller: caller.identity(), digest };
        records.open(key, request, changes).map(|()| Some(RecordInUse { records: records.clone(), key }))
    }

    /// The number of records and their size in bytes.
    pub(crate) fn total(&self) -> (usize, u64) {
        let Some(records) = &self.0 else { return (0, 0) };
        records.remove_expired(&mut records.lock(), Instant::now());
        records.quotas.total()
    }
}

impl Inner {
    fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.digest_key)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing that runs under the lock leaves the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, key: RecordKey, request: RequestDigest, changes: usize) -> Result<(), KeyRefusal> {
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
    fn remove_expired(&self, table: &mut Table, now: Instant) {
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
    fn remove_unused(&self, table: &mut Table, key: RecordKey, now: Instant) {
        let is_unused = |record: &Record| record.users == 0 && record.expires.is_none_or(|at| at <= now);
        if table.records.get(&key).is_some_and(is_unused)
            && let Some(record) = table.records.remove(&key)
        {
            self.quotas.leave(key.caller, record.number);
        }
    }

    /// Records an outcome. Without memory for a long list of errors in the input, the change is unsent again: it was not made.
    fn record(&self, key: RecordKey, index: usize, outcome: Outcome) {
        let (mut table, expires) = (self.lock(), Instant::now() + self.ttl);
        let table = &mut *table;
        let Some(record) = table.records.get_mut(&key) else { return };
        let more = u32::try_from(outcome.size()).unwrap_or(u32::MAX);
        if more > 0 && !self.quotas.try_grow(key.caller, record.number, more) {
            record.changes[index] = ChangeState::Unsent;
            return;
        }
        let is_failure = matches!(outcome, Outcome::Failed(_));
        record.changes[index] = ChangeState::Recorded(outcome);
        record.expires = Some(expires);
        if is_failure {
            // The request still uses the record, so whether it is disposable turns out later.
            table.disposable.push_back(key);
        }
        table.expiries.push_back((expires, key));
    }

    fn set_unsent(&self, key: RecordKey, index: usize) {
        if let Some(record) = self.lock().records.get_mut(&key) {
            record.changes[index] = ChangeState::Unsent;
        }
    }
}

impl RecordInUse {
    /// Claims the change of the root field `index`, or waits for its outcome until `deadline`.
    pub(crate) async fn claim(&self, index: usize, deadline: Instant) -> Claim {
        let mut has_waited = false;
        loop {
            let mut in_flight = match self.try_claim(index, has_waited) {
                Ok(claim) => return claim,
                Err(in_flight) => in_flight,
            };
            has_waited = true;
            // Closed without an error when the outcome is recorded, or the change is unsent again.
            let error = match timeout_at(deadline, in_flight.wait_for(Option::is_some)).await {
                Ok(Ok(error)) => error.clone(),
                Ok(Err(_)) => None,
                Err(_) if self.is_sent(index) => {
                    Some(UpstreamError::OutcomeUnknown("the deadline of the operation passed".into()))
                }
                Err(_) => Some(UpstreamError::DeadlinePassed),
            };
            if let Some(error) = error {
                metrics().idempotent_changes.count("joined");
                return Claim::Known(Err(error));
            }
        }
    }

    /// Whether the change of the root field `index` may have been made.
    fn is_sent(&self, index: usize) -> bool {
        let table = self.records.lock();
        let state = table.records.get(&self.key).and_then(|record| record.changes.get(index));
        !matches!(state, Some(ChangeState::Unsent | ChangeState::InFlight { is_sent: false, .. }))
    }

    /// # Errors
    /// The change is in flight.
    fn try_claim(
        &self,
        index: usize,
        has_waited: bool,
    ) -> Result<Claim, watch::Receiver<Option<UpstreamError>>> {
        let mut table = self.records.lock();
        // The record exists while it is in use, and equal requests have equally many root fields.
        let state = table.records.get_mut(&self.key).and_then(|record| record.changes.get_mut(index));
        let Some(state) = state else { return Ok(Claim::Known(Err(UpstreamError::Lost))) };
        match state {
            ChangeState::Recorded(outcome) => {
                metrics().idempotent_changes.count(if has_waited { "joined" } else { "replayed" });
                Ok(Claim::Known(outcome.clone().replay()))
            }
            ChangeState::InFlight { error, .. } => Err(error.clone()),
            ChangeState::Unsent => {
                let (error, in_flight) = watch::channel(None);
                *state = ChangeState::InFlight { error: in_flight, is_sent: false };
                // Its clone takes the lock.
                drop(table);
                let record = self.clone();
                Ok(Claim::Send(ClaimedChange { record, index, is_sent: false, is_settled: false, error }))
            }
        }
    }
}

impl Clone for RecordInUse {
    fn clone(&self) -> Self {
        if let Some(record) = self.records.lock().records.get_mut(&self.key) {
            record.users += 1;
        }
        Self { records: self.records.clone(), key: self.key }
    }
}

impl Drop for RecordInUse {
    fn drop(&mut self) {
        let mut table = self.records.lock();
        if let Some(record) = table.records.get_mut(&self.key) {
            record.users -= 1;
        }
        self.records.remove_unused(&mut table, self.key, Instant::now());
    }
}

impl ClaimedChange {
    /// Marks the change as sent: from here on, it may have been made.
    pub(crate) fn mark_sent(&mut self) {
        self.is_sent = true;
        let RecordInUse { records, key } = &self.record;
        let mut table = records.lock();
        let state = table.records.get_mut(key).and_then(|record| record.changes.get_mut(self.index));
        if let Some(ChangeState::InFlight { is_sent, .. }) = state {
            *is_sent = true;
        }
        metrics().idempotent_changes.count("sent");
    }

    /// Records the outcome. An outcome that is not recorded goes to the operations that wait for it.
    pub(crate) fn settle(mut self, outcome: &Result<Changed, UpstreamError>) {
        self.is_settled = true;
        let Self { record: RecordInUse { records, key }, index, error, .. } = &self;
        match recorded(outcome, &records.unknown) {
            Ok(outcome) => records.record(*key, *index, outcome),
            Err(failure) => {
                records.set_unsent(*key, *index);
                // Another operation may have more time.
                if !matches!(failure, UpstreamError::DeadlinePassed) {
                    error.send_replace(Some(failure));
                }
            }
        }
    }
}

impl Drop for ClaimedChange {
    fn drop(&mut self) {
        let Self { record: RecordInUse { records, key }, index, is_sent, is_settled, .. } = self;
        match (*is_settled, *is_sent) {
            (true, _) => {}
            (false, false) => records.set_unsent(*key, *index),
            (false, true) => {
                let unknown = UpstreamError::OutcomeUnknown(records.unknown.clone());
                records.record(*key, *index, Outcome::Failed(unknown));
            }
        }
    }
}

/// The outcome of a change as it is recorded.
///
/// # Errors
/// The error of a change that was certainly not made, for a reason that may pass. A repeat sends it.
fn recorded(outcome: &Result<Changed, UpstreamError>, unknown: &Arc<str>) -> Result<Outcome, UpstreamError> {
    let error = match outcome {
        Ok(Changed::To(appointment)) => {
            return Ok(Outcome::Applied(appointment.as_ref().map(|appointment| appointment.id.0)));
        }
        Ok(Changed::Earlier(id)) => return Ok(Outcome::Applied(*id)),
        Ok(Changed::Rejected(faults)) => return Ok(Outcome::Rejected(faults.as_slice().into())),
        Err(error) => error.clone(),
    };
    match error {
        UpstreamError::OutcomeUnknown(_) => {
            Ok(Outcome::Failed(UpstreamError::OutcomeUnknown(unknown.clone())))
        }
        // Definite, or the change may have been made.
        UpstreamError::Forbidden
        | UpstreamError::NotFound
        | UpstreamError::Conflict
        | UpstreamError::ChangeFailed { .. }
        | UpstreamError::Failed { .. }
        | UpstreamError::UnexpectedStatus { .. }
        | UpstreamError::Broken(_)
        | UpstreamError::AttemptTimeout
        | UpstreamError::Exhausted { is_sent: true }
        | UpstreamError::TooLarge
        | UpstreamError::Invalid(_)
        | UpstreamError::Lost => Ok(Outcome::Failed(error)),
        UpstreamError::Unauthenticated
        | UpstreamError::NoServiceToken(_)
        | UpstreamError::ServiceTokenRefused
        | UpstreamError::RateLimited { .. }
        | UpstreamError::Unreachable(_)
        | UpstreamError::Unprocessed(_)
        | UpstreamError::BreakerOpen { .. }
        | UpstreamError::DeadlinePassed
        | UpstreamError::Overloaded { .. }
        | UpstreamError::Exhausted { is_sent: false } => Err(error),
    }
}

impl Outcome {
    fn replay(self) -> Result<Changed, UpstreamError> {
        match self {
            Self::Applied(id) => Ok(Changed::Earlier(id)),
            Self::Rejected(faults) => Ok(Changed::Rejected(faults.to_vec())),
            Self::Failed(error) => Err(error),
        }
    }

    /// Heap bytes in use.
    fn size(&self) -> usize {
        let names = |fault: &InputFault| {
            let names = fault.field.iter().flatten();
            names.map(|name| size_of::<String>() + name.len() + 16).sum::<usize>()
        };
        match self {
            Self::Rejected(faults) => faults.iter().map(|fault| size_of_val(fault) + names(fault)).sum(),
            Self::Applied(_) | Self::Failed(_) => 0,
        }
    }
}

impl fmt::Debug for IdempotencyRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyRecords").finish_non_exhaustive()
    }
}

impl fmt::Debug for RequestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestDigest(…)")
    }
}

impl fmt::Debug for RecordInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordInUse").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;
    use crate::{caller::ScopeKey, error::limit::Limit};

    const REQUEST: RequestDigest = RequestDigest([1; 32]);
    const OTHER: RequestDigest = RequestDigest([2; 32]);
    const TTL: Duration = Duration::from_secs(600);

    fn records(size: ByteSize) -> IdempotencyRecords {
        IdempotencyRecords::new(&ChangesConfig { idempotency_ttl: TTL, idempotency_size: size }, 10, [0; 32])
    }

    fn callers<const N: usize>() -> [Caller; N] {
        let key = ScopeKey::random();
        std::array::from_fn(|n| Caller::with_token(&n.to_string(), &key))
    }

    fn open(records: &IdempotencyRecords, caller: &Caller, key: &str) -> Result<RecordInUse, KeyRefusal> {
        records.open(caller, key, REQUEST, 1).map(|record| record.expect("records are enabled"))
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    async fn send(record: &RecordInUse) -> ClaimedChange {
        match record.claim(0, far()).await {
            Claim::Send(mut change) => {
                change.mark_sent();
                change
            }
            Claim::Known(outcome) => panic!("it is known: {outcome:?}"),
        }
    }

    async fn outcome(record: &RecordInUse) -> Option<Result<Changed, UpstreamError>> {
        match record.claim(0, far()).await {
            Claim::Send(_) => None,
            Claim::Known(outcome) => Some(outcome),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_definite_and_unknown_outcomes_are_recorded() {
        let [caller] = callers();
        let text = || Arc::<str>::from("text");
        for (error, is_recorded) in [
            (UpstreamError::Unauthenticated, false),
            (UpstreamError::NoServiceToken(text()), false),
            (UpstreamError::ServiceTokenRefused, false),
            (UpstreamError::RateLimited { retry_after: None }, false),
            (UpstreamError::Unreachable(text()), false),
            (UpstreamError::Unprocessed(text()), false),
            (UpstreamError::BreakerOpen { retry_after: TTL }, false),
            (UpstreamError::DeadlinePassed, false),
            (UpstreamError::Overloaded { limit: Limit::UpstreamQueue }, false),
            (UpstreamError::Exhausted { is_sent: false }, false),
            (UpstreamError::Forbidden, true),
            (UpstreamError::NotFound, true),
            (UpstreamError::Conflict, true),
            (UpstreamError::OutcomeUnknown(text()), true),
            (UpstreamError::ChangeFailed { status: 503 }, true),
            (UpstreamError::UnexpectedStatus { status: 408 }, true),
            (UpstreamError::Lost, true),
        ] {
            let records = records(ByteSize::kib(64));
            let record = open(&records, &caller, "key").unwrap();
            send(&record).await.settle(&Err(error.clone()));
            let again = outcome(&record).await;
            assert_eq!(again.is_some(), is_recorded, "{error:?}");
            drop(record);
            assert_eq!(records.total().0, usize::from(is_recorded), "{error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_expires_after_its_last_outcome_unless_in_use() {
        let [caller] = callers();
        let records = records(ByteSize::kib(64));
        let record = open(&records, &caller, "key").unwrap();
        let change = send(&record).await;
        drop(record);
        tokio::time::advance(TTL * 2).await;
        assert_eq!(records.total().0, 1, "a change in flight keeps its record");
        change.settle(&Ok(Changed::To(None)));
        tokio::time::advance(TTL - Duration::from_secs(1)).await;
        let record = open(&records, &caller, "key").unwrap();
        assert!(matches!(outcome(&record).await, Some(Ok(Changed::Earlier(None)))));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(records.total().0, 1, "an operation keeps its record");
        drop(record);
        assert_eq!(records.total(), (0, 0), "a repeat does not prolong it");
        assert!(outcome(&open(&records, &caller, "key").unwrap()).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_change_is_unsent_before_and_unknown_after_it_was_sent() {
        let [caller] = callers();
        let records = records(ByteSize::kib(64));
        let record = open(&records, &caller, "key").unwrap();
        assert!(matches!(record.claim(0, far()).await, Claim::Send(_)));
        drop(send(&record).await);
        assert!(matches!(outcome(&record).await, Some(Err(UpstreamError::OutcomeUnknown(_)))));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_share_an_error_or_send_the_change() {
        let [caller] = callers();
        let records = records(ByteSize::kib(64));
        let record = open(&records, &caller, "key").unwrap();
        for (error, is_shared) in [
            (UpstreamError::RateLimited { retry_after: None }, true),
            // The deadline is that of the first operation alone.
            (UpstreamError::DeadlinePassed, false),
        ] {
            let first = send(&record).await;
            let waiting = tokio::spawn({
                let record = record.clone();
                async move { outcome(&record).await }
            });
            tokio::task::yield_now().await;
            first.settle(&Err(error));
            assert_eq!(waiting.await.unwrap().is_some(), is_shared);
        }
        let Claim::Send(mut first) = record.claim(0, far()).await else { panic!("it is unsent") };
        let Claim::Known(early) = record.claim(0, Instant::now()).await else { panic!("it is claimed") };
        assert!(matches!(early, Err(UpstreamError::DeadlinePassed)), "it was not sent so far");
        first.mark_sent();
        let Claim::Known(late) = record.claim(0, Instant::now()).await else { panic!("it is in flight") };
        assert!(matches!(late, Err(UpstreamError::OutcomeUnknown(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn records_differ_by_caller_and_key_and_belong_to_one_request() {
        let [one, other] = callers();
        let records = records(ByteSize::kib(64));
        let record = open(&records, &one, "key").unwrap();
        send(&record).await.settle(&Ok(Changed::To(None)));
        assert!(outcome(&open(&records, &other, "key").unwrap()).await.is_none());
        assert!(outcome(&open(&records, &one, "Key").unwrap()).await.is_none());
        assert_eq!(records.open(&one, "key", OTHER, 1).unwrap_err(), KeyRefusal::OtherRequest);
        assert!(records.open(&other, "key", OTHER, 1).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_memory_refuses_new_records_and_forgets_none() {
        let [noisy, quiet] = callers();
        let records = records(ByteSize::kib(64));
        let mut count = 0;
        let refusal = loop {
            match open(&records, &noisy, &count.to_string()) {
                Ok(record) => send(&record).await.settle(&Ok(Changed::To(None))),
                Err(refusal) => break refusal,
            }
            count += 1;
            tokio::time::advance(Duration::from_secs(1)).await;
        };
        assert!(count > 20, "{count}");
        let retry_after = TTL - Duration::from_secs(count);
        assert_eq!(refusal, KeyRefusal::NoMemory { maximum: 64 * 1024, retry_after });
        let record = open(&records, &quiet, "0").expect("another caller has its share");
        send(&record).await.settle(&Ok(Changed::To(None)));
        drop(record);
        for number in 0..count {
            assert!(outcome(&open(&records, &noisy, &number.to_string()).unwrap()).await.is_some());
        }
        // Since the other caller has come, the noisy one has to release two records for a new one.
        tokio::time::advance(retry_after).await;
        assert!(open(&records, &noisy, "new").is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(open(&records, &noisy, "new").is_ok());
        tokio::time::advance(TTL).await;
        assert_eq!(records.total(), (0, 0));
        assert!(records.0.as_ref().unwrap().lock().expiries.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn records_of_rejected_changes_make_room() {
        let [noisy, quiet] = callers();
        let records = records(ByteSize::kib(64));
        let made = open(&records, &quiet, "made").unwrap();
        send(&made).await.settle(&Ok(Changed::To(None)));
        drop(made);
        for number in 0..10_000 {
            let record = open(&records, &noisy, &number.to_string()).expect("rejected changes make room");
            send(&record).await.settle(&Err(UpstreamError::Forbidden));
        }
        assert!(outcome(&open(&records, &noisy, "9999").unwrap()).await.is_some(), "the latest is there");
        assert!(outcome(&open(&records, &noisy, "0").unwrap()).await.is_none(), "the oldest is not");
        assert!(outcome(&open(&records, &quiet, "made").unwrap()).await.is_some());
        let table = records.0.as_ref().unwrap().lock();
        assert!(table.expiries.len() + table.disposable.len() < 3 * MIN_QUEUE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_too_long_for_the_memory_is_not_recorded() {
        let [caller] = callers();
        let fault =
            InputFault { field: Some(vec!["claimant".to_owned(), "email".to_owned()]), message: "…" };
        for (faults, is_recorded) in [(3, true), (10_000, false)] {
            let records = records(ByteSize::kib(64));
            let record = open(&records, &caller, "key").unwrap();
            send(&record).await.settle(&Ok(Changed::Rejected(vec![fault.clone(); faults])));
            let again = outcome(&record).await;
            assert_eq!(again.is_some(), is_recorded);
            if let Some(again) = again {
                assert!(
                    matches!(again, Ok(Changed::Rejected(again)) if again == vec![fault.clone(); faults])
                );
            }
            drop(record);
            assert_eq!(records.total().0, usize::from(is_recorded));
        }
    }

    #[test]
    fn without_time_or_memory_there_are_no_records() {
        let [caller] = callers();
        for (idempotency_ttl, idempotency_size) in [(Duration::ZERO, ByteSize::kib(64)), (TTL, ByteSize(0))] {
            let records =
                IdempotencyRecords::new(&ChangesConfig { idempotency_ttl, idempotency_size }, 10, [0; 32]);
            assert!(records.hasher().is_none());
            assert!(records.open(&caller, "key", REQUEST, 1).unwrap().is_none());
        }
    }
}
