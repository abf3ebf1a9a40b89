//! The state of a poller that follows another one, and the times at which it polls itself.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::poll_lease::{Claim, Fence};
use crate::fleet::message::Position;

/// The time that a lease and a wait last beyond the polling intervals: for a timer that fires late, and for Redis.
const MARGIN: Duration = Duration::from_millis(100);

/// The duration of a lease: longer than an interval with its variation, and short enough that a poller whose replica has
/// died is replaced within two.
pub(crate) fn lease_duration(interval: Duration) -> Duration {
    interval.mul_f64(1.5) + MARGIN
}

/// How long a poller waits for the findings of another one before it polls itself.
fn patience(interval: Duration) -> Duration {
    interval * 2 + MARGIN
}

/// The messages of the fleet to the poller of a watch.
#[derive(Debug, Default)]
pub(crate) struct PollNews {
    unread: Mutex<Unread>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Unread {
    /// The latest acquisition of the lease that is known.
    fence: Option<Fence>,
    finding: Option<Heard>,
    published: Option<Position>,
}

/// The effect of the latest finding of another poller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Subscribers were shown its state.
    Shown,
    /// It was not good for this replica: a change is known that it may lack, or access has to be confirmed.
    Refused,
    /// It says that a state is unchanged which this replica does not have.
    OtherState,
    /// The other poller has ended its lease. Nobody may poll before this time has passed.
    Left(Duration),
}

impl PollNews {
    /// Whether a finding of this acquisition counts: none later is known.
    pub(crate) fn admit(&self, fence: Fence) -> bool {
        let mut unread = self.lock();
        let is_late = unread.fence.is_some_and(|latest| fence.is_before(latest));
        if !is_late {
            unread.fence = Some(fence);
        }
        !is_late
    }

    /// Whether a later acquisition than this one is known.
    pub(crate) fn is_over(&self, fence: Fence) -> bool {
        self.lock().fence.is_some_and(|latest| fence.is_before(latest))
    }

    pub(crate) fn tell(&self, heard: Heard) {
        self.lock().finding = Some(heard);
        self.arrived.notify_one();
    }

    /// A change of this replica was published as the message at this position.
    pub(crate) fn tell_published(&self, position: Position) {
        self.lock().published = Some(position);
        self.arrived.notify_one();
    }

    /// Completes when there is news.
    pub(crate) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// The finding and the message since the last call.
    pub(crate) fn take(&self) -> (Option<Heard>, Option<Position>) {
        let mut unread = self.lock();
        (unread.finding.take(), unread.published.take())
    }

    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fence {
    fn is_before(self, other: Self) -> bool {
        self.epoch == other.epoch && self.token < other.token
    }
}

/// The occasion of a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The first read, for which a cached copy is good enough.
    First,
    /// The pause is over.
    Tick,
    /// The appointment was changed.
    Changed,
    /// A subscriber waits for a valid state.
    Wanted,
}

/// The times of a poller that does not hold the lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Following {
    /// When the lease of the other poller ends, as far as is known; in the past if there is none.
    lease_end: Instant,
    /// When this poller has waited long enough for findings.
    due: Instant,
}

impl Following {
    /// Nobody is followed, and a poll is due.
    pub(crate) fn nobody() -> Self {
        let now = Instant::now();
        Self { lease_end: now, due: now }
    }

    /// Whether another poller holds the lease, so that an attempt to take it would fail.
    pub(crate) fn is_known_to_follow(&self) -> bool {
        Instant::now() < self.lease_end
    }

    /// Whether this poller reads although another one polls.
    pub(crate) fn may_read(&self, occasion: Occasion) -> bool {
        matches!(occasion, Occasion::First | Occasion::Wanted) || Instant::now() >= self.due
    }

    /// Notes an attempt to take the lease. Returns whether the poller reads.
    pub(crate) fn claimed(&mut self, claim: Claim, occasion: Occasion, interval: Duration) -> bool {
        let now = Instant::now();
        self.lease_end = match claim {
            Claim::Alone | Claim::Held(_) => now,
            // A little later, since it is renewed at the last moment.
            Claim::HeldByAnother(left) => now + left + MARGIN / 10,
            Claim::Unknown => now + interval,
        };
        matches!(claim, Claim::Alone | Claim::Held(_)) || self.may_read(occasion)
    }

    /// This poller has read, or has shown the answer to a change.
    pub(crate) fn has_state(&mut self, interval: Duration) {
        self.due = Instant::now() + patience(interval);
    }

    /// The appointment was changed: the other poller reads it, and this one if that takes longer than an interval.
    pub(crate) fn changed(&mut self, interval: Duration) {
        self.due = self.due.min(Instant::now() + interval);
    }

    /// This poller has failed to read, and pauses.
    pub(crate) fn failed(&mut self, pause: Duration) {
        self.due = Instant::now() + pause;
    }

    /// Notes a finding of the other poller.
    pub(crate) fn heard(&mut self, heard: Heard, interval: Duration) {
        let now = Instant::now();
        self.lease_end = now + lease_duration(interval);
        match heard {
            Heard::Shown => self.has_state(interval),
            Heard::Refused => {}
            Heard::OtherState => self.due = now,
            Heard::Left(_) => self.lease_end = now,
        }
    }

    /// The end of the pause: for an attempt to take the lease, or for a poll without it.
    pub(crate) fn wake(&self) -> Instant {
        self.lease_end.min(self.due)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;
    use uuid::Uuid;

    use super::*;
    use crate::fleet::message::Epoch;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn fence(token: u64) -> Fence {
        Fence { epoch: Epoch(Uuid::nil()), token }
    }

    /// A poller that has just been shown a finding.
    fn follower() -> Following {
        let mut following = Following::nobody();
        following.heard(Heard::Shown, INTERVAL);
        following
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_poller_is_replaced_within_two_intervals() {
        for interval in [INTERVAL, Duration::from_millis(300), Duration::from_secs(30)] {
            let mut following = Following::nobody();
            following.heard(Heard::Shown, interval);
            let wait = following.wake() - Instant::now();
            assert!(wait <= interval * 2 && wait >= lease_duration(interval), "{wait:?} of {interval:?}");
            // Longer than a pause with its variation.
            assert!(wait > interval.mul_f64(1.1));
            advance(wait).await;
            assert!(!following.is_known_to_follow());
            assert!(following.claimed(Claim::Held(fence(1)), Occasion::Tick, interval));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_poller_waits_for_findings_and_not_longer() {
        let mut following = follower();
        assert!(following.is_known_to_follow() && !following.may_read(Occasion::Tick));
        assert!(following.may_read(Occasion::Wanted) && following.may_read(Occasion::First));
        // The other poller lives and is of no use.
        for _ in 0..3 {
            advance(INTERVAL / 2).await;
            following.heard(Heard::Refused, INTERVAL);
            assert!(!following.claimed(Claim::HeldByAnother(INTERVAL), Occasion::Tick, INTERVAL));
        }
        advance(following.wake() - Instant::now()).await;
        assert!(following.may_read(Occasion::Tick));
        following.has_state(INTERVAL);
        assert!(!following.may_read(Occasion::Tick));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_change_a_poller_waits_for_one_interval() {
        let mut following = follower();
        following.changed(INTERVAL);
        assert_eq!(following.wake() - Instant::now(), INTERVAL);
        assert!(!following.may_read(Occasion::Changed));
        advance(INTERVAL).await;
        assert!(following.may_read(Occasion::Tick));
    }

    #[tokio::test(start_paused = true)]
    async fn a_poller_acts_at_once_if_the_other_leaves_or_knows_more() {
        let mut following = follower();
        following.heard(Heard::OtherState, INTERVAL);
        assert!(following.may_read(Occasion::Tick));
        let mut following = follower();
        following.heard(Heard::Left(Duration::ZERO), INTERVAL);
        assert!(!following.is_known_to_follow() && !following.may_read(Occasion::Tick));
        // Redis does not respond.
        assert!(!following.claimed(Claim::Unknown, Occasion::Tick, INTERVAL));
        assert!(following.is_known_to_follow());
        assert!(following.claimed(Claim::Alone, Occasion::Tick, INTERVAL));
        assert!(!following.is_known_to_follow());
    }

    #[test]
    fn findings_of_an_earlier_holder_are_refused() {
        let news = PollNews::default();
        assert!(news.admit(fence(3)) && news.admit(fence(3)) && !news.admit(fence(2)));
        assert!(news.admit(fence(4)) && news.is_over(fence(3)) && !news.is_over(fence(4)));
        let restarted = Fence { epoch: Epoch(Uuid::max()), token: 1 };
        assert!(news.admit(restarted), "another Redis counts anew");
    }
}
