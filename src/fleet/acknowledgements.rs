//! Which messages the other replicas have received.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::message::{Acknowledgement, Epoch, Position, ReplicaId};

/// The last message that each replica has acknowledged. An acknowledgement covers all messages before it.
#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    received: Mutex<Received>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Received {
    epoch: Option<Epoch>,
    by_replica: HashMap<ReplicaId, u64>,
}

impl Acknowledgements {
    /// Begins an epoch. Acknowledgements of other epochs count no longer.
    pub(super) fn begin(&self, epoch: Epoch) {
        *self.lock() = Received { epoch: Some(epoch), by_replica: HashMap::new() };
    }

    pub(super) fn receive(&self, Acknowledgement { replica, position }: Acknowledgement) {
        let mut received = self.lock();
        if received.epoch == Some(position.epoch) {
            let last = received.by_replica.entry(replica).or_default();
            *last = position.sequence.max(*last);
            drop(received);
            self.news.notify_waiters();
        }
    }

    /// Completes once all `replicas` have acknowledged the message at `position`.
    pub(super) async fn wait(&self, position: Position, mut replicas: Vec<ReplicaId>) {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            // Before the look, so that an acknowledgement between the two is not missed.
            news.as_mut().enable();
            {
                let received = self.lock();
                if received.epoch == Some(position.epoch) {
                    replicas.retain(|replica| {
                        received.by_replica.get(replica).is_none_or(|last| *last < position.sequence)
                    });
                }
            }
            if replicas.is_empty() {
                return;
            }
            news.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn an_acknowledgement_covers_all_messages_before_it() {
        let (one, other) = (ReplicaId(Uuid::new_v4()), ReplicaId(Uuid::new_v4()));
        let epoch = Epoch(Uuid::new_v4());
        let acknowledgements = Acknowledgements::default();
        acknowledgements.begin(epoch);
        let receive = |replica, epoch, sequence| {
            acknowledgements.receive(Acknowledgement { replica, position: Position { epoch, sequence } });
        };
        let mut wait = Box::pin(acknowledgements.wait(Position { epoch, sequence: 5 }, vec![one, other]));
        assert!(wait.as_mut().now_or_never().is_none());
        receive(one, epoch, 7);
        receive(other, epoch, 4);
        receive(other, Epoch(Uuid::new_v4()), 9);
        assert!(wait.as_mut().now_or_never().is_none());
        receive(other, epoch, 5);
        assert!(wait.now_or_never().is_some());
        assert!(acknowledgements.wait(Position { epoch, sequence: 1 }, vec![]).now_or_never().is_some());
    }
}
