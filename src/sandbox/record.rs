//! One appointment: what was written down of it, and what follows from the clock.
//!
//! Stands in the store, one for each id. What a person would enter is kept as the JSON that is served, so that odd shapes
//! can be had by putting them there; what time does (status, session, meeting) is worked out whenever it is shown, so no
//! task has to wake up and nothing is ever late.

use jiff::tz::offset;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// How long before its time an appointment is waited for, in seconds.
pub(crate) const WAITING: i64 = 5 * 60;
/// The length that is assumed where none is told, in minutes.
const USUAL_MINUTES: i64 = 30;

/// One appointment.
pub(crate) struct Record {
    pub(crate) id: Uuid,
    /// Whether [`Sight::Shared`](crate::sandbox::access::Sight) reaches it.
    pub(crate) shared: bool,
    pub(crate) at: Timestamp,
    pub(crate) stamp: Stamp,
    pub(crate) course: Course,
    pub(crate) room: Option<Room>,
    pub(crate) cancelled: Option<Cancellation>,
    pub(crate) completeness: Completeness,
    /// What is served as it stands. It goes before anything that is worked out under the same name.
    pub(crate) fields: Map<String, Value>,
}

/// How the upstream writes this appointment's times: every way in which it does somewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Stamp {
    /// `2025-08-19T16:50:00.000000Z`
    Micros,
    /// `2025-08-19T16:50:00.000Z`
    Millis,
    /// `2025-08-19T16:50:00Z`
    Seconds,
    /// `2025-08-19T17:50:00+01:00`
    Offset,
    /// `2025-08-19T16:50:00`, which means UTC.
    Bare,
}

/// What becomes of an appointment that nobody cancels.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Course {
    /// The session begins `late` seconds after the time, and lasts `lasts` seconds.
    Held { late: i64, lasts: i64 },
    /// Nobody comes.
    Missed,
}

/// Where the session is held.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) url: String,
}

/// When it was called off, and what for.
#[derive(Debug, Clone)]
pub(crate) struct Cancellation {
    pub(crate) at: Timestamp,
    pub(crate) reason: Option<String>,
}

/// How much of the appointment is served.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Completeness {
    /// Every field, null where there is nothing.
    Full,
    /// What is null is left out.
    Terse,
    /// Only the id.
    Bare,
}

impl Record {
    /// As the upstream serves it at this moment.
    pub(crate) fn shown(&self, now: Timestamp) -> Value {
        let mut shown = Map::new();
        if self.completeness != Completeness::Bare {
            shown = self.fields.clone();
            for (name, value) in self.worked_out(now) {
                shown.entry(name).or_insert(value);
            }
            if self.completeness == Completeness::Terse {
                shown.retain(|_, value| !value.is_null());
            }
        }
        shown.insert("id".to_owned(), json!(self.id.to_string()));
        Value::Object(shown)
    }

    fn worked_out(&self, now: Timestamp) -> [(&'static str, Value); 7] {
        let (started, ended) = self.session(now);
        let write = |time: Option<Timestamp>| time.map(|time| self.stamp.write(time)).into();
        let meeting = self.room.as_ref().map_or(Value::Null, |room| {
            json!({
                "id": room.id,
                "room_name": room.name,
                "room_url": room.url,
                "start_date": self.stamp.write(self.at),
                "end_date": self.stamp.write(self.ends_at()),
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

    /// The upstream's word for how things stand.
    fn status(&self, now: Timestamp) -> &'static str {
        if self.cancelled.is_some() {
            return "cancelled";
        }
        match (self.session(now), self.course) {
            ((_, Some(_)), _) => "ended",
            ((Some(_), None), _) => "in_session",
            (_, Course::Missed) if now >= self.ends_at() => "missed",
            _ if now >= after(self.at, -WAITING) => "waiting",
            _ => "scheduled",
        }
    }

    /// When the session began and ended, as far as it has. Nothing happens any more once it is cancelled.
    fn session(&self, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        let Course::Held { late, lasts } = self.course else {
            return (None, None);
        };
        let now = self.cancelled.as_ref().map_or(now, |cancelled| cancelled.at.min(now));
        let started = after(self.at, late);
        let ended = after(started, lasts);
        ((started <= now).then_some(started), (ended <= now).then_some(ended))
    }

    fn ends_at(&self) -> Timestamp {
        let minutes = self.fields.get("duration_in_minutes").and_then(Value::as_i64);
        after(self.at, 60 * minutes.unwrap_or(USUAL_MINUTES))
    }
}

impl Stamp {
    /// `time` in this manner. Digits that the manner has no room for are cut off.
    pub(crate) fn write(self, time: Timestamp) -> String {
        match self {
            Stamp::Micros => format!("{time:.6}"),
            Stamp::Millis => format!("{time:.3}"),
            Stamp::Seconds => format!("{time:.0}"),
            Stamp::Offset => format!("{:.0}", time.display_with_offset(offset(1))),
            Stamp::Bare => format!("{time:.0}").trim_end_matches('Z').to_owned(),
        }
    }
}

/// `seconds` later, or as late as can be told.
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

    fn record(course: Course) -> Record {
        Record {
            id: Uuid::nil(),
            shared: true,
            at: second(AT),
            stamp: Stamp::Micros,
            course,
            room: None,
            cancelled: None,
            completeness: Completeness::Full,
            fields: Map::from_iter([("duration_in_minutes".to_owned(), json!(30))]),
        }
    }

    #[test]
    fn time_passes_from_scheduled_to_ended() {
        let record = record(Course::Held { late: 40, lasts: 600 });
        let seen = |moment| {
            let shown = record.shown(second(AT + moment));
            (shown["status"].clone(), shown["session_started_at"].clone(), shown["session_ended_at"].clone())
        };
        let (start, end) = ("2025-08-19T16:50:40.000000Z", "2025-08-19T17:00:40.000000Z");
        assert_eq!(seen(-301), (json!("scheduled"), Value::Null, Value::Null));
        assert_eq!(seen(-300), (json!("waiting"), Value::Null, Value::Null));
        assert_eq!(seen(39), (json!("waiting"), Value::Null, Value::Null));
        assert_eq!(seen(40), (json!("in_session"), json!(start), Value::Null));
        assert_eq!(seen(640), (json!("ended"), json!(start), json!(end)));
    }

    #[test]
    fn nobody_comes_to_a_missed_one() {
        let record = record(Course::Missed);
        assert_eq!(record.shown(second(AT + 1799))["status"], "waiting");
        assert_eq!(record.shown(second(AT + 1800))["status"], "missed");
        assert_eq!(record.shown(second(AT + 1800))["session_started_at"], Value::Null);
    }

    #[test]
    fn a_cancelled_one_stays_as_it_was() {
        let mut record = record(Course::Held { late: 0, lasts: 600 });
        record.cancelled = Some(Cancellation { at: second(AT + 60), reason: None });
        let shown = record.shown(second(AT + 6000));
        assert_eq!(shown["status"], "cancelled");
        assert_eq!(shown["session_started_at"], "2025-08-19T16:50:00.000000Z");
        assert_eq!(shown["session_ended_at"], Value::Null);
    }

    #[test]
    fn every_manner_of_writing_a_time() {
        let time: Timestamp = "2025-08-19T16:50:00.123456Z".parse().unwrap();
        assert_eq!(Stamp::Micros.write(time), "2025-08-19T16:50:00.123456Z");
        assert_eq!(Stamp::Millis.write(time), "2025-08-19T16:50:00.123Z");
        assert_eq!(Stamp::Seconds.write(time), "2025-08-19T16:50:00Z");
        assert_eq!(Stamp::Offset.write(time), "2025-08-19T17:50:00+01:00");
        assert_eq!(Stamp::Bare.write(time), "2025-08-19T16:50:00");
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        assert_eq!(after(Timestamp::MAX, 60), Timestamp::MAX);
    }
}
