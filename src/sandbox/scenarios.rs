//! The programme: every appointment of the made-up data, and what happens when.
//!
//! Stands between the cast and the store, which asks for it once at start-up. Everything but the moment of starting comes
//! from an index, so ids, names and shapes are the same in each run and on each machine. By index:
//! - 0–6 the examples that the documentation names,
//! - 7–24 a lively quarter of an hour: sessions that begin and end within minutes of start-up,
//! - 25–239 some weeks around today,
//! - 240–243 four that carry one field of a wrong type each, for readers that must survive them, at the end of the list.

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    people,
    prng::{below, pick},
    record::{Cancellation, Course, Record, Room, after},
    variants::{self, Look},
};

const EXAMPLES: u32 = 7;
const LIVELY: u32 = 18;
/// Those with nothing wrong about them.
const CLEAN: u32 = 240;
const ODD: u32 = 4;
/// The index that no appointment has.
const NOBODY: u32 = u32::MAX;

const DAY: i64 = 24 * 60 * 60;

/// The ids of the examples, and one that does not exist.
pub(crate) fn example_ids() -> Vec<Uuid> {
    (0..EXAMPLES).chain([NOBODY]).map(id).collect()
}

/// Every appointment, for a sandbox that starts at this moment.
pub(crate) fn programme(start: Timestamp) -> Vec<Record> {
    let clean = (0..CLEAN).map(|index| record(index, slot(index, start), &Look::of(index)));
    let odd = (0..ODD).map(|nth| {
        let index = CLEAN + nth;
        let mut record = record(index, slot(index, start), &Look::PLAIN);
        variants::spoil(nth, &mut record.fields);
        record
    });
    clean.chain(odd).collect()
}

/// What a client creates, before its own fields are put in: as the upstream's own new appointments look.
pub(crate) fn created(nth: u32, shared: bool, at: Timestamp, now: Timestamp) -> Record {
    let course = Course::Held { late: 20, lasts: 10 * 60 };
    let slot = Slot { at, created: now, minutes: 30, course, cancelled: None };
    let mut record = Record { shared, ..record(nth, slot, &Look::CREATED) };
    // A default is the same for everybody, not drawn.
    record.fields.insert("features_bandwidth".to_owned(), "medium".into());
    record
}

fn id(index: u32) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("https://sandbox.example/appointments/{index}").as_bytes())
}

/// When an appointment is, and what becomes of it.
struct Slot {
    at: Timestamp,
    created: Timestamp,
    minutes: i64,
    course: Course,
    cancelled: Option<Cancellation>,
}

fn slot(index: u32, start: Timestamp) -> Slot {
    let today = start.as_second().div_euclid(DAY) * DAY;
    let minute = (start.as_second().div_euclid(60) + 1) * 60;
    let clock = |days: i64, hour: i64, minutes: i64| today + days * DAY + (hour * 60 + minutes) * 60;
    let late = i64::from(below(50, index, "late"));
    let usual = pick(&[15, 20, 30, 30, 45, 60], index, "minutes");

    // A session that takes its whole time ends as late as it began.
    let whole = |minutes: i64| Course::Held { late, lasts: minutes * 60 };
    let (at, minutes, course) = match index {
        0 => (clock(1, 10, 30), 60, whole(60)),
        1 => (minute + 60, 10, whole(10)),
        2 => (minute - 20 * 60, 60, whole(60)),
        3 => (clock(-1, 14, 0), 45, whole(40)),
        4 => (clock(1, 15, 0), 30, whole(30)),
        5 => (clock(3, 9, 15), 30, whole(30)),
        6 => (clock(4, 11, 0), 30, whole(30)),
        lively if lively < EXAMPLES + LIVELY => {
            // One a minute from five minutes ago: the first of them end, the next begin, the last are soon waited for.
            let nth = i64::from(lively - EXAMPLES);
            let course =
                if nth % 6 == 5 { Course::Missed } else { Course::Held { late, lasts: 5 * 60 + late } };
            (minute + (nth - 5) * 60, 15, course)
        }
        usual_day if usual_day < CLEAN => {
            // Eight a day; none today, so that the hour of starting makes no difference to how things stand.
            let nth = i64::from(usual_day - EXAMPLES - LIVELY);
            let day = nth / 8 - 12;
            let quarters = i64::from(below(4, index, "quarter"));
            let at = clock(if day < 0 { day } else { day + 1 }, 8 + nth % 8, quarters * 15);
            let course = if below(9, index, "missed") == 0 { Course::Missed } else { whole(usual) };
            (at, usual, course)
        }
        odd => (clock(40 + i64::from(odd - CLEAN), 12, 0), 30, whole(30)),
    };

    let at = second(at);
    let booked_for = i64::from(below(20, index, "created day") + 2) * DAY;
    let created = after(at.min(start), i64::from(below(36_000, index, "created time")) - booked_for);
    let usual_day = (EXAMPLES + LIVELY..CLEAN).contains(&index);
    let is_cancelled = index == 4 || usual_day && below(10, index, "cancelled") == 0;
    let cancelled = is_cancelled.then(|| Cancellation {
        // Some hours after it was made, which leaves at least a day until its time.
        at: after(created, 3600 + i64::from(below(20_000, index, "cancelled time"))),
        // A reason need not be given.
        reason: (index == 4 || below(4, index, "reasoned") > 0).then(|| people::reason(index).to_owned()),
    });
    Slot { at, created, minutes, course, cancelled }
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

fn record(index: u32, slot: Slot, look: &Look) -> Record {
    let room = look.room.then(|| {
        let (name, url) = people::room(index);
        // On both sides of what 32 bits hold.
        let id = if index % 5 == 4 { 4_294_967_296 } else { 1_234_567_000 } + u64::from(index);
        Room { id, name, url }
    });
    Record {
        id: id(index),
        shared: index % 5 < 2,
        at: slot.at,
        stamp: look.stamp,
        course: slot.course,
        room,
        cancelled: slot.cancelled,
        completeness: look.completeness,
        fields: look.fields(index, slot.created, slot.minutes),
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
        for record in programme(start()) {
            let status = record.shown(now)["status"].as_str().unwrap_or("bare").to_owned();
            *count.entry(status).or_default() += 1;
        }
        count
    }

    #[test]
    fn the_ids_are_the_same_in_each_run() {
        assert_eq!(example_ids()[0].to_string(), "bc3a4aa8-ee7d-594d-979b-62eadf7d768a");
        let ids: HashSet<_> = programme(start()).iter().map(|record| record.id).collect();
        assert_eq!(ids.len(), 244);
        assert!(!ids.contains(&example_ids()[7]));
    }

    #[test]
    fn every_state_is_there_at_the_start() {
        let count = statuses(start());
        for status in ["scheduled", "waiting", "in_session", "ended", "missed", "cancelled", "bare"] {
            assert!(count.get(status).is_some_and(|count| *count >= 2), "{status}: {count:?}");
        }
    }

    #[test]
    fn something_changes_in_each_of_the_first_minutes() {
        for minute in 0..10 {
            let shown = |seconds| -> Vec<_> {
                programme(start()).iter().map(|record| record.shown(after(start(), seconds))).collect()
            };
            assert_ne!(shown(minute * 60), shown(minute * 60 + 60), "minute {minute}");
        }
    }

    #[test]
    fn the_examples_are_what_they_are_said_to_be() {
        let records = programme(start());
        let shown: Vec<_> = records[..7].iter().map(|record| record.shown(start())).collect();
        let statuses: Vec<_> = shown.iter().map(|shown| shown["status"].as_str().unwrap_or("bare")).collect();
        assert_eq!(
            statuses,
            ["scheduled", "waiting", "in_session", "ended", "cancelled", "scheduled", "bare"]
        );
        let shared: Vec<_> = records[..7].iter().map(|record| record.shared).collect();
        assert_eq!(shared, [true, true, false, false, false, true, true]);
        assert_eq!(shown[6].as_object().unwrap().len(), 1);
    }

    #[test]
    fn nothing_is_cancelled_before_it_is_made_or_after_its_time() {
        for index in 0..CLEAN {
            let slot = slot(index, start());
            assert!(slot.created < slot.at.min(start()), "{index}");
            if let Some(cancelled) = slot.cancelled {
                assert!(slot.created < cancelled.at && cancelled.at < slot.at.min(start()), "{index}");
            }
        }
    }

    #[test]
    fn the_last_of_the_list_are_the_odd_ones() {
        let mut records = programme(start());
        records.sort_by_key(|record| (record.at, record.id));
        let last: HashSet<_> = records[240..].iter().map(|record| record.id).collect();
        assert_eq!(last, (240..244).map(id).collect());
    }
}
