//! The encoding of an appointment for other replicas.
//!
//! It is compact and not self-describing, so a reader has to know the fields. [`layout`] is a part of the context in which
//! encoded appointments are encrypted: a replica of a version with other fields cannot decrypt them, and ignores them.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::served::CachedLookup;
use crate::{
    cache::{
        freshness::Freshness,
        read_through::Read,
        representation::Representation,
        validity::{Guarded, ReadVersion},
    },
    fleet::message::{Position, decode, encode},
    model::{self, Appointment},
    upstream::validators::Validators,
};

/// The version of everything in the encoding that [`model::LAYOUT`] does not describe. Increase it with each change of that.
const FORMAT: u8 = 1;

/// An encoded copy.
#[derive(Debug, Serialize, Deserialize)]
struct Encoded<A, V> {
    as_of: Position,
    freshness: Freshness,
    validators: Option<V>,
    appointment: A,
}

/// A copy of an appointment that a replica has read.
#[derive(Debug)]
pub(crate) struct SharedCopy {
    /// The last message before the read.
    pub(crate) as_of: Position,
    /// Counted from the read.
    pub(crate) freshness: Freshness,
    /// How long ago it was read.
    pub(crate) age: Duration,
    representation: Representation<CachedLookup>,
}

/// A digest of the fields of an encoded copy.
pub(crate) fn layout() -> [u8; 16] {
    static LAYOUT: LazyLock<[u8; 16]> = LazyLock::new(|| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[FORMAT]);
        for fields in model::LAYOUT {
            hasher.update(fields.as_bytes());
        }
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        digest
    });
    *LAYOUT
}

/// Encodes a `read` of an appointment that started after the message at `as_of`. None for an absence.
pub(crate) fn encode_read(read: &Read<CachedLookup>, as_of: Position) -> Option<Vec<u8>> {
    let appointment: &Appointment = read.value.as_ref()?;
    let (freshness, validators) = (read.freshness, read.validators.as_deref());
    Some(encode(&Encoded { as_of, freshness, validators, appointment }))
}

impl SharedCopy {
    /// The copy that `bytes` encode, if they do; of age 0.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let Encoded { as_of, freshness, validators, appointment } =
            decode::<Encoded<Appointment, Validators>>(bytes)?;
        let representation =
            Representation { value: Some(Arc::new(appointment)), validators: validators.map(Arc::new) };
        Some(Self { as_of, freshness, age: Duration::ZERO, representation })
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.freshness.left(self.age).is_some()
    }

    /// The copy as the result of a read of this `version`.
    pub(crate) fn into_read(self, version: ReadVersion) -> Read<CachedLookup> {
        let Self { freshness, age, representation: Representation { value, validators }, .. } = self;
        Read { value, validators, version, freshness, shared_age: Some(age) }
    }

    /// The copy for the cache of this replica, as a read of this `version`.
    pub(crate) fn to_copy(&self, version: ReadVersion) -> Guarded<Representation<CachedLookup>> {
        self.representation.clone().into_copy(version, self.freshness).of_age(self.age)
    }

    /// The copy for a conditional request, if it has validators.
    pub(crate) fn revalidation_candidate(&self) -> Option<Representation<CachedLookup>> {
        self.representation.validators.is_some().then(|| self.representation.clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection, option, prelude::*, string::string_regex};
    use uuid::Uuid;

    use super::*;
    use crate::{
        cache::validity::{Subject, Validity},
        caller::{Caller, ScopeKey},
        fleet::message::Epoch,
        model::{
            Bandwidth, Claimant, ClaimantField, Date, DateTime, Department, Entries, Features, Field,
            Meeting, OpaqueId,
        },
        upstream::cache_control,
    };

    fn field<T: std::fmt::Debug + Clone + 'static>(
        value: impl Strategy<Value = T> + 'static,
    ) -> BoxedStrategy<Field<T>> {
        prop_oneof![Just(Field::Absent), Just(Field::Malformed), value.prop_map(Field::Value)].boxed()
    }

    fn text() -> BoxedStrategy<Field<Box<str>>> {
        field(any::<String>().prop_map(Into::into))
    }

    fn opaque_id() -> BoxedStrategy<Field<OpaqueId>> {
        field(any::<String>().prop_map(OpaqueId))
    }

    fn instant() -> BoxedStrategy<Field<DateTime>> {
        let text =
            string_regex("[0-9]{3}[1-9]-[01][1-2]-[012][1-8]T[01][0-9]:[0-5][0-9]:[0-5][0-9].[0-9]{9}Z");
        field(text.unwrap().prop_filter_map("no instant", |text| DateTime::parse(&text)))
    }

    fn date() -> BoxedStrategy<Field<Date>> {
        let day = (0..=9999_i16, 1..=12_i8, 1..=28_i8);
        field(day.prop_map(|(year, month, day)| Date(jiff::civil::date(year, month, day))))
    }

    fn flag() -> BoxedStrategy<Field<bool>> {
        field(any::<bool>())
    }

    prop_compose! {
        fn question()(id in opaque_id(), name in text(), value in text(), kind in text(), required in flag()) -> ClaimantField {
            ClaimantField { id, name, value, kind, required }
        }
    }

    prop_compose! {
        fn claimant()(
            name in text(), phone_number in text(), email in text(), date_of_birth in date(),
            items in collection::vec(question(), 0..3), malformed: bool,
        ) -> Claimant {
            Claimant { name, phone_number, email, date_of_birth, data: Entries { items, malformed } }
        }
    }

    prop_compose! {
        fn meeting()(id in opaque_id(), room_name in text(), room_url in text(), start_date in instant(), end_date in instant()) -> Meeting {
            Meeting { id, room_name, room_url, start_date, end_date }
        }
    }

    prop_compose! {
        fn department()(id in opaque_id(), name in text()) -> Department {
            Department { id, name }
        }
    }

    prop_compose! {
        fn features()(flags in collection::vec(flag(), 9), bandwidth in field(prop_oneof![
            Just(Bandwidth::Low), Just(Bandwidth::Medium), Just(Bandwidth::High),
        ])) -> Features {
            Features {
                call_recording: flags[0], breakout_room: flags[1], webcam_access_agent: flags[2],
                webcam_access_claimant: flags[3], webcam_background_blurring: flags[4], microphone_access: flags[5],
                screen_sharing: flags[6], messages_chat: flags[7], participant_list: flags[8], bandwidth,
            }
        }
    }

    prop_compose! {
        fn appointment()(
            id: u128, texts in collection::vec(text(), 7), times in collection::vec(instant(), 5),
            duration_in_minutes in field(any::<i32>()), flags in collection::vec(flag(), 2),
            department in field(department()), claimant in field(claimant()), meeting in field(meeting()),
            features in features(),
        ) -> Appointment {
            let mut texts = texts.into_iter();
            let mut text = || texts.next().unwrap();
            Appointment {
                id: Uuid::from_u128(id).into(), reference: text(), appointment_at: times[0], duration_in_minutes,
                is_interpreter_needed: flags[0], interpreter_language: text(), status: text(), url: text(),
                created_at: times[1], cancelled_at: times[2], cancellation_reason: text(), department, claimant,
                meeting, session_started_at: times[3], session_ended_at: times[4], features,
                use_custom_post_call_redirect: flags[1], custom_user_post_call_redirect_url: text(),
                custom_agent_post_call_redirect_url: text(),
            }
        }
    }

    fn validators(tag: &str) -> Option<Arc<Validators>> {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("etag", format!("\"{tag}\"").parse().unwrap());
        headers.insert("cache-control", "max-age=7, stale-if-error=3".parse().unwrap());
        Validators::of(&headers, cache_control::parse(&headers)).map(Arc::new)
    }

    fn read(appointment: Appointment, tag: Option<&str>) -> Read<CachedLookup> {
        let scope = Caller::with_token("token", &ScopeKey::random()).scope();
        let version = Validity::new().start_read(scope, Subject::Derived);
        let validators = tag.and_then(validators);
        let freshness = Freshness::of(Duration::from_millis(1234));
        Read { value: Some(Arc::new(appointment)), validators, version, freshness, shared_age: None }
    }

    fn position(sequence: u64) -> Position {
        Position { epoch: Epoch(Uuid::from_u128(7)), sequence }
    }

    proptest! {
        #[test]
        fn every_appointment_is_decoded_as_it_was(
            appointment in appointment(),
            tag in option::of("[a-z]{0,20}"),
            sequence: u64,
        ) {
            let read = read(appointment, tag.as_deref());
            let bytes = encode_read(&read, position(sequence)).unwrap();
            let copy = SharedCopy::decode(&bytes).unwrap();
            prop_assert!(copy.representation.value == read.value);
            prop_assert_eq!(&copy.representation.validators, &read.validators);
            prop_assert_eq!((copy.as_of, copy.freshness), (position(sequence), read.freshness));
            // A part of it is no copy.
            prop_assert!(SharedCopy::decode(&bytes[..bytes.len() - 1]).is_none());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, appointment in appointment(), at: usize, byte: u8) {
            let _ = SharedCopy::decode(&bytes);
            let mut bytes = encode_read(&read(appointment, Some("a")), position(1)).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = SharedCopy::decode(&bytes);
        }
    }

    /// A type whose fields are not a part of the layout could change without notice.
    #[test]
    fn the_layout_has_all_types() {
        let others = ["Field", "Entries", "Box", "Uuid", "OpaqueId", "DateTime", "Date", "Bandwidth"];
        for layout in model::LAYOUT {
            for word in layout
                .split(|c: char| !c.is_alphanumeric())
                .filter(|word| word.starts_with(char::is_uppercase))
            {
                let is_known = others.contains(&word)
                    || model::LAYOUT.iter().any(|layout| layout.starts_with(&format!("{word}{{")));
                assert!(is_known, "{word}: add it to model::LAYOUT");
            }
        }
    }

    #[test]
    fn an_absence_has_no_encoding() {
        let read = Read { value: None, ..read(Appointment::default(), None) };
        assert!(encode_read(&read, position(1)).is_none());
    }
}
