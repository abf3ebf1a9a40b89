//! Applies the messages of other replicas to the copies of this one.

use std::sync::Arc;

use tokio::time::Instant;

use super::{copies::Copies, subscriptions::Subscriptions, watch_registry::Recheck};
use crate::fleet::{
    FleetReceiver, Outage,
    message::{Event, Position, RevokedSubject},
};

/// Applies messages of the fleet to the copies and the watches of this replica.
pub(crate) struct CopiesReceiver {
    pub(crate) copies: Copies,
    pub(crate) subscriptions: Subscriptions,
}

impl FleetReceiver for CopiesReceiver {
    fn receive(&self, event: &Event, position: Position, is_own: bool) {
        let validity = &self.copies.validity;
        match event {
            // The effects of its own messages came before them.
            Event::Changed { id, .. } if is_own => {
                validity.note_message(*id, position.sequence);
                if let Some(id) = id {
                    self.subscriptions.published(*id, position);
                }
            }
            Event::Changed { id, uncertain_for } => {
                validity.changed_elsewhere(*id, *uncertain_for, position.sequence);
                if let Some(id) = id {
                    self.subscriptions.changed_elsewhere(*id);
                }
            }
            Event::Revoked { scopes, subject: RevokedSubject::Everything, .. } if is_own => {
                // Since the revocation, the upstream may have accepted the caller again.
                scopes.iter().for_each(|scope| self.copies.shared.forget(*scope));
            }
            Event::Revoked { .. } if is_own => {}
            Event::Revoked { scopes, subject, recheck } => {
                let recheck = if *recheck { Recheck::Now } else { Recheck::Later };
                for scope in scopes {
                    self.copies.end_elsewhere(*scope, *subject, recheck);
                }
            }
            Event::Observed(_) if is_own => {}
            Event::Observed(observation) => self.subscriptions.observed(observation, position),
        }
    }

    fn distrust(&self, outage: Outage) {
        if outage == Outage::None {
            self.copies.shared.note_joined();
        }
        // The bound first: a read of the new generation finds it.
        self.copies.ttl.set_bound(match outage {
            Outage::None => None,
            Outage::Until(bound) => bound,
        });
        self.copies.validity.distrust();
    }

    fn trust_until(&self, end: Instant) {
        self.copies.validity.trust_until(end.into_std());
    }
}

/// The receiver for [`Fleet::start`](crate::fleet::Fleet::start).
pub(crate) fn receiver(copies: &Copies, subscriptions: &Subscriptions) -> Arc<dyn FleetReceiver> {
    Arc::new(CopiesReceiver { copies: copies.clone(), subscriptions: subscriptions.clone() })
}
