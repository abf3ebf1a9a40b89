//! The true state: the appointments, their readers, and all versions of each.
//!
//! Every text that clients select names its owner, its number, its version and its epoch (`t2.a17.v5.e0`), so that a
//! response shows its origin.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use appointments_gateway::sandbox::sample;
use serde_json::{Value, json};
use uuid::Uuid;

/// The number of callers.
pub const TOKENS: usize = 6;

/// The number of appointments. Few, so that callers compete for them.
pub const APPOINTMENTS: usize = 60;

/// The prefix of all ids; the number of the appointment follows.
const FIRST_ID: u128 = 0x0000_50a4_0000_4000_8000_0000_0000_0000;

/// The access of a caller to an appointment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Visible,
    Forbidden,
    Absent,
}

/// The origin of a text of an appointment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance {
    pub token: usize,
    pub appointment: usize,
    pub version: u64,
    /// The epoch of the caller's access.
    pub epoch: u64,
}

/// How long a finished upstream call may still be on its way through the gateway.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// The access of one caller to one appointment that the upstream revokes and restores.
#[derive(Default)]
struct Grant {
    /// Even while the access is granted. Each change of it begins the next epoch.
    epoch: u64,
    /// The epochs in which upstream calls began, by call number, with the ends of the calls.
    calls: HashMap<u64, (u64, Option<Instant>)>,
    /// The latest epoch whose rejection a client has received, or an earlier one.
    refused: Option<u64>,
}

/// An upstream call in flight, until dropped.
pub struct GrantedCall<'a> {
    world: &'a World,
    pair: (usize, usize),
    number: u64,
}

/// The appointments and their history.
pub struct World {
    appointments: Vec<Mutex<Appointment>>,
    /// By number of the change: the number of calls for it, and the resulting version.
    changes: Mutex<HashMap<u64, Change>>,
    numbers: AtomicU64,
    /// By caller and appointment.
    grants: Mutex<HashMap<(usize, usize), Grant>>,
}

struct Appointment {
    /// The time at which each version began.
    since: Vec<Instant>,
    /// The latest version that a client has received as the result of its change.
    acknowledged: u64,
}

/// The state of a change in the upstream.
#[derive(Debug, Default, Clone, Copy)]
pub struct Change {
    pub asked: u32,
    pub version: Option<u64>,
}

impl World {
    pub fn new() -> Self {
        let appointment = || Mutex::new(Appointment { since: vec![Instant::now()], acknowledged: 0 });
        Self {
            appointments: (0..APPOINTMENTS).map(|_| appointment()).collect(),
            changes: Mutex::default(),
            numbers: AtomicU64::new(1),
            grants: Mutex::default(),
        }
    }

    /// The current version.
    pub fn version(&self, appointment: usize) -> u64 {
        self.appointments[appointment].lock().unwrap().since.len() as u64 - 1
    }

    /// The time at which `version` was superseded, or none if it is current or never existed.
    pub fn superseded(&self, appointment: usize, version: u64) -> Option<Instant> {
        self.appointments[appointment].lock().unwrap().since.get(version as usize + 1).copied()
    }

    /// The oldest version that new requests may receive: a client knows that it was made.
    pub fn acknowledged(&self, appointment: usize) -> u64 {
        self.appointments[appointment].lock().unwrap().acknowledged
    }

    /// Records that a client received `version` as the result of its change.
    pub fn acknowledge(&self, appointment: usize, version: u64) {
        let mut appointment = self.appointments[appointment].lock().unwrap();
        appointment.acknowledged = appointment.acknowledged.max(version);
    }

    /// A unique number for a change.
    pub fn new_change(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Records a call for a change, with any outcome.
    pub fn asked_for(&self, change: u64) {
        self.changes.lock().unwrap().entry(change).or_default().asked += 1;
    }

    /// Applies a change, and returns the new version.
    pub fn make(&self, change: u64, appointment: usize) -> u64 {
        let version = {
            let mut appointment = self.appointments[appointment].lock().unwrap();
            appointment.since.push(Instant::now());
            appointment.since.len() as u64 - 1
        };
        self.changes.lock().unwrap().entry(change).or_default().version = Some(version);
        version
    }

    /// The state of a change so far.
    pub fn change(&self, change: u64) -> Change {
        self.changes.lock().unwrap().get(&change).copied().unwrap_or_default()
    }

    fn grants(&self) -> MutexGuard<'_, HashMap<(usize, usize), Grant>> {
        self.grants.lock().unwrap()
    }

    /// The epoch of `token`'s access to an appointment; see [`Grant`].
    pub fn epoch(&self, token: usize, appointment: usize) -> u64 {
        self.grants().get(&(token, appointment)).map_or(0, |grant| grant.epoch)
    }

    /// The access of `token` to an appointment in an epoch.
    pub const fn access(token: usize, appointment: usize, epoch: u64) -> Access {
        if epoch.is_multiple_of(2) { access(token, appointment) } else { Access::Forbidden }
    }

    /// Revokes or restores the access of a caller to one of its appointments.
    pub fn turn(&self, rng: &mut fastrand::Rng) {
        let (token, all) = (rng.usize(0..TOKENS), (0..APPOINTMENTS));
        let all = all.filter(|appointment| is_revocable(token, *appointment)).collect::<Vec<_>>();
        let appointment = all[rng.usize(0..all.len())];
        self.grants().entry((token, appointment)).or_default().epoch += 1;
    }

    /// Restores all access.
    pub fn grant_all(&self) {
        for grant in self.grants().values_mut() {
            grant.epoch += grant.epoch % 2;
        }
    }

    /// Records the start of an upstream call of `token` for an appointment.
    pub fn call(&self, token: usize, appointment: usize) -> GrantedCall<'_> {
        let (pair, number) = ((token, appointment), self.new_change());
        let mut grants = self.grants();
        let grant = grants.entry(pair).or_default();
        grant.calls.retain(|_, (_, end)| end.is_none_or(|end| end.elapsed() < UNDER_WAY));
        grant.calls.insert(number, (grant.epoch, None));
        GrantedCall { world: self, pair, number }
    }

    /// The earliest epoch that the response to a new request may belong to.
    pub fn earliest_epoch(&self, token: usize, appointment: usize) -> u64 {
        let grants = self.grants();
        let Some(grant) = grants.get(&(token, appointment)) else { return 0 };
        let calls = grant.calls.values();
        let calls = calls.filter(|(_, end)| end.is_none_or(|end| end.elapsed() < UNDER_WAY));
        calls.map(|(epoch, _)| *epoch).min().unwrap_or(grant.epoch).min(grant.epoch)
    }

    /// Records that a client received a rejection of `epoch` or later.
    pub fn refuse(&self, token: usize, appointment: usize, epoch: u64) {
        let mut grants = self.grants();
        let refused = &mut grants.entry((token, appointment)).or_default().refused;
        *refused = (*refused).max(Some(epoch));
    }

    /// The epoch up to which data must not be served to new requests, because a client has received a rejection.
    pub fn refused(&self, token: usize, appointment: usize) -> Option<u64> {
        self.grants().get(&(token, appointment)).and_then(|grant| grant.refused)
    }

    /// The number of changes received by the upstream, and of those received more than once.
    pub fn changes(&self) -> (usize, usize) {
        let changes = self.changes.lock().unwrap();
        (changes.len(), changes.values().filter(|change| change.asked > 1).count())
    }
}

/// The permanent access of `token` to an appointment that is not [revocable](is_revocable).
pub const fn access(token: usize, appointment: usize) -> Access {
    if (3 * token + appointment).is_multiple_of(11) {
        Access::Forbidden
    } else if (5 * token + appointment).is_multiple_of(13) {
        Access::Absent
    } else {
        Access::Visible
    }
}

impl Drop for GrantedCall<'_> {
    fn drop(&mut self) {
        if let Some(grant) = self.world.grants().get_mut(&self.pair)
            && let Some((_, end)) = grant.calls.get_mut(&self.number)
        {
            *end = Some(Instant::now());
        }
    }
}

/// Whether the upstream revokes and restores the access of `token` to an appointment. The list shows it in either case.
pub const fn is_revocable(token: usize, appointment: usize) -> bool {
    matches!(access(token, appointment), Access::Visible) && (token + appointment) % 10 == 3
}

/// The list for `token`.
pub fn listed(token: usize) -> Vec<usize> {
    (0..APPOINTMENTS).filter(|appointment| access(token, *appointment) == Access::Visible).collect()
}

pub fn token(number: usize) -> String {
    format!("soak-token-{number}")
}

/// The number of a token, or none for an unknown one.
pub fn token_number(text: &str) -> Option<usize> {
    text.strip_prefix("soak-token-")?.parse().ok().filter(|number| *number < TOKENS)
}

pub fn id(appointment: usize) -> String {
    Uuid::from_u128(FIRST_ID + appointment as u128).to_string()
}

/// The number of the appointment with this id.
pub fn appointment_number(id: &str) -> Option<usize> {
    let number = Uuid::parse_str(id).ok()?.as_u128().checked_sub(FIRST_ID)?;
    usize::try_from(number).ok().filter(|number| *number < APPOINTMENTS)
}

impl Provenance {
    /// The text of this origin.
    pub fn tag(self) -> String {
        let Self { token, appointment, version, epoch } = self;
        format!("t{token}.a{appointment}.v{version}.e{epoch}")
    }

    pub fn read(tag: &str) -> Option<Self> {
        let mut parts = tag.split('.');
        let mut number = |sign| parts.next()?.strip_prefix(sign)?.parse::<u64>().ok();
        let (token, appointment, version, epoch) = (number('t')?, number('a')?, number('v')?, number('e')?);
        Some(Self { token: token as usize, appointment: appointment as usize, version, epoch })
    }

    /// The upstream's JSON: the sample with other values. It is in session, so that it is polled often.
    pub fn upstream(self) -> Value {
        let (tag, minutes) = (self.tag(), self.version % 1000 + 1);
        let own = json!({
            "id": id(self.appointment),
            "reference": tag,
            "appointment_at": "2031-03-04T09:30:00.000Z",
            "duration_in_minutes": minutes,
            "interpreter_language": tag,
            "status": tag,
            "cancelled_at": null,
            "department": { "id": self.appointment, "name": tag },
            "claimant": {
                "name": tag,
                "phone_number": null,
                "email": null,
                "date_of_birth": null,
                "data": [{ "id": "q1", "name": "Whose is it?", "value": tag, "type": "text", "required": true }],
            },
            "meeting": {
                "id": 1_234_567_890, "room_name": tag, "room_url": null, "start_date": null, "end_date": null,
            },
            "session_started_at": "2021-03-04T09:31:00.000Z",
            "session_ended_at": null,
            "features_screen_sharing_enable": self.version % 2 == 1,
        });
        let own = own.as_object().unwrap().clone();
        sample().clone().into_iter().chain(own).collect()
    }

    /// The expected response to [`BRIEF`].
    pub fn brief(self) -> Value {
        json!({ "id": id(self.appointment), "reference": self.tag(), "status": self.tag() })
    }

    /// The expected response to [`FULL`].
    pub fn full(self) -> Value {
        let (tag, minutes) = (self.tag(), self.version % 1000 + 1);
        let ends = 9 * 60 + 30 + minutes;
        let (day, hour, minute) = (4 + ends / 1440, ends / 60 % 24, ends % 60);
        json!({
            "id": id(self.appointment),
            "reference": tag,
            "status": tag,
            "durationInMinutes": minutes,
            "endsAt": format!("2031-03-{day:02}T{hour:02}:{minute:02}:00Z"),
            "phase": "IN_SESSION",
            "interpreterLanguage": tag,
            "department": { "id": self.appointment.to_string(), "name": tag },
            "claimant": { "name": tag, "email": null, "data": [{ "value": tag }] },
            "meeting": { "roomName": tag },
            "features": { "screenSharing": self.version % 2 == 1 },
        })
    }
}

/// A small selection.
pub const BRIEF: &str = "{ id reference status }";

/// A large selection.
pub const FULL: &str = "{ id reference status durationInMinutes endsAt phase interpreterLanguage \
    department { id name } claimant { name email data { value } } meeting { roomName } features { screenSharing } }";
