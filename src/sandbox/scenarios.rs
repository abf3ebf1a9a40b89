//! The scenarios: every appointment of the made-up data and its schedule.
//!
//! Everything except the start time is derived from an index, so ids, names and variants are the same in each run. By
//! index:
//! - 0–6: the documented examples,
//! - 7–24: sessions that start and end within minutes of the start of the sandbox,
//! - 25–239: appointments on the days around today,
//! - 240–243: appointments with one malformed field each, at the end of the list, to test lenient decoding.

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    people,
    prng::{below, pick},
    record::{AppointmentRecord, Cancellation, Room, SessionOutcome, after},
    variants::{self, Variant},
};

const EXAMPLES: u32 = 7;
const ACTIVE: u32 = 18;
/// The number of appointments without malformed fields.
const WELL_FORMED: u32 = 240;
const MALFORMED: u32 = 4;
/// An index without an appointment.
const UNKNOWN: u32 = u32::MAX;

const DAY: i64 = 24 * 60 * 60;

/// Returns the ids of the examples, and one that does not exist.
pub(crate) fn example_ids() -> Vec<Uuid> {
    (0..EXAMPLES).chain([UNKNOWN]).map(id).collect()
}

/// Returns all appointments of a sandbox that starts at `start`.
pub(crate) fn all_records(start: Timestamp) -> Vec<AppointmentRecord> {
    let well_formed =
        (0..WELL_FORMED).map(|index| record(index, schedule(index, start), &Variant::of(index)));
    let malformed = (0..MALFORMED).map(|nth| {
        let index = WELL_FORMED + nth;
        let mut record = record(index, schedule(index, start), &Variant::PLAIN);
        variants::corrupt_field(nth, &mut record.fields);
        record
    });
    well_formed.chain(malformed).collect()
}

/// Returns a new appointment with the upstream's defaults, without the client's fields.
pub(crate) fn created(nth: u32, shared: bool, at: Timestamp, now: Timestamp) -> AppointmentRecord {
    let outcome = SessionOutcome::Held { late: 20, lasts: 10 * 60 };
    let schedule = Schedule { at, created: now, minutes: 30, outcome, cancelled: None };
    let mut record = AppointmentRecord { shared, ..record(nth, schedule, &Variant::CREATED) };
    // The default is fixed, not random.
    record.fields.insert("features_bandwidth".to_owned(), "medium".into());
    record
}

fn id(index: u32) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("https://sandbox.example/appointments/{index}").as_bytes())
}

/// The times and the outcome of an appointment.
struct Schedule {
    at: Timestamp,
    created: Timestamp,
    minutes: i64,
    outcome: SessionOutcome,
    cancelled: Option<Cancellation>,
}

fn schedule(index: u32, start: Timestamp) -> Schedule {
    let today = start.as_second().div_euclid(DAY) * DAY;
    let minute = (start.as_second().div_euclid(60) + 1) * 60;
    let clock = |days: i64, hour: i64, minutes: i64| today + days * DAY + (hour * 60 + minutes) * 60;
    let late = i64::from(below(50, index, "late"));
    let drawn_minutes = pick(&[15, 20, 30, 30, 45, 60], index, "minutes");

    // A late session takes its full duration, so it ends late as well.
    let held = |minutes: i64| SessionOutcome::Held { late, lasts: minutes * 60 };
    let (at, minutes, outcome) = match index {
        0 => (clock(1, 10, 30), 60, held(60)),
        1 => (minute + 60, 10, held(10)),
        2 => (minute - 20 * 60, 60, held(60)),
        3 => (clock(-1, 14, 0), 45, held(40)),
        4 => (clock(1, 15, 0), 30, held(30)),
        5 => (clock(3, 9, 15), 30, held(30)),
        6 => (clock(4, 11, 0), 30, held(30)),
        active if active < EXAMPLES + ACTIVE => {
            // One a minute from five minutes ago, so sessions end and start in each of the first minutes.
            let nth = i64::from(active - EXAMPLES);
            let outcome = if nth % 6 == 5 {
                SessionOutcome::Missed
            } else {
                SessionOutcome::Held { late, lasts: 5 * 60 + late }
            };
            (minute + (nth - 5) * 60, 15, outcome)
        }
        regular if regular < WELL_FORMED => {
            // Eight a day and none today, so the statuses do not depend on the time of day.
            let nth = i64::from(regular - EXAMPLES - ACTIVE);
            let day = nth / 8 - 12;
            let quarters = i64::from(below(4, index, "quarter"));
            let at = clock(if day < 0 { day } else { day + 1 }, 8 + nth % 8, quarters * 15);
            let outcome =
                if below(9, index, "missed") == 0 { SessionOutcome::Missed } else { held(drawn_minutes) };
            (at, drawn_minutes, outcome)
        }
        malformed => (clock(40 + i64::from(malformed - WELL_FORMED), 12, 0), 30, held(30)),
    };

    let at = second(at);
    let booked_for = i64::from(below(20, index, "created day") + 2) * DAY;
    let created = after(at.min(start), i64::from(below(36_000, index, "created time")) - booked_for);
    let regular = (EXAMPLES + ACTIVE..WELL_FORMED).contains(&index);
    let is_cancelled = index == 4 || regular && below(10, index, "cancelled") == 0;
    let cancelled = is_cancelled.then(|| Cancellation {
        // Some hours after creation, at least a day before the appointment.
        at: after(created, 3600 + i64::from(below(20_000, index, "cancelled time"))),
        // The reason is optional.
        reason: (index == 4 || below(4, index, "reasoned") > 0).then(|| people::reason(index).to_owned()),
    });
    Schedule { at, created, minutes, outcome, cancelled }
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

fn record(index: u32, schedule: Schedule, variant: &Variant) -> AppointmentRecord {
    let room = variant.room.then(|| {
        let (name, url) = people::room(index);
        // Below and above the range of 32 bits.
        let id = if index % 5 == 4 { 4_294_967_296 } else { 1_234_567_000 } + u64::from(index);
        Room { id, name, url }
    });
    AppointmentRecord {
        id: id(index),
        shared: index % 5 < 2,
        at: schedule.at,
        time_format: variant.time_format,
        outcome: schedule.outcome,
        room,
        cancelled: schedule.cancelled,
        completeness: variant.completeness,
        has_features: variant.features.is_some(),
        fields: variant.fields(index, schedule.created, schedule.minutes),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn start() -> Timestamp {
        "2026-03-05T23:59:30Z".parse().unwrap()
    }

    fn statuses(now: Timestamp) -> HashMap<String, usize> {
        let mut count = HashMap::new();
        for record in all_records(start()) {
            let status = record.to_json(now)["status"].as_str().unwrap_or("bare").to_owned();
            *count.entry(status).or_default() += 1;
        }
        count
    }

    #[test]
    fn ids_are_deterministic() {
        assert_eq!(example_ids()[0].to_string(), "bc3a4aa8-ee7d-594d-979b-62eadf7d768a");
        let ids: HashSet<_> = all_records(start()).iter().map(|record| record.id).collect();
        assert_eq!(ids.len(), 244);
        assert!(!ids.contains(&example_ids()[7]));
    }

    #[test]
    fn every_status_occurs_at_start() {
        let count = statuses(start());
        for status in ["scheduled", "waiting", "in_session", "ended", "missed", "cancelled", "bare"] {
            assert!(count.get(status).is_some_and(|count| *count >= 2), "{status}: {count:?}");
        }
    }

    #[test]
    fn statuses_change_in_each_of_the_first_minutes() {
        for minute in 0..10 {
            let served = |seconds| -> Vec<_> {
                all_records(start()).iter().map(|record| record.to_json(after(start(), seconds))).collect()
            };
            assert_ne!(served(minute * 60), served(minute * 60 + 60), "minute {minute}");
        }
    }

    #[test]
    fn examples_match_their_documentation() {
        let records = all_records(start());
        let served: Vec<_> = records[..7].iter().map(|record| record.to_json(start())).collect();
        let statuses: Vec<_> =
            served.iter().map(|served| served["status"].as_str().unwrap_or("bare")).collect();
        assert_eq!(
            statuses,
            ["scheduled", "waiting", "in_session", "ended", "cancelled", "scheduled", "bare"]
        );
        let shared: Vec<_> = records[..7].iter().map(|record| record.shared).collect();
        assert_eq!(shared, [true, true, false, false, false, true, true]);
        assert_eq!(served[6].as_object().unwrap().len(), 1);
    }

    #[test]
    fn cancellations_lie_between_creation_and_appointment() {
        for index in 0..WELL_FORMED {
            let schedule = schedule(index, start());
            assert!(schedule.created < schedule.at.min(start()), "{index}");
            if let Some(cancelled) = schedule.cancelled {
                assert!(
                    schedule.created < cancelled.at && cancelled.at < schedule.at.min(start()),
                    "{index}"
                );
            }
        }
    }

    #[test]
    fn malformed_appointments_are_last() {
        let mut records = all_records(start());
        records.sort_by_key(|record| (record.at, record.id));
        let last: HashSet<_> = records[240..].iter().map(|record| record.id).collect();
        assert_eq!(last, (240..244).map(id).collect());
    }
}
