//! The lease of a poller: of the replicas that watch an appointment for the same scope, its holder polls for all.
//!
//! It is a key in Redis, which is set only if it is free, expires unless it is renewed, and is deleted by its holder only.
//! Each acquisition has a fencing token, a greater one than all before it: findings of an earlier holder that was suspended
//! are refused.

use std::{pin::pin, sync::LazyLock, time::Duration};

use redis::Script;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use super::findings::Finding;
use crate::{
    caller::Scope,
    fleet::{
        Fleet, SharedCopies,
        message::{Epoch, Event, Observation, Position},
    },
    metrics::{ActiveGuard, metrics},
};

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../fleet/scripts/take_poll.lua")));
static RELEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../fleet/scripts/release_poll.lua")));

/// The number of renewals during a lease, while a read takes that long.
const RENEWALS: u32 = 6;

/// The number of an acquisition. Those of different epochs cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) epoch: Epoch,
    pub(crate) token: u64,
}

/// The result of an attempt to take or to renew the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// There is no fleet, or it is not joined.
    Alone,
    Held(Fence),
    /// Another poller holds it for so long.
    HeldByAnother(Duration),
    /// Redis has not responded in time.
    Unknown,
}

/// The lease of one poller.
pub(crate) struct PollLease {
    fleet: Fleet,
    scopes: Vec<Scope>,
    id: Uuid,
    /// The name of the poller in the lease.
    poller: String,
    /// The names of the lease, under each key of the fleet.
    names: Vec<Vec<u8>>,
    held: Option<Held>,
    /// Whether Redis may hold a lease of this poller.
    is_taken: bool,
}

#[derive(Debug)]
struct Held {
    fence: Fence,
    duration: Duration,
    renew_at: Instant,
    end: Instant,
    _counted: ActiveGuard,
}

impl PollLease {
    /// The lease for the appointment `id` and a caller with these `scopes`. It is not taken.
    pub(crate) fn new(fleet: Fleet, scopes: Vec<Scope>, id: Uuid) -> Self {
        let name = |(index, scope): (usize, &Scope)| {
            // Each scope belongs to the key of the same index.
            fleet.names()?.digests("poller", &[&scope.digest(), id.as_bytes()]).into_iter().nth(index)
        };
        let names = scopes.iter().enumerate().filter_map(name).collect();
        Self { fleet, scopes, id, poller: Uuid::new_v4().to_string(), names, held: None, is_taken: false }
    }

    /// Takes or renews the lease for `duration`.
    pub(crate) async fn take(&mut self, duration: Duration) -> Claim {
        let Some(Position { epoch, .. }) = self.fleet.position() else {
            self.held = None;
            return Claim::Alone;
        };
        let asked = Instant::now();
        self.is_taken = true;
        let milliseconds = duration.as_millis().max(1).to_string();
        let reply: Result<(u64, i64), _> = self
            .fleet
            .call(&TAKE, &self.names_with_counters(), &[self.poller.as_bytes(), milliseconds.as_bytes()])
            .await;
        // Redis may have been replaced meanwhile.
        let is_same_epoch = self.fleet.position().is_some_and(|position| position.epoch == epoch);
        match reply {
            Ok((0, left)) => {
                (self.held, self.is_taken) = (None, false);
                Claim::HeldByAnother(Duration::from_millis(left.max(0) as u64))
            }
            Ok((token, _)) if is_same_epoch => {
                let fence = Fence { epoch, token };
                let renew_at = Instant::now() + duration / RENEWALS;
                let counted = metrics().shared_pollers.enter();
                self.held =
                    Some(Held { fence, duration, renew_at, end: asked + duration, _counted: counted });
                Claim::Held(fence)
            }
            _ if !self.fleet.is_joined() => {
                self.held = None;
                Claim::Alone
            }
            _ => {
                if let Some(held) = &mut self.held {
                    held.renew_at = Instant::now() + held.duration / RENEWALS;
                }
                self.fence().map_or(Claim::Unknown, Claim::Held)
            }
        }
    }

    /// Completes `read`, and renews the lease meanwhile.
    pub(crate) async fn hold_during<T>(&mut self, read: impl Future<Output = T>) -> T {
        let mut read = pin!(read);
        loop {
            let Some(&Held { duration, renew_at, .. }) = self.held.as_ref() else { return read.await };
            tokio::select! {
                biased;
                result = &mut read => return result,
                () = sleep_until(renew_at) => {
                    self.take(duration).await;
                }
            }
        }
    }

    /// The number of the acquisition; none if the lease is not held any more.
    pub(crate) fn fence(&self) -> Option<Fence> {
        let held = self.held.as_ref().filter(|held| Instant::now() < held.end)?;
        let epoch = self.fleet.position()?.epoch;
        (held.fence.epoch == epoch).then_some(held.fence)
    }

    /// The time for which the lease was taken.
    pub(crate) fn duration(&self) -> Option<Duration> {
        self.held.as_ref().map(|held| held.duration)
    }

    /// Notes that a later acquisition is known.
    pub(crate) fn lose(&mut self) {
        (self.held, self.is_taken) = (None, false);
    }

    /// The last message that this replica has received.
    pub(crate) fn position(&self) -> Option<Position> {
        self.fleet.position()
    }

    /// Sends the finding of the holder to the replicas that follow it. `as_of` is the last message of which it takes account.
    pub(crate) fn announce(&self, finding: &Finding, as_of: Position) {
        let Some(fence) = self.fence().filter(|fence| fence.epoch == as_of.epoch) else { return };
        announce(&self.fleet, self.scopes.clone(), self.id, fence, finding, as_of);
    }

    /// Ends the lease in the background. If `left` is given, the others learn that it is free, and that none of them may poll
    /// before that time has passed.
    pub(crate) fn release(&mut self, left: Option<Duration>) {
        let fence = self.fence();
        self.held = None;
        // A poller ends with its process, too.
        let Ok(runtime) = Handle::try_current() else { return };
        if !std::mem::take(&mut self.is_taken) {
            return;
        }
        let (fleet, scopes, id) = (self.fleet.clone(), self.scopes.clone(), self.id);
        let (names, poller) = (self.names.clone(), self.poller.clone());
        runtime.spawn(async move {
            let released: Result<i64, _> = fleet.call(&RELEASE, &names, &[poller.as_bytes()]).await;
            if let (Ok(1), Some(fence), Some(retry_after), Some(as_of)) =
                (released, fence, left, fleet.position())
            {
                announce(&fleet, scopes, id, fence, &Finding::Left { retry_after }, as_of);
            }
        });
    }

    fn names_with_counters(&self) -> Vec<Vec<u8>> {
        let counters = self.fleet.names().map(|names| names.digests("poller-fence", &[])).unwrap_or_default();
        [&self.names[..], &counters[..self.names.len().min(counters.len())]].concat()
    }
}

fn announce(fleet: &Fleet, scopes: Vec<Scope>, id: Uuid, fence: Fence, finding: &Finding, as_of: Position) {
    let observation = Observation { scopes, id, fence: fence.token, as_of, finding: finding.encode() };
    fleet.announce(Event::Observed(observation), SharedCopies::default(), None);
}

impl Drop for PollLease {
    fn drop(&mut self) {
        self.release(Some(Duration::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gateway_without_a_fleet_polls_alone() {
        let mut lease = PollLease::new(Fleet::alone(), Vec::new(), Uuid::nil());
        assert_eq!(lease.take(Duration::from_secs(1)).await, Claim::Alone);
        assert_eq!((lease.fence(), lease.duration(), lease.is_taken), (None, None, false));
        assert_eq!(lease.hold_during(async { 7 }).await, 7);
    }
}
