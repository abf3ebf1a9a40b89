//! Memory with a bound in bytes, in which everything brings its own times, and nobody takes more than a share from others.

use std::{
    fmt,
    hash::{BuildHasher as _, Hash},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use foldhash::quality::RandomState;
use moka::{Expiry, notification::RemovalCause, policy::EvictionPolicy, sync::Cache};

use super::{generations::Asked, shares::Shares};
use crate::{
    caller::{Caller, Scope},
    config::CacheConfig,
    metrics::metrics,
    upstream::Keep,
};

/// What things are kept under.
pub(super) trait Key: Copy + Eq + Hash + Send + Sync + 'static {
    /// Whose it is.
    fn scope(&self) -> Scope;
}

/// Something that can be kept.
pub trait Size: Send + Sync + 'static {
    /// The bytes that it takes beside itself.
    fn size(&self) -> usize;
}

/// Something that is kept.
#[derive(Debug)]
pub(super) struct Kept<V> {
    pub(super) value: V,
    pub(super) asked: Asked,
    since: Instant,
    times: Times,
    /// What tells it from everything else that was ever put into this memory.
    number: u64,
    /// Whether it is not kept any more, for those who still hold on to it.
    has_gone: AtomicBool,
}

/// For how long something may be served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    fresh: Duration,
    /// Beyond that, where the upstream fails.
    stale_if_error: Duration,
    /// Beyond that, while it is asked for anew.
    stale_while_revalidate: Duration,
}

/// How long what is stale may be served, as far as the configuration has a say in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Staleness {
    if_error: Duration,
    while_revalidate: Duration,
}

impl Staleness {
    pub(super) fn of(config: &CacheConfig) -> Self {
        Self { if_error: config.stale_if_error, while_revalidate: config.stale_while_revalidate }
    }

    /// Never.
    pub(super) const NONE: Self = Self { if_error: Duration::ZERO, while_revalidate: Duration::ZERO };
}

impl Times {
    /// For so long, and not beyond.
    pub(super) fn of(fresh: Duration) -> Self {
        Self { fresh, stale_if_error: Duration::ZERO, stale_while_revalidate: Duration::ZERO }
    }

    /// For as long as everyone allows: the configuration, the upstream, and the token of who asked. What may not be kept
    /// while it is fresh is not kept for later either.
    pub(super) fn new(ttl: Duration, staleness: Staleness, keep: Keep, caller: &Caller) -> Self {
        let left = caller.time_left().unwrap_or(Duration::MAX);
        let fresh = keep.limit(ttl).min(left);
        let left = if fresh.is_zero() { Duration::ZERO } else { left - fresh };
        Self {
            fresh,
            stale_if_error: keep.limit_stale_if_error(staleness.if_error).min(left),
            stale_while_revalidate: keep.limit_stale_while_revalidate(staleness.while_revalidate).min(left),
        }
    }

    fn total(self) -> Duration {
        self.fresh + self.stale_if_error.max(self.stale_while_revalidate)
    }
}

impl<V> Kept<V> {
    /// Of now.
    pub(super) fn new(value: V, asked: Asked, times: Times) -> Self {
        Self { value, asked, since: Instant::now(), times, number: 0, has_gone: AtomicBool::new(false) }
    }

    fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// How long it has been here, where that is past its time.
    pub(super) fn stale_age(&self) -> Option<Duration> {
        let age = self.age();
        (age >= self.times.fresh).then_some(age)
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.stale_age().is_none()
    }

    /// How much longer it is fresh, as of `now`; none where it is not.
    pub(super) fn fresh_for(&self, now: Instant) -> Option<Duration> {
        let left = self.times.fresh.saturating_sub(now.saturating_duration_since(self.since));
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether it is still kept, and fresh as of `now`: what a look-up would tell, for a tenth of the time.
    pub(super) fn is_there(&self, now: Instant) -> bool {
        !self.has_gone.load(Ordering::Acquire) && self.fresh_for(now).is_some()
    }

    pub(super) fn may_stand_in_for_an_error(&self) -> bool {
        self.age() < self.times.fresh + self.times.stale_if_error
    }

    /// While it is fresh, and beyond that while it is asked for anew.
    pub(super) fn may_be_served_meanwhile(&self) -> bool {
        self.age() < self.times.fresh + self.times.stale_while_revalidate
    }
}

/// What an entry takes beside itself and what it holds, as measured: its node in moka, its two places in queues, its
/// timer, and its place among the [shares](Shares).
const ENTRY: usize = 600;

/// A memory. Cheap to clone.
pub(super) struct Memory<K, V> {
    /// Seeded at random: it is not for whoever chooses the keys to have them fall together.
    entries: Cache<K, Arc<Kept<V>>, RandomState>,
    shares: Arc<Shares<K>>,
    turns: Arc<[Mutex<()>]>,
    hasher: RandomState,
    size: u64,
}

/// Keys share turns.
const TURNS: usize = 64;

impl<K: Key, V: Size> Memory<K, V> {
    /// An empty one of `size`, of which a share is so many percent.
    pub(super) fn new(size: ByteSize, percent: u8) -> Self {
        // A little less than all, since moka notices what has gone a little later.
        let size = size.as_u64();
        let room = size - size / 64;
        let shares = Arc::new(Shares::new(room, percent));
        let entries = Cache::builder()
            .max_capacity(size)
            .weigher(|_: &K, kept: &Arc<Kept<V>>| weight::<K, V>(kept))
            .expire_after(ByItsOwnTimes)
            // How often something was read counts for nothing: what is read often is fetched anew often, and callers
            // come and go.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener({
                let shares = shares.clone();
                move |key: Arc<K>, kept: Arc<Kept<V>>, cause| {
                    // Whoever removes something does not go on before this was done.
                    kept.has_gone.store(true, Ordering::Release);
                    shares.leave(key.scope(), kept.number);
                    match cause {
                        RemovalCause::Expired => metrics().evictions.count("time"),
                        RemovalCause::Size => metrics().evictions.count("room"),
                        RemovalCause::Explicit | RemovalCause::Replaced => {}
                    }
                }
            })
            .build_with_hasher(RandomState::default());
        let turns = (0..TURNS).map(|_| Mutex::default()).collect();
        Self { entries, shares, turns, hasher: RandomState::default(), size }
    }

    pub(super) fn get(&self, key: &K) -> Option<Arc<Kept<V>>> {
        self.entries.get(key)
    }

    /// Keeps it for as long as its times say, in place of what is there, unless that was asked for later, or `is_current`
    /// says no. What then has to give way for it goes.
    pub(super) fn put(&self, key: K, mut kept: Kept<V>, is_current: impl Fn() -> bool) {
        let bytes = weight::<K, V>(&kept);
        if kept.times.fresh.is_zero() || u64::from(bytes) > self.size {
            self.remove_if(key, |there| there.asked.at <= kept.asked.at && is_current());
            return;
        }
        let (held, leaving) = self.shares.take(key.scope(), key, bytes);
        for held in leaving {
            metrics().evictions.count("share");
            self.drop_version(held.key, held.number);
        }
        kept.number = held.number;
        let _turn = self.turn(&key);
        let is_newer = self.entries.get(&key).is_some_and(|there| there.asked.at > kept.asked.at);
        // Here, since whoever removes what is here waits for this.
        if is_newer || !is_current() {
            self.shares.leave(key.scope(), held.number);
        } else {
            self.entries.insert(key, Arc::new(kept));
        }
    }

    /// Removes what was refused.
    pub(super) fn forget_one(&self, key: K) {
        if self.remove_if(key, |_| true) {
            metrics().evictions.count("refusal");
        }
    }

    /// Removes what is outdated, unless something else has taken its place.
    pub(super) fn drop_version(&self, key: K, number: u64) {
        self.remove_if(key, |there| there.number == number);
    }

    /// Removes all that is `scope`'s, to whom it was refused.
    pub(super) fn forget(&self, scope: Scope) {
        self.forget_where(scope, |_| true);
    }

    /// Removes what is `scope`'s and has something about it that was refused.
    pub(super) fn forget_where(&self, scope: Scope, has: impl Fn(&V) -> bool) {
        for held in self.shares.of(scope) {
            if self.remove_if(held.key, |there| has(&there.value)) {
                metrics().evictions.count("refusal");
            }
        }
    }

    /// How many entries there are, and how many bytes they take.
    pub(super) fn total(&self) -> (usize, u64) {
        self.shares.total()
    }

    /// Whether it did.
    fn remove_if(&self, key: K, is_to_go: impl FnOnce(&Kept<V>) -> bool) -> bool {
        let _turn = self.turn(&key);
        let goes = self.entries.get(&key).is_some_and(|there| is_to_go(&there));
        if goes {
            self.entries.invalidate(&key);
        }
        goes
    }

    /// Whoever looks at what is under a key and then changes it has a turn to itself. (moka can do that too, for several
    /// microseconds.) Nothing that runs meanwhile asks for another turn.
    fn turn(&self, key: &K) -> MutexGuard<'_, ()> {
        let turn = self.hasher.hash_one(key) as usize % TURNS;
        self.turns[turn].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight<K: Key, V: Size>(kept: &Kept<V>) -> u32 {
    u32::try_from(size_of::<(K, Kept<V>)>() + ENTRY + kept.value.size()).unwrap_or(u32::MAX)
}

impl<K, V> Clone for Memory<K, V> {
    fn clone(&self) -> Self {
        let Self { entries, shares, turns, hasher, size } = self;
        let (entries, shares, turns) = (entries.clone(), shares.clone(), turns.clone());
        Self { entries, shares, turns, hasher: hasher.clone(), size: *size }
    }
}

impl<K, V> fmt::Debug for Memory<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

struct ByItsOwnTimes;

impl<K, V> Expiry<K, Arc<Kept<V>>> for ByItsOwnTimes {
    fn expire_after_create(&self, _: &K, kept: &Arc<Kept<V>>, _: Instant) -> Option<Duration> {
        Some(kept.times.total())
    }

    fn expire_after_update(
        &self,
        _: &K,
        kept: &Arc<Kept<V>>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.times.total())
    }
}
