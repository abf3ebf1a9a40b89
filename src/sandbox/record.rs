//! An appointment of the sandbox: stored fields, fields derived from the clock, and the rest from the [`sample`].
//!
//! Stored fields are JSON as it is served, so that a scenario can store any variant. Status, session and meeting are
//! derived from the current time on each read, so no background task is needed.

use jiff::tz::offset;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::sample;

/// The time before an appointment in which its status is `waiting`, in seconds.
pub(crate) const WAITING: i64 = 5 * 60;
/// The duration of an appointment without `duration_in_minutes`, in minutes.
const DEFAULT_MINUTES: i64 = 30;

/// An appointment.
pub(crate) struct AppointmentRecord {
    pub(crate) id: Uuid,
    /// Whether [`Visibility::Shared`](crate::sandbox::access::Visibility) reaches it.
    pub(crate) shared: bool,
    pub(crate) at: Timestamp,
    pub(crate) time_format: TimestampFormat,
    pub(crate) outcome: SessionOutcome,
    pub(crate) room: Option<Room>,
    pub(crate) cancelled: Option<Cancellation>,
    pub(crate) completeness: Completeness,
    /// Whether the features of the [`sample`] are served.
    pub(crate) has_features: bool,
    /// Fields that are served unchanged. They take precedence over derived fields, and these over those of the
    /// [`sample`].
    pub(crate) fields: Map<String, Value>,
}

/// A timestamp format of the upstream, which uses several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum TimestampFormat {
    /// `2025-08-19T16:50:00.000000Z`
    Micros,
    /// `2025-08-19T16:50:00.000Z`
    Millis,
    /// `2025-08-19T16:50:00Z`
    Seconds,
    /// `2025-08-19T17:50:00+01:00`
    Offset,
    /// `2025-08-19T16:50:00`, in UTC.
    WithoutOffset,
}

/// The outcome of an appointment that is not cancelled.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SessionOutcome {
    /// The session starts `late` seconds after `appointment_at` and takes `lasts` seconds.
    Held { late: i64, lasts: i64 },
    /// There is no session.
    Missed,
}

/// The meeting room.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) url: String,
}

/// The time and reason of a cancellation.
#[derive(Debug, Clone)]
pub(crate) struct Cancellation {
    pub(crate) at: Timestamp,
    pub(crate) reason: Option<String>,
}

/// The completeness of a served appointment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Completeness {
    /// All fields, including nulls.
    Full,
    /// Nulls are omitted.
    WithoutNulls,
    /// Only the id.
    IdOnly,
}

impl AppointmentRecord {
    /// Returns the appointment as the upstream serves it at `now`.
    pub(crate) fn to_json(&self, now: Timestamp) -> Value {
        let mut members = Map::new();
        if self.completeness != Completeness::IdOnly {
            members = self.fields.clone();
            for (name, value) in self.derived_fields(now) {
                members.entry(name).or_insert(value);
            }
            for (name, value) in sample() {
                if self.has_features || !name.starts_with("features_") {
                    members.entry(name).or_insert_with(|| value.clone());
                }
            }
            if self.completeness == Completeness::WithoutNulls {
                members.retain(|_, value| !value.is_null());
            }
        }
        members.insert("id".to_owned(), json!(self.id.to_string()));
        Value::Object(members)
    }

    fn derived_fields(&self, now: Timestamp) -> [(&'static str, Value); 7] {
        let (started, ended) = self.session(now);
        let write = |time: Option<Timestamp>| time.map(|time| self.time_format.write(time)).into();
        let meeting = self.room.as_ref().map_or(Value::Null, |room| {
            json!({
                "id": room.id,
                "room_name": room.name,
                "room_url": room.url,
                "start_date": self.time_format.write(self.at),
                "end_date": self.time_format.write(self.ends_at()),
            })
        });
        [
            ("appointment_at", write(Some(self.at))),
            ("status", self.status(now).into()),
            ("meeting", meeting),
            ("session_started_at", write(started)),
            ("session_ended_at", write(ended)),
            ("cancelled_at", write(self.cancelled.as_ref().map(|cancelled| cancelled.at))),
            (
                "cancellation_reason",
                self.cancelled.as_ref().and_then(|cancelled| cancelled.reason.clone()).into(),
            ),
        ]
    }

    /// Returns the status in the upstream's terms.
    fn status(&self, now: Timestamp) -> &'static str {
        if self.cancelled.is_some() {
            return "cancelled";
        }
        match (self.session(now), self.outcome) {
            ((_, Some(_)), _) => "ended",
            ((Some(_), None), _) => "in_session",
            (_, SessionOutcome::Missed) if now >= self.ends_at() => "missed",
            _ if now >= after(self.at, -WAITING) => "waiting",
            _ => "scheduled",
        }
    }

    /// Returns the start and end of the session if they have passed. A cancellation stops the session.
    fn session(&self, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        let SessionOutcome::Held { late, lasts } = self.outcome else {
            return (None, None);
        };
        let now = self.cancelled.as_ref().map_or(now, |cancelled| cancelled.at.min(now));
        let started = after(self.at, late);
        let ended = after(started, lasts);
        ((started <= now).then_some(started), (ended <= now).then_some(ended))
    }

    fn ends_at(&self) -> Timestamp {
        let minutes = self.fields.get("duration_in_minutes").and_then(Value::as_i64);
        after(self.at, 60 * minutes.unwrap_or(DEFAULT_MINUTES))
    }
}

impl TimestampFormat {
    /// Formats `time`. Excess digits are truncated.
    pub(crate) fn write(self, time: Timestamp) -> String {
        match self {
            TimestampFormat::Micros => format!("{time:.6}"),
            TimestampFormat::Millis => format!("{time:.3}"),
            TimestampFormat::Seconds => format!("{time:.0}"),
            TimestampFormat::Offset => format!("{:.0}", time.display_with_offset(offset(1))),
            TimestampFormat::WithoutOffset => format!("{time:.0}").trim_end_matches('Z').to_owned(),
        }
    }
}

/// Adds `seconds`, saturating at the maximum.
pub(crate) fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_755_622_200; // 2025-08-19T16:50:00Z

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn record(outcome: SessionOutcome) -> AppointmentRecord {
        AppointmentRecord {
            id: Uuid::nil(),
            shared: true,
            at: second(AT),
            time_format: TimestampFormat::Micros,
            outcome,
            room: None,
            cancelled: None,
            completeness: Completeness::Full,
            has_features: true,
            fields: Map::from_iter([("duration_in_minutes".to_owned(), json!(30))]),
        }
    }

    #[test]
    fn status_follows_the_clock() {
        let record = record(SessionOutcome::Held { late: 40, lasts: 600 });
        let seen = |moment| {
            let served = record.to_json(second(AT + moment));
            (
                served["status"].clone(),
                served["session_started_at"].clone(),
                served["session_ended_at"].clone(),
            )
        };
        let (start, end) = ("2025-08-19T16:50:40.000000Z", "2025-08-19T17:00:40.000000Z");
        assert_eq!(seen(-301), (json!("scheduled"), Value::Null, Value::Null));
        assert_eq!(seen(-300), (json!("waiting"), Value::Null, Value::Null));
        assert_eq!(seen(39), (json!("waiting"), Value::Null, Value::Null));
        assert_eq!(seen(40), (json!("in_session"), json!(start), Value::Null));
        assert_eq!(seen(640), (json!("ended"), json!(start), json!(end)));
    }

    #[test]
    fn missed_appointments_have_no_session() {
        let record = record(SessionOutcome::Missed);
        assert_eq!(record.to_json(second(AT + 1799))["status"], "waiting");
        assert_eq!(record.to_json(second(AT + 1800))["status"], "missed");
        assert_eq!(record.to_json(second(AT + 1800))["session_started_at"], Value::Null);
    }

    #[test]
    fn cancellation_stops_the_session() {
        let mut record = record(SessionOutcome::Held { late: 0, lasts: 600 });
        record.cancelled = Some(Cancellation { at: second(AT + 60), reason: None });
        let served = record.to_json(second(AT + 6000));
        assert_eq!(served["status"], "cancelled");
        assert_eq!(served["session_started_at"], "2025-08-19T16:50:00.000000Z");
        assert_eq!(served["session_ended_at"], Value::Null);
    }

    #[test]
    fn timestamp_formats_match_the_upstream() {
        let time: Timestamp = "2025-08-19T16:50:00.123456Z".parse().unwrap();
        assert_eq!(TimestampFormat::Micros.write(time), "2025-08-19T16:50:00.123456Z");
        assert_eq!(TimestampFormat::Millis.write(time), "2025-08-19T16:50:00.123Z");
        assert_eq!(TimestampFormat::Seconds.write(time), "2025-08-19T16:50:00Z");
        assert_eq!(TimestampFormat::Offset.write(time), "2025-08-19T17:50:00+01:00");
        assert_eq!(TimestampFormat::WithoutOffset.write(time), "2025-08-19T16:50:00");
    }

    #[test]
    fn adding_to_the_maximum_saturates() {
        assert_eq!(after(Timestamp::MAX, 60), Timestamp::MAX);
    }
}
