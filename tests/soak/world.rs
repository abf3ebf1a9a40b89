//! What is true: the appointments, who may see which, and each version that each of them has had.
//!
//! Every text of an appointment names whose it is, which, and in which version (`t2.a17.v5.e0`), so that an answer shows
//! where it comes from.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use uuid::Uuid;

/// How many callers there are.
pub const TOKENS: usize = 6;

/// How many appointments there are. Few, so that callers meet at them.
pub const APPOINTMENTS: usize = 60;

/// All ids begin like this; the number of the appointment follows.
const FIRST_ID: u128 = 0x0000_50a4_0000_4000_8000_0000_0000_0000;

/// What a caller may have of an appointment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Visible,
    Forbidden,
    Absent,
}

/// Where a text of an appointment comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance {
    pub token: usize,
    pub appointment: usize,
    pub version: u64,
    /// The epoch of the caller's access.
    pub epoch: u64,
}

/// How long after its end a call to the far side may still be on its way through the gateway.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// The access of one caller to one appointment, where the far side takes it away and gives it back.
#[derive(Default)]
struct Grant {
    /// Even while the access is granted. Each change of it begins the next.
    epoch: u64,
    /// The epochs in which calls to the far side began, by number, with the ends of the calls.
    calls: HashMap<u64, (u64, Option<Instant>)>,
    /// The latest epoch that a client was told of as refused, or one before that.
    refused: Option<u64>,
}

/// A call to the far side, until it is dropped.
pub struct GrantedCall<'a> {
    world: &'a World,
    pair: (usize, usize),
    number: u64,
}

/// The appointments and what became of them.
pub struct World {
    appointments: Vec<Mutex<Appointment>>,
    /// By the number of the change: how often the far side was asked for it, and the version that it made.
    changes: Mutex<HashMap<u64, Change>>,
    numbers: AtomicU64,
    /// By caller and appointment.
    grants: Mutex<HashMap<(usize, usize), Grant>>,
}

struct Appointment {
    /// When each version came to be.
    since: Vec<Instant>,
    /// The latest version that some client was told of as its change.
    acknowledged: u64,
}

/// What became of a change at the far side.
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

    /// The version that is current.
    pub fn version(&self, appointment: usize) -> u64 {
        self.appointments[appointment].lock().unwrap().since.len() as u64 - 1
    }

    /// When `version` was followed by another; none where it is current, or has never been.
    pub fn superseded(&self, appointment: usize, version: u64) -> Option<Instant> {
        self.appointments[appointment].lock().unwrap().since.get(version as usize + 1).copied()
    }

    /// The version that nobody who asks from now on may be behind: somebody was told that it is made.
    pub fn acknowledged(&self, appointment: usize) -> u64 {
        self.appointments[appointment].lock().unwrap().acknowledged
    }

    /// Notes that a client was told that its change made `version`.
    pub fn acknowledge(&self, appointment: usize, version: u64) {
        let mut appointment = self.appointments[appointment].lock().unwrap();
        appointment.acknowledged = appointment.acknowledged.max(version);
    }

    /// A number for a change, by which it is known wherever it turns up.
    pub fn new_change(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes that the far side was asked for a change, whatever comes of it.
    pub fn asked_for(&self, change: u64) {
        self.changes.lock().unwrap().entry(change).or_default().asked += 1;
    }

    /// Makes a change, and returns the version that came of it.
    pub fn make(&self, change: u64, appointment: usize) -> u64 {
        let version = {
            let mut appointment = self.appointments[appointment].lock().unwrap();
            appointment.since.push(Instant::now());
            appointment.since.len() as u64 - 1
        };
        self.changes.lock().unwrap().entry(change).or_default().version = Some(version);
        version
    }

    /// What became of a change so far.
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

    /// What `token` may have of an appointment in an epoch.
    pub const fn access(token: usize, appointment: usize, epoch: u64) -> Access {
        if epoch.is_multiple_of(2) { access(token, appointment) } else { Access::Forbidden }
    }

    /// Takes the access of a caller to one of its appointments away, or gives it back.
    pub fn turn(&self, rng: &mut fastrand::Rng) {
        let (token, all) = (rng.usize(0..TOKENS), (0..APPOINTMENTS));
        let all = all.filter(|appointment| is_revocable(token, *appointment)).collect::<Vec<_>>();
        let appointment = all[rng.usize(0..all.len())];
        self.grants().entry((token, appointment)).or_default().epoch += 1;
    }

    /// Gives every access back.
    pub fn grant_all(&self) {
        for grant in self.grants().values_mut() {
            grant.epoch += grant.epoch % 2;
        }
    }

    /// Notes that a call of `token` to an appointment begins at the far side.
    pub fn call(&self, token: usize, appointment: usize) -> GrantedCall<'_> {
        let (pair, number) = ((token, appointment), self.new_change());
        let mut grants = self.grants();
        let grant = grants.entry(pair).or_default();
        grant.calls.retain(|_, (_, end)| end.is_none_or(|end| end.elapsed() < UNDER_WAY));
        grant.calls.insert(number, (grant.epoch, None));
        GrantedCall { world: self, pair, number }
    }

    /// The earliest epoch that an answer to a request from now on can be of.
    pub fn earliest_epoch(&self, token: usize, appointment: usize) -> u64 {
        let grants = self.grants();
        let Some(grant) = grants.get(&(token, appointment)) else { return 0 };
        let calls = grant.calls.values();
        let calls = calls.filter(|(_, end)| end.is_none_or(|end| end.elapsed() < UNDER_WAY));
        calls.map(|(epoch, _)| *epoch).min().unwrap_or(grant.epoch).min(grant.epoch)
    }

    /// Notes that a client was told of a refusal that is of `epoch` or later.
    pub fn refuse(&self, token: usize, appointment: usize, epoch: u64) {
        let mut grants = self.grants();
        let refused = &mut grants.entry((token, appointment)).or_default().refused;
        *refused = (*refused).max(Some(epoch));
    }

    /// The epoch up to which nothing may be served any more to requests from now on, since a client was told of a
    /// refusal.
    pub fn refused(&self, token: usize, appointment: usize) -> Option<u64> {
        self.grants().get(&(token, appointment)).and_then(|grant| grant.refused)
    }

    /// How many changes the far side was asked for, and how many of them more than once.
    pub fn changes(&self) -> (usize, usize) {
        let changes = self.changes.lock().unwrap();
        (changes.len(), changes.values().filter(|change| change.asked > 1).count())
    }
}

/// What `token` may have of an appointment, as long as it is not [revoked](is_revocable): always the same.
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

/// Whether the far side takes `token`'s access to an appointment away and gives it back. Its list shows it all the same.
pub const fn is_revocable(token: usize, appointment: usize) -> bool {
    matches!(access(token, appointment), Access::Visible) && (token + appointment) % 10 == 3
}

/// The list as `token` sees it.
pub fn listed(token: usize) -> Vec<usize> {
    (0..APPOINTMENTS).filter(|appointment| access(token, *appointment) == Access::Visible).collect()
}

pub fn token(number: usize) -> String {
    format!("soak-token-{number}")
}

/// The number of a token; none for one that nobody has.
pub fn token_number(text: &str) -> Option<usize> {
    text.strip_prefix("soak-token-")?.parse().ok().filter(|number| *number < TOKENS)
}

pub fn id(appointment: usize) -> String {
    Uuid::from_u128(FIRST_ID + appointment as u128).to_string()
}

/// The number of the appointment that has this id.
pub fn appointment_number(id: &str) -> Option<usize> {
    let number = Uuid::parse_str(id).ok()?.as_u128().checked_sub(FIRST_ID)?;
    usize::try_from(number).ok().filter(|number| *number < APPOINTMENTS)
}

impl Provenance {
    /// The text that says so.
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

    /// The appointment as the far side sends it. It is in session, so that it is asked for often while it is watched.
    pub fn upstream(self) -> Value {
        let (tag, minutes) = (self.tag(), self.version % 1000 + 1);
        json!({
            "id": id(self.appointment),
            "reference": tag,
            "appointment_at": "2031-03-04T09:30:00.000Z",
            "duration_in_minutes": minutes,
            "is_interpreter_needed": true,
            "interpreter_language": tag,
            "status": tag,
            "url": null,
            "created_at": "2031-03-01T09:30:00.000Z",
            "cancelled_at": null,
            "cancellation_reason": null,
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
            "features_call_recording_enable": null,
            "features_breakout_room_enable": null,
            "features_webcam_access_agent_enable": null,
            "features_webcam_access_claimant_enable": null,
            "features_webcam_background_blurring_enable": null,
            "features_microphone_access_enable": null,
            "features_screen_sharing_enable": self.version % 2 == 1,
            "features_messages_chat_enable": null,
            "features_participant_list_enable": null,
            "features_bandwidth": null,
            "use_custom_post_call_redirect": null,
            "custom_user_post_call_redirect_url": null,
            "custom_agent_post_call_redirect_url": null,
        })
    }

    /// The appointment as the gateway is to serve it to who asks for [`BRIEF`].
    pub fn brief(self) -> Value {
        json!({ "id": id(self.appointment), "reference": self.tag(), "status": self.tag() })
    }

    /// The appointment as the gateway is to serve it to who asks for [`FULL`].
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

/// A large one.
pub const FULL: &str = "{ id reference status durationInMinutes endsAt phase interpreterLanguage \
    department { id name } claimant { name email data { value } } meeting { roomName } features { screenSharing } }";
