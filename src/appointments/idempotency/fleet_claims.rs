//! Claims of changes in the Redis that the replicas of a fleet share.
//!
//! A replica claims a change there before it sends it, and leaves the outcome there. A repeat at another replica waits for
//! that outcome. If the lease of the replica that sends the change ends, the change may have been made: the repeat gets an
//! unknown outcome, and nothing is sent. The replica may come back and record the outcome.
//!
//! **Failure.** If Redis does not respond, a change is sent with the record of this replica alone. Its outcome waits here
//! until Redis takes it. That also settles a claim whose response was lost.
//!
//! **Memory.** A caller has as many records in Redis as it may have in one gateway, and as many again of changes that the
//! upstream has rejected. Beyond that, new keys are refused, and the oldest rejected changes are forgotten. A caller that
//! the upstream does not accept leaves nothing: its claims are withdrawn.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::Script;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use super::{
    KeyRefusal, RequestDigest,
    outcome::Outcome,
    stored_outcome::{from_bytes, to_bytes},
};
use crate::{
    caller::Caller,
    fleet::{Fleet, Unavailable},
    metrics::metrics,
};

/// The pause before the second look at a change that is in flight on another replica. It doubles with each further look.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause between two looks, and between two attempts to settle a claim.
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// How long a change waits for Redis, while this replica is in the fleet. One call that takes longer than `shared.timeout`
/// is no outage, and without a claim the change may be made twice.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a replica whose lease has ended may take to join again before its change is given up. An interruption of Redis
/// ends all leases.
const REJOIN_TIME: Duration = Duration::from_secs(2);

/// How many outcomes wait until Redis takes them. Beyond it, the oldest are dropped: to other replicas, those changes stay in
/// flight.
const MAX_UNSETTLED: usize = 4096;

/// The calls of a change: a second one follows the renewal of the gateway's own token.
const CALLS: u32 = 2;

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(
                include_str!("../../fleet/scripts/idempotency_record.lua"),
                include_str!(concat!("../../fleet/scripts/", $file))
            ))
        })
    };
}

static CHECK: LazyLock<Script> = script!("idempotency_check.lua");
static CLAIM: LazyLock<Script> = script!("idempotency_claim.lua");
static SETTLE: LazyLock<Script> = script!("idempotency_settle.lua");

/// The claims of this replica.
pub(super) struct FleetClaims {
    fleet: Fleet,
    /// `changes.idempotency_ttl`
    ttl: Duration,
    /// `changes.idempotency_size`
    size: u64,
    /// How many records a caller may have in Redis.
    max_records: u64,
    /// The longest time from the first call of a change to its outcome.
    longest_change: Duration,
    unsettled: Mutex<Unsettled>,
}

#[derive(Default)]
struct Unsettled {
    waiting: VecDeque<Settlement>,
    /// Whether a task works on them.
    is_active: bool,
}

/// The record of a caller and a key in Redis.
pub(super) struct FleetRecord {
    claims: Arc<FleetClaims>,
    /// The keys of the scripts.
    keys: Vec<Vec<u8>>,
    /// The digest of the request under each key of the fleet, after their number.
    digests: Vec<Vec<u8>>,
}

/// The position of the record's first name in the keys of the scripts.
const FIRST_NAME: usize = 3;

/// The result of a claim.
pub(super) enum FleetClaim {
    /// This replica sends the change.
    Claimed,
    /// Redis did not respond. The claim may have reached it.
    Unavailable,
    /// The outcome, and how long it is kept. None if this replica cannot read it.
    Known(Option<Outcome>, Duration),
    /// Another replica has claimed the change, and its outcome did not come in time.
    InFlight,
    /// Another replica has claimed the change, and its lease has ended.
    Left,
    /// The key belongs to another request.
    OtherRequest,
}

/// An outcome that Redis has not recorded yet, or a claim that is not withdrawn yet.
struct Settlement {
    record: Arc<FleetRecord>,
    index: usize,
    token: Uuid,
    /// The state of the change; empty for a withdrawal.
    state: Vec<u8>,
    /// When the outcome expires.
    expires: Instant,
}

/// A pause that doubles.
struct Backoff(Duration);

impl FleetClaims {
    /// The claims of a replica of `fleet`, whose changes take `timeout` for each call.
    pub(super) fn new(fleet: Fleet, ttl: Duration, size: u64, max_records: u64, timeout: Duration) -> Self {
        let unsettled = Mutex::default();
        Self { fleet, ttl, size, max_records, longest_change: timeout * CALLS, unsettled }
    }

    /// The record of `caller` and its `key`. None without a fleet.
    pub(super) fn record(
        self: &Arc<Self>,
        caller: &Caller,
        key: &str,
        request: RequestDigest,
    ) -> Option<FleetRecord> {
        let (names, ring) = (self.fleet.names()?, self.fleet.keys()?);
        let identities = caller.identities();
        let owner = caller.identity().digest();
        let mut keys = vec![
            names.members(),
            names.digest("idempotency-records", &[&owner]),
            names.digest("idempotency-rejections", &[&owner]),
        ];
        // Another replica may use another key of the fleet, both for the identity and for the name.
        for (position, identity) in identities.iter().enumerate() {
            keys.extend(
                names.digests("idempotency", &[&identity.digest(), key.as_bytes()]).into_iter().nth(position),
            );
        }
        let under = |key: &[u8; 32]| blake3::keyed_hash(key, &request.0).as_bytes().to_vec();
        let mut digests = vec![decimal(ring.all().len())];
        digests.extend(ring.all().iter().map(|key| under(&key.requests)));
        Some(FleetRecord { claims: self.clone(), keys, digests })
    }

    /// Keeps `settlement` until Redis takes it.
    fn settle_later(self: &Arc<Self>, settlement: Settlement) {
        let mut unsettled = self.lock();
        if unsettled.waiting.len() >= MAX_UNSETTLED {
            unsettled.waiting.pop_front();
        }
        unsettled.waiting.push_back(settlement);
        if !unsettled.is_active
            && let Ok(runtime) = Handle::try_current()
        {
            unsettled.is_active = true;
            runtime.spawn(self.clone().settle_all());
        }
    }

    async fn settle_all(self: Arc<Self>) {
        let mut backoff = Backoff::new();
        while let Some(settlement) = self.next_unsettled() {
            if settlement.expires <= Instant::now() {
                continue;
            }
            if settlement.send_patiently().await.is_ok() {
                backoff = Backoff::new();
            } else {
                // At the end, so that one which Redis never takes does not stop the others.
                self.lock().waiting.push_back(settlement);
                sleep(backoff.next()).await;
            }
        }
    }

    fn next_unsettled(&self) -> Option<Settlement> {
        let mut unsettled = self.lock();
        let next = unsettled.waiting.pop_front();
        unsettled.is_active = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Unsettled> {
        // Nothing that runs under the lock leaves the queue half changed.
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FleetRecord {
    /// Checks whether the request may use the record, as far as Redis responds.
    ///
    /// # Errors
    /// The reason to refuse the request.
    pub(super) async fn check(&self) -> Result<(), KeyRefusal> {
        let FleetClaims { max_records, size, .. } = &*self.claims;
        let Ok(reply) = self.call(&CHECK, &[decimal(*max_records)]).await else { return Ok(()) };
        match reply.first().map(Vec::as_slice) {
            Some(b"other request") => {
                metrics().idempotent_changes.count("mismatch");
                Err(KeyRefusal::OtherRequest)
            }
            Some(b"full") => {
                metrics().idempotent_changes.count("refused");
                let retry_after = milliseconds(reply.get(1)).unwrap_or_default();
                Err(KeyRefusal::NoMemory { maximum: *size, retry_after })
            }
            _ => Ok(()),
        }
    }

    /// Claims the change of the root field `index` with `token`. While another replica has it in flight, waits until
    /// `deadline`, after a call of `on_wait`.
    pub(super) async fn claim(
        &self,
        index: usize,
        token: Uuid,
        deadline: Instant,
        mut on_wait: impl FnMut(),
    ) -> FleetClaim {
        let mut backoff = Backoff::new();
        let mut gone_since: Option<Instant> = None;
        let mut has_waited = false;
        let began = Instant::now();
        loop {
            let gives_up = gone_since.is_some_and(|since| since.elapsed() >= REJOIN_TIME);
            let reply = self.try_claim(index, token, deadline, gives_up).await;
            let reply =
                reply.as_ref().map(|reply| reply.split_first().map(|(word, rest)| (word.as_slice(), rest)));
            match reply {
                Ok(Some((b"claimed", _))) => return FleetClaim::Claimed,
                Ok(Some((b"known", rest))) => {
                    let outcome = rest.first().and_then(|sealed| self.open(index, sealed));
                    let remaining = milliseconds(rest.get(1)).unwrap_or_default();
                    return FleetClaim::Known(outcome, remaining);
                }
                Ok(Some((b"left", _))) => return FleetClaim::Left,
                Ok(Some((b"other request", _))) => return FleetClaim::OtherRequest,
                Ok(Some((b"in flight", _))) => gone_since = None,
                Ok(Some((b"gone", _))) => {
                    gone_since.get_or_insert_with(Instant::now);
                }
                // It is still in flight elsewhere.
                _ if has_waited => {}
                _ if began.elapsed() < PATIENCE && self.is_patient() => {}
                _ => return FleetClaim::Unavailable,
            }
            if matches!(reply, Ok(Some(_))) && !has_waited {
                on_wait();
                has_waited = true;
            }
            let next = Instant::now() + backoff.next();
            if next >= deadline {
                if !has_waited {
                    return FleetClaim::Unavailable;
                }
                sleep_until(deadline).await;
                return FleetClaim::InFlight;
            }
            sleep_until(next).await;
        }
    }

    /// Whether Redis is expected to respond soon.
    fn is_patient(&self) -> bool {
        let fleet = &self.claims.fleet;
        fleet.is_joined() || fleet.is_joining()
    }

    async fn try_claim(
        &self,
        index: usize,
        token: Uuid,
        deadline: Instant,
        gives_up: bool,
    ) -> Result<Vec<Vec<u8>>, Unavailable> {
        let FleetClaims { ttl, longest_change, .. } = &*self.claims;
        // A claim never ends before its change.
        let kept = *ttl + deadline.saturating_duration_since(Instant::now()) + *longest_change;
        let (replica, token) = self.holder(token)?;
        let arguments = [
            decimal(index),
            replica.into_bytes(),
            token.into_bytes(),
            decimal(kept.as_millis()),
            decimal(u8::from(gives_up)),
        ];
        self.call_patiently(&CLAIM, &arguments).await
    }

    /// Records the outcome of the change that was claimed with `token`, or withdraws the claim. If Redis does not respond, it
    /// follows later.
    pub(super) async fn settle(self: Arc<Self>, index: usize, token: Uuid, outcome: Option<&Outcome>) {
        let settlement = self.settlement(index, token, outcome);
        if settlement.send().await.is_err() {
            self.claims.settle_later(settlement);
        }
    }

    /// The same without waiting.
    pub(super) fn settle_soon(self: Arc<Self>, index: usize, token: Uuid, outcome: Option<&Outcome>) {
        let settlement = self.settlement(index, token, outcome);
        self.claims.settle_later(settlement);
    }

    fn settlement(self: &Arc<Self>, index: usize, token: Uuid, outcome: Option<&Outcome>) -> Settlement {
        // One that is too long belongs to a change that was not made.
        let state = outcome.and_then(|outcome| {
            let kind = if outcome.is_rejection() { b'r' } else { b'o' };
            let sealed = self.seal(index, &to_bytes(outcome)?)?;
            Some([&[kind], sealed.as_slice()].concat())
        });
        let expires = Instant::now() + self.claims.ttl;
        Settlement { record: self.clone(), index, token, state: state.unwrap_or_default(), expires }
    }

    fn seal(&self, index: usize, outcome: &[u8]) -> Option<Vec<u8>> {
        let sealer = self.claims.fleet.sealer()?;
        Some(sealer.seal(&context(&self.keys[FIRST_NAME], index), outcome))
    }

    /// Decrypts an outcome. Another replica has sealed it with the name of the record under its own first key.
    fn open(&self, index: usize, sealed: &[u8]) -> Option<Outcome> {
        let sealer = self.claims.fleet.sealer()?;
        let mut names = self.keys[FIRST_NAME..].iter();
        names.find_map(|name| sealer.open(&context(name, index), sealed)).and_then(|bytes| from_bytes(&bytes))
    }

    /// The two parts of a claim.
    fn holder(&self, token: Uuid) -> Result<(String, String), Unavailable> {
        let replica = self.claims.fleet.replica().ok_or(Unavailable)?;
        Ok((replica.0.to_string(), token.to_string()))
    }

    async fn call(&self, script: &Script, arguments: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Unavailable> {
        let arguments: Vec<_> = self.digests.iter().chain(arguments).map(Vec::as_slice).collect();
        self.claims.fleet.call(script, &self.keys, &arguments).await
    }

    /// The same, for [`PATIENCE`] and whatever the circuit breaker says.
    async fn call_patiently(
        &self,
        script: &Script,
        arguments: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, Unavailable> {
        let arguments: Vec<_> = self.digests.iter().chain(arguments).map(Vec::as_slice).collect();
        let deadline = Instant::now() + PATIENCE;
        self.claims.fleet.call_patiently(script, &self.keys, &arguments, deadline).await
    }
}

impl Settlement {
    /// Sends it within `shared.timeout`, since a response waits for it.
    async fn send(&self) -> Result<(), Unavailable> {
        let arguments = self.arguments()?;
        self.record.call(&SETTLE, &arguments).await.map(drop)
    }

    /// Sends it in the background.
    async fn send_patiently(&self) -> Result<(), Unavailable> {
        let arguments = self.arguments()?;
        self.record.call_patiently(&SETTLE, &arguments).await.map(drop)
    }

    fn arguments(&self) -> Result<[Vec<u8>; 5], Unavailable> {
        let FleetClaims { max_records, .. } = &*self.record.claims;
        let (replica, token) = self.record.holder(self.token)?;
        let remaining = self.expires.saturating_duration_since(Instant::now()).as_millis().max(1);
        Ok([
            decimal(self.index),
            [replica, token].concat().into_bytes(),
            self.state.clone(),
            decimal(remaining),
            decimal(*max_records),
        ])
    }
}

impl Backoff {
    fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    /// The next pause, up to a fifth longer or shorter, so that replicas do not look at the same moment.
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LAST_PAUSE);
        pause.mul_f64(0.8 + 0.4 * fastrand::f64())
    }
}

/// The context of a sealed outcome. Moved to another record or change, it cannot be opened.
fn context(name: &[u8], index: usize) -> Vec<u8> {
    [name, b" outcome ", index.to_string().as_bytes()].concat()
}

fn decimal(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn milliseconds(text: Option<&Vec<u8>>) -> Option<Duration> {
    std::str::from_utf8(text?).ok()?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        caller::ScopeKey,
        config::shared::{SharedConfig, SharedUrl},
        credentials::key_ring::KeyRing,
    };

    const REQUEST: RequestDigest = RequestDigest([1; 32]);

    /// The record of the caller `token` at a replica with these keys.
    fn record(lines: &[&str], token: &str, key: &str, request: RequestDigest) -> Arc<FleetRecord> {
        let lines: Vec<_> = lines.iter().map(|digit| digit.repeat(64)).collect();
        let ring = KeyRing::parse(&lines.join("\n")).unwrap();
        let url = SharedUrl {
            nodes: vec![("127.0.0.1".to_owned(), 1)],
            master: None,
            tls: false,
            user: None,
            database: 0,
        };
        let config = SharedConfig { url: Some(url), key_file: Some(ring.clone()), ..SharedConfig::default() };
        let fleet = Fleet::new(&config).unwrap();
        let claims = FleetClaims::new(fleet, Duration::from_secs(600), 1024, 1, Duration::from_secs(1));
        let caller = Caller::with_token(token, &ScopeKey::of(&ring));
        Arc::new(Arc::new(claims).record(&caller, key, request).unwrap())
    }

    fn sorted<T: Ord + Clone>(all: &[T]) -> Vec<T> {
        let mut all = all.to_vec();
        all.sort();
        all
    }

    #[test]
    fn replicas_agree_on_records_during_a_rotation() {
        let [before, after] = [["a", "b"], ["b", "a"]].map(|lines| record(&lines, "token", "key", REQUEST));
        assert_eq!(sorted(&before.keys[FIRST_NAME..]), sorted(&after.keys[FIRST_NAME..]));
        assert_eq!(sorted(&before.digests), sorted(&after.digests));
        let [old, new] = [["a"], ["b"]].map(|lines| record(&lines, "token", "key", REQUEST));
        assert_eq!(
            [&old.keys[FIRST_NAME], &new.keys[FIRST_NAME]],
            [&before.keys[FIRST_NAME], &after.keys[FIRST_NAME]]
        );
        for (from, to) in [(&before, &after), (&after, &before), (&old, &before), (&after, &new)] {
            let sealed = from.seal(0, &to_bytes(&Outcome::Applied(None)).unwrap()).unwrap();
            assert!(matches!(to.open(0, &sealed), Some(Outcome::Applied(None))));
            assert!(to.open(1, &sealed).is_none(), "it belongs to one change");
        }
    }

    #[test]
    fn records_differ_by_caller_key_and_request() {
        let one = record(&["a"], "token", "key", REQUEST);
        let other_caller = record(&["a"], "other", "key", REQUEST);
        let other_key = record(&["a"], "token", "other", REQUEST);
        let other_request = record(&["a"], "token", "key", RequestDigest([2; 32]));
        assert_ne!(one.keys[1..], other_caller.keys[1..]);
        assert_ne!(one.keys[FIRST_NAME], other_key.keys[FIRST_NAME]);
        assert_eq!(one.keys[..FIRST_NAME], other_key.keys[..FIRST_NAME], "the lists are those of the caller");
        assert_eq!(one.keys, other_request.keys);
        assert_ne!(one.digests, other_request.digests);
        let sealed = one.seal(0, b"").unwrap();
        assert!(other_key.open(0, &sealed).is_none() && other_caller.open(0, &sealed).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_that_wait_for_redis_are_bounded_and_expire() {
        let record = record(&["a"], "token", "key", REQUEST);
        for _ in 0..MAX_UNSETTLED + 10 {
            record.clone().settle_soon(0, Uuid::new_v4(), Some(&Outcome::Applied(None)));
        }
        assert_eq!(record.claims.lock().waiting.len(), MAX_UNSETTLED);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(record.claims.lock().waiting.len(), 0);
        assert!(!record.claims.lock().is_active);
    }
}
