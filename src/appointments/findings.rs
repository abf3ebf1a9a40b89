//! The findings of a poller, which it sends to the replicas that follow it.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{served::CachedLookup, shared_copy::layout};
use crate::{
    cache::{freshness::Freshness, read_through::Read, validity::ReadVersion},
    fleet::message::{decode, encode},
    model::{Appointment, SharedAppointment},
    upstream::validators::Validators,
};

/// The result of the poller of a watched appointment.
///
/// The end of an appointment and the withdrawal of access are none of it: each replica believes only its own call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Finding {
    /// The upstream's response to a poll.
    Read(FoundRead),
    /// The poller has ended its lease. The others may poll after this time.
    Left { retry_after: Duration },
}

/// A read of a poller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FoundRead {
    state: FoundState,
    validators: Option<Validators>,
    /// Counted from the read.
    freshness: Freshness,
    /// The time since the read started.
    elapsed: Duration,
}

/// A state, in full only if it differs from the last one.
#[derive(Debug, Serialize, Deserialize)]
enum FoundState {
    New(Vec<u8>),
    Unchanged(StateDigest),
}

/// The digest of an encoded state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateDigest([u8; 16]);

/// The version of the encoding beside the [layout] of appointments. Increase it with each change.
const FORMAT: u8 = 1;

impl Finding {
    /// The finding for replicas that were last sent a state with the digest `last`, and the digest of this one.
    pub(crate) fn of(
        appointment: &Appointment,
        read: &Read<CachedLookup>,
        last: Option<StateDigest>,
    ) -> (Self, StateDigest) {
        let state = encode(appointment);
        let digest = StateDigest::of(&state);
        let state = if last == Some(digest) { FoundState::Unchanged(digest) } else { FoundState::New(state) };
        let found = FoundRead {
            state,
            validators: read.validators.as_deref().cloned(),
            freshness: read.freshness.after(read.shared_age.unwrap_or_default()),
            elapsed: read.version.started.elapsed(),
        };
        (Self::Read(found), digest)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(&(FORMAT, layout(), self))
    }

    /// The finding that `bytes` encode, if they do in the format of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (format, fields, finding) = decode::<(u8, [u8; 16], Self)>(bytes)?;
        (format == FORMAT && fields == layout()).then_some(finding)
    }
}

impl FoundRead {
    /// The read as one of this replica, which has shown the state `last` and has taken a `version` just now. `limit` bounds
    /// the freshness of a copy of an age. None if the state is neither new nor the last one.
    pub(crate) fn into_read(
        self,
        last: Option<SharedAppointment>,
        mut version: ReadVersion,
        limit: impl FnOnce(Freshness, Duration) -> Freshness,
    ) -> Option<Read<CachedLookup>> {
        let appointment = match self.state {
            FoundState::New(state) => Arc::new(decode(&state)?),
            FoundState::Unchanged(digest) => {
                last.filter(|last| StateDigest::of(&encode(&**last)) == digest)?
            }
        };
        version.started = version.started.checked_sub(self.elapsed).unwrap_or(version.started);
        Some(Read {
            value: Some(appointment),
            validators: self.validators.map(Arc::new),
            version,
            freshness: limit(self.freshness, self.elapsed),
            shared_age: Some(self.elapsed),
        })
    }
}

impl StateDigest {
    fn of(state: &[u8]) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(state).as_bytes()[..16]);
        Self(digest)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        cache::validity::{Subject, Validity},
        caller::{Caller, ScopeKey},
        sandbox::SAMPLE,
        upstream::wire,
    };

    fn version() -> ReadVersion {
        let scope = Caller::with_token("token", &ScopeKey::random()).scope();
        Validity::new().start_read(scope, Subject::Appointment(Uuid::nil()))
    }

    fn read(appointment: &Appointment) -> Read<CachedLookup> {
        let value = Some(Arc::new(appointment.clone()));
        let freshness = Freshness::of(Duration::from_secs(9));
        Read { value, validators: None, version: version(), freshness, shared_age: None }
    }

    fn received(finding: &Finding, last: Option<SharedAppointment>) -> Option<Read<CachedLookup>> {
        let Some(Finding::Read(found)) = Finding::decode(&finding.encode()) else { panic!("a read") };
        found.into_read(last, version(), |freshness, _| freshness)
    }

    #[test]
    fn a_state_is_sent_in_full_only_once() {
        let appointment = wire::appointment(SAMPLE.as_bytes()).unwrap();
        let read = read(&appointment);
        let (full, digest) = Finding::of(&appointment, &read, None);
        let first = received(&full, None).unwrap().value.unwrap();
        assert!(*first == appointment);
        let (short, same) = Finding::of(&appointment, &read, Some(digest));
        assert!(same == digest && short.encode().len() < 100 && full.encode().len() > 500);
        assert!(received(&short, Some(first)).unwrap().value.is_some_and(|it| *it == appointment));
        let other = Arc::new(Appointment::bare(Uuid::nil()));
        assert!(received(&short, Some(other.clone())).is_none() && received(&short, None).is_none());
        let (changed, _) = Finding::of(&other, &read, Some(digest));
        assert!(received(&changed, None).unwrap().value.is_some_and(|it| it == other));
    }

    #[test]
    fn a_finding_is_as_old_as_its_read() {
        let appointment = Appointment::bare(Uuid::nil());
        let mut old = read(&appointment);
        old.version.started -= Duration::from_secs(3);
        let (finding, _) = Finding::of(&appointment, &old, None);
        let read = received(&finding, None).unwrap();
        assert!(read.version.started.elapsed() >= Duration::from_secs(3));
        assert!(read.shared_age.is_some_and(|age| age >= Duration::from_secs(3)));
        assert_eq!(read.freshness, Freshness::of(Duration::from_secs(9)));
    }

    #[test]
    fn findings_of_another_version_are_ignored() {
        let finding = Finding::Left { retry_after: Duration::from_secs(1) };
        assert!(matches!(Finding::decode(&finding.encode()), Some(Finding::Left { .. })));
        let mut other = finding.encode();
        other[0] ^= 1;
        assert!(Finding::decode(&other).is_none() && Finding::decode(b"").is_none());
    }
}
