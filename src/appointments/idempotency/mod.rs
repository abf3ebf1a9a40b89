//! Idempotency keys: records of the outcomes of changes, for clients that send a request again.
//!
//! A record belongs to one caller and one key. It holds a digest of the request, and the outcome of each change: the
//! appointment's id, the errors in the input, or the error. It holds no appointment data: for a repeat, the appointment is
//! read with the credential of the repeat.
//!
//! **Changes.** Each root field of the operation is recorded by itself. The first request that comes to an unsent change sends
//! it; the others wait for its outcome. A change that the upstream has certainly not made, for a reason that may pass, becomes
//! unsent again ([`outcome`]). Any other outcome is recorded, an unknown one included.
//!
//! **Memory.** A forgotten record would let a change be made twice. So none is evicted, except for those of changes that the
//! upstream has rejected: a repeat is rejected again. Without memory for its record, a request is refused before anything is
//! sent.

mod claim;
mod fleet_claims;
mod outcome;
mod stored_outcome;
mod table;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use self::claim::{Claim, ClaimedChange, RecordInUse};
use self::{
    fleet_claims::FleetClaims,
    table::{RecordKey, RecordTable},
};
use crate::{cache::quota::Quotas, caller::Caller, config::changes::ChangesConfig, fleet::Fleet};

/// The records of all callers. Cheap to clone.
#[derive(Clone)]
pub struct IdempotencyRecords(
    /// None if they are disabled: `changes.idempotency_ttl` or `changes.idempotency_size` is 0.
    Option<Arc<RecordTable>>,
    /// The claims in the Redis of the fleet. None for a gateway that is alone.
    Option<Arc<FleetClaims>>,
);

/// A digest of the document, the operation name and the variables of a request. In a fleet it is equal on all replicas, and
/// leaves this replica only as a keyed digest of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestDigest(pub(crate) [u8; 32]);

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

impl IdempotencyRecords {
    /// No records yet, with a quota of `percent` for each caller.
    pub(crate) fn new(config: &ChangesConfig, percent: u8) -> Self {
        let (ttl, size) = (config.idempotency_ttl, config.idempotency_size.as_u64());
        if ttl.is_zero() || size == 0 {
            return Self(None, None);
        }
        let mut digest_key = [0; 32];
        digest_key[..16].copy_from_slice(Uuid::new_v4().as_bytes());
        digest_key[16..].copy_from_slice(Uuid::new_v4().as_bytes());
        let table = RecordTable {
            ttl,
            size,
            digest_key,
            quotas: Quotas::new(size, percent),
            table: Mutex::default(),
            unknown: "it was unknown when the change was sent".into(),
        };
        Self(Some(Arc::new(table)), None)
    }

    /// The same for a replica of `fleet`: changes are claimed there before they are sent. `timeout` is that of their calls.
    pub(crate) fn with_fleet(self, fleet: &Fleet, timeout: Duration) -> Self {
        let Some(records) = self.0.as_ref().filter(|_| fleet.is_configured()) else { return self };
        let claims =
            FleetClaims::new(fleet.clone(), records.ttl, records.size, records.max_of_one_caller(), timeout);
        Self(self.0, Some(Arc::new(claims)))
    }

    /// The hasher of a [`RequestDigest`]; None if records are disabled.
    pub(crate) fn hasher(&self) -> Option<blake3::Hasher> {
        let records = self.0.as_ref()?;
        Some(match &self.1 {
            None => records.hasher(),
            Some(_) => {
                blake3::Hasher::new_derive_key("appointments-gateway 2026 requests with idempotency keys")
            }
        })
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
        let shared = self.1.as_ref().and_then(|claims| claims.record(caller, key, request)).map(Arc::new);
        let request = RequestDigest(*records.hasher().update(&request.0).finalize().as_bytes());
        let digest = *records.hasher().update(key.as_bytes()).finalize().as_bytes();
        let key = RecordKey { caller: caller.identity(), digest };
        records.open(key, request, changes)?;
        Ok(Some(RecordInUse { records: records.clone(), key, shared }))
    }

    /// The number of records and their size in bytes.
    pub(crate) fn total(&self) -> (usize, u64) {
        let Some(records) = &self.0 else { return (0, 0) };
        records.remove_expired(&mut records.lock(), Instant::now());
        records.quotas.total()
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

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::{table::MIN_QUEUE, *};
    use crate::{
        appointments::changed::Changed, caller::ScopeKey, error::limit::Limit, model::change::InputFault,
        upstream::error::UpstreamError,
    };

    const REQUEST: RequestDigest = RequestDigest([1; 32]);
    const OTHER: RequestDigest = RequestDigest([2; 32]);
    const TTL: Duration = Duration::from_secs(600);

    fn records(size: ByteSize) -> IdempotencyRecords {
        IdempotencyRecords::new(&ChangesConfig { idempotency_ttl: TTL, idempotency_size: size }, 10)
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
            let records = IdempotencyRecords::new(&ChangesConfig { idempotency_ttl, idempotency_size }, 10);
            assert!(records.hasher().is_none());
            assert!(records.open(&caller, "key", REQUEST, 1).unwrap().is_none());
        }
    }
}
