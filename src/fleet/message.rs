//! The messages of the change bus, and their encoding.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::caller::Scope;

/// Something that ends copies on all replicas, or that all of them show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A change was made, or may have been made.
    Changed {
        /// None for a creation whose id is unknown.
        id: Option<Uuid>,
        /// How long the change may still take effect, if its outcome is unknown.
        uncertain_for: Option<Duration>,
    },
    /// The upstream has withdrawn data from a caller.
    Revoked {
        /// The scope under each key of the fleet.
        scopes: Vec<Scope>,
        subject: RevokedSubject,
        /// Whether watchers of the subject ask the upstream at once, since its answer may be final for them.
        recheck: bool,
    },
    /// A poller has read a watched appointment.
    Observed(Observation),
}

/// The data that the upstream has withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum RevokedSubject {
    /// Everything of the scope (401).
    Everything,
    /// One appointment, and the pages that show it.
    Appointment(Uuid),
    /// All pages.
    List,
}

/// The finding of the poller of a watched appointment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Observation {
    /// The scope of the poller under each key of the fleet.
    pub(crate) scopes: Vec<Scope>,
    pub(crate) id: Uuid,
    /// The fencing token of the poller's lease. Findings of earlier holders are refused.
    pub(crate) fence: u64,
    /// The last message of which the poller takes account. A later change makes the observation useless.
    pub(crate) as_of: Position,
    /// The encoded finding.
    pub(crate) finding: Vec<u8>,
}

/// A place in the order of all messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Numbers of different epochs cannot be compared.
    pub(crate) epoch: Epoch,
    pub(crate) sequence: u64,
}

/// The time for which one Redis process has numbered the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epoch(pub(crate) Uuid);

/// A running process. Its name is drawn at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ReplicaId(pub(crate) Uuid);

/// A message as it is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) origin: ReplicaId,
    /// The number among the messages of its origin, which recognises a repeated message.
    pub(crate) number: u64,
    pub(crate) epoch: Epoch,
    pub(crate) event: Event,
}

/// The acknowledgement of all messages up to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acknowledgement {
    pub(crate) replica: ReplicaId,
    pub(crate) position: Position,
}

impl Position {
    /// Whether a replica that has received the message at `other` has received this one.
    pub(crate) fn is_covered_by(self, other: Self) -> bool {
        self.epoch == other.epoch && self.sequence <= other.sequence
    }
}

impl Event {
    /// Whether the publisher waits until all replicas have received it.
    pub(crate) fn needs_acknowledgement(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }

    /// The label in the metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "change",
            Self::Revoked { .. } => "revocation",
            Self::Observed(_) => "observation",
        }
    }
}

/// The encoding of a value. It is not self-describing, so it is always encrypted with the name of its type as context.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Fails only for types that cannot be encoded at all, which the tests would show.
    postcard::to_allocvec(value).unwrap_or_default()
}

/// The value that `bytes` encode, if they do.
pub(crate) fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}
