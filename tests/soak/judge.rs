//! Checks of every response against the true state.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    connection::Reply,
    documents::Documents,
    world::{APPOINTMENTS, Access, BRIEF, FULL, Provenance, World, access, id, is_revocable, listed},
};

/// Allowed age of a response beyond the gateway's bounds, for delays of the machine.
const SLACK: Duration = Duration::from_secs(2);

/// Maximum number of violations reported in full.
const TOLD: usize = 20;

/// Error codes of reads for upstream failures and overload.
const TROUBLE: [&str; 5] =
    ["RATE_LIMITED", "UPSTREAM_TIMEOUT", "UPSTREAM_UNAVAILABLE", "UPSTREAM_INVALID_RESPONSE", "OVERLOADED"];

/// Error codes of changes that were not applied and will not be.
const NOT_MADE: [&str; 5] = ["RATE_LIMITED", "UPSTREAM_TIMEOUT", "OVERLOADED", "FORBIDDEN", "NOT_FOUND"];

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Complete and correct.
    Right,
    /// Correct in part, with errors for the rest.
    Partial,
    /// An error caused by the upstream.
    Failed,
    /// Correctly rejected.
    Refused,
    /// Not accepted by a gateway that was shutting down.
    TurnedAway,
    /// Abandoned by the client.
    Left,
}

/// The selected fields of appointments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    Brief,
    Full,
}

/// A read that is wrong unless it began during an outage of the shared Redis.
pub struct Doubt {
    pub asked: Instant,
    pub what: String,
}

/// The start of a request, and the state known at that time.
pub struct Asked {
    token: usize,
    at: Instant,
    acknowledged: Vec<u64>,
    /// The earliest access epochs that a response may belong to.
    earliest: Vec<u64>,
    /// The epochs ended by a rejection.
    refused: Vec<Option<u64>>,
}

/// A fault of a response.
pub type Verdict<T> = Result<T, String>;

/// Compares responses with the true state, and counts.
pub struct Judge {
    world: Arc<World>,
    /// Maximum age of served data.
    max_age: Duration,
    /// Additional age of data marked as stale.
    stale: Duration,
    outcomes: Mutex<BTreeMap<(&'static str, Outcome), u64>>,
    codes: Mutex<BTreeMap<String, u64>>,
    violations: Mutex<Vec<String>>,
    /// In a fleet: how long a refusal may take to reach all replicas, and the reads that outages may explain.
    fleet: Option<(Duration, Mutex<Vec<Doubt>>)>,
    pub counts: Counts,
}

/// Counters besides the outcomes.
#[derive(Default)]
pub struct Counts {
    /// Wrong responses.
    pub wrong: AtomicU64,
    /// Accepted requests without a response.
    pub lost: AtomicU64,
    /// All other violations.
    pub other: AtomicU64,
    /// Reads that the upstream would receive without cache and single flight.
    pub reads_needed: AtomicU64,
    /// Requested changes.
    pub changes_needed: AtomicU64,
    /// Events of subscriptions.
    pub events: AtomicU64,
    /// Responses with stale marks.
    pub stale: AtomicU64,
}

impl Asked {
    pub fn now(world: &World, token: usize) -> Self {
        let all = 0..APPOINTMENTS;
        let acknowledged = all.clone().map(|appointment| world.acknowledged(appointment)).collect();
        let earliest = all.clone().map(|appointment| world.earliest_epoch(token, appointment)).collect();
        let refused = all.map(|appointment| world.refused(token, appointment)).collect();
        Self { token, at: Instant::now(), acknowledged, earliest, refused }
    }

    /// The start of the request.
    pub fn at(&self) -> Instant {
        self.at
    }
}

impl Selection {
    pub fn text(self) -> &'static str {
        match self {
            Self::Brief => BRIEF,
            Self::Full => FULL,
        }
    }

    fn of(self, provenance: Provenance) -> Value {
        match self {
            Self::Brief => provenance.brief(),
            Self::Full => provenance.full(),
        }
    }
}

impl Judge {
    /// A judge for a gateway that may serve data up to `max_age` old, and older by `stale` if marked.
    pub fn new(world: Arc<World>, max_age: Duration, stale: Duration) -> Self {
        Self {
            world,
            max_age: max_age + SLACK,
            stale,
            outcomes: Mutex::default(),
            codes: Mutex::default(),
            violations: Mutex::default(),
            fleet: None,
            counts: Counts::default(),
        }
    }

    /// The judge of a fleet: replicas may learn of a refusal `lease` later, and may not learn of changes during outages.
    pub fn of_fleet(self, lease: Duration) -> Self {
        Self { fleet: Some((lease, Mutex::default())), ..self }
    }

    /// The reads that are wrong unless they began during an outage.
    pub fn take_doubts(&self) -> Vec<Doubt> {
        let doubts = self.fleet.as_ref().map(|(_, doubts)| std::mem::take(&mut *doubts.lock().unwrap()));
        doubts.unwrap_or_default()
    }

    /// Reports old data. In a fleet an outage may explain it.
    fn old(&self, asked: &Asked, what: String) -> Verdict<()> {
        let Some((_, doubts)) = &self.fleet else { return Err(what) };
        doubts.lock().unwrap().push(Doubt { asked: asked.at, what });
        Ok(())
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    /// Counts the outcome of a request.
    pub fn count(&self, kind: &'static str, outcome: Outcome) {
        *self.outcomes.lock().unwrap().entry((kind, outcome)).or_default() += 1;
    }

    /// Counts a response by its verdict.
    pub fn settle(&self, kind: &'static str, reply: &Reply, verdict: Verdict<Outcome>) {
        self.counts.stale.fetch_add(u64::from(reply.body.get("extensions").is_some()), Ordering::Relaxed);
        for code in reply.codes() {
            *self.codes.lock().unwrap().entry(code.to_owned()).or_default() += 1;
        }
        match verdict {
            Ok(outcome) => self.count(kind, outcome),
            Err(why) => self.wrong(format!("{kind}: {why}: {} {}", reply.status, reply.body)),
        }
    }

    /// Records a wrong response.
    pub fn wrong(&self, what: String) {
        self.counts.wrong.fetch_add(1, Ordering::Relaxed);
        self.tell(format!("wrong answer: {what}"));
    }

    /// Records an accepted request without a response.
    pub fn lost(&self, what: String) {
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
        self.tell(format!("lost answer: {what}"));
    }

    /// Records a violation unless `is_so`.
    pub fn ensure(&self, is_so: bool, what: impl FnOnce() -> String) {
        if !is_so {
            self.counts.other.fetch_add(1, Ordering::Relaxed);
            self.tell(what());
        }
    }

    fn tell(&self, what: String) {
        let mut violations = self.violations.lock().unwrap();
        if violations.len() < TOLD {
            violations.push(what);
        }
    }

    pub fn outcomes(&self) -> BTreeMap<(&'static str, Outcome), u64> {
        self.outcomes.lock().unwrap().clone()
    }

    pub fn codes(&self) -> BTreeMap<String, u64> {
        self.codes.lock().unwrap().clone()
    }

    /// The first violations, and whether there were any.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    /// Checks the response to `appointment(id:)` or `appointmentsByIds(ids:)`, under the key `field`.
    pub fn appointments(
        &self,
        asked: &Asked,
        field: &str,
        appointments: &[usize],
        selection: Selection,
        reply: &Reply,
    ) -> Verdict<Outcome> {
        let mut answer = Answer::read(reply)?;
        let value = &reply.body["data"][field];
        for (index, appointment) in appointments.iter().enumerate() {
            let (value, path) = match field {
                "appointment" => (value, json!([field])),
                _ => (&value[index], json!([field, index])),
            };
            self.appointment(asked, *appointment, selection, value, &path, &mut answer)?;
        }
        if field != "appointment" && value.as_array().map(Vec::len) != Some(appointments.len()) {
            return Err("not as many answers as ids".to_owned());
        }
        answer.end(appointments.len())
    }

    /// Checks the response to `appointment(id:)` by the id of the swapped document, which must be one that was in use since
    /// the request was sent.
    pub fn swapped(
        &self,
        asked: &Asked,
        documents: &Documents,
        appointment: usize,
        reply: &Reply,
    ) -> Verdict<Outcome> {
        let possible = documents.possible(asked.at);
        if reply.codes() == ["PERSISTED_QUERY_NOT_FOUND"] {
            return match possible.contains(&None) {
                true if reply.status == 422 => Ok(Outcome::Refused),
                true => Err("the status is not 422".to_owned()),
                false => Err("there is a document".to_owned()),
            };
        }
        let value = &reply.body["data"]["appointment"];
        let is_full = value.get("features").is_some();
        let selection = if is_full { Selection::Full } else { Selection::Brief };
        let is_in_use = |document: &Option<Selection>| match document {
            Some(document) => value.is_null() || *document == selection,
            None => false,
        };
        if !possible.iter().any(is_in_use) {
            return Err(format!("the document is not in use; one of {possible:?} is"));
        }
        self.appointments(asked, "appointment", &[appointment], selection, reply)
    }

    /// Checks the response to `appointments(first:, after:)` from `start` on. Returns the outcome and the next cursor.
    pub fn list(
        &self,
        asked: &Asked,
        start: usize,
        first: usize,
        reply: &Reply,
    ) -> Verdict<(Outcome, Option<String>)> {
        let mut answer = Answer::read(reply)?;
        let list = &reply.body["data"]["appointments"];
        let path = json!(["appointments"]);
        if list.is_null() {
            answer.trouble(&path)?;
            return Ok((answer.end(1)?, None));
        }
        answer.is_stale = answer.stale.remove(&path.to_string()).is_some();
        let all = listed(asked.token);
        let expected = all.iter().skip(start).take(first);
        let nodes = list["nodes"].as_array().ok_or("no nodes")?;
        if nodes.len() != expected.len() {
            return Err(format!("{} appointments instead of {}", nodes.len(), expected.len()));
        }
        for (index, (node, appointment)) in nodes.iter().zip(expected).enumerate() {
            let path = json!(["appointments", "nodes", index]);
            self.appointment(asked, *appointment, Selection::Brief, node, &path, &mut answer)?;
        }
        let has_next = start + first < all.len();
        let info = json!({ "hasNextPage": has_next, "endCursor": list["pageInfo"]["endCursor"] });
        if list["totalCount"] != json!(all.len()) || list["pageInfo"] != info {
            return Err("the window lies elsewhere".to_owned());
        }
        let cursor = info["endCursor"].as_str().map(str::to_owned);
        Ok((answer.end(1)?, cursor.filter(|_| has_next)))
    }

    /// Checks the response to change number `number` of an appointment, under the key `field`.
    pub fn change(
        &self,
        asked: &Asked,
        field: &str,
        appointment: usize,
        number: u64,
        reply: &Reply,
    ) -> Verdict<Outcome> {
        let mut answer = Answer::read(reply)?;
        let payload = &reply.body["data"][field];
        let made = self.world.change(number).version;
        if payload.is_null() {
            let path = json!([field]);
            let code = answer.errors.remove(&path.to_string()).ok_or("no payload, and no error")?;
            let is_known = TROUBLE.contains(&code.as_str()) || code == "OUTCOME_UNKNOWN";
            let is_access = match access(asked.token, appointment) {
                Access::Forbidden => code == "FORBIDDEN",
                Access::Absent => code == "NOT_FOUND",
                Access::Visible => self.is_revoked(asked, appointment, &code),
            };
            if !is_known && !is_access {
                return Err(format!("{code} makes no sense here"));
            }
            if made.is_some() && NOT_MADE.contains(&code.as_str()) {
                return Err(format!("it was made, and {code} says that it was not"));
            }
            answer.troubles += usize::from(is_known);
            return answer.end(1);
        }
        let Some(version) = made else { return Err("it was not made".to_owned()) };
        if payload["userErrors"] != json!([]) {
            return Err("it was made, and not accepted".to_owned());
        }
        let epoch = provenance(&payload["appointment"]).map_or(0, |from| from.epoch);
        let expected = Provenance { token: asked.token, appointment, version, epoch }.brief();
        // The upstream need not show the result of a change.
        if !payload["appointment"].is_null() {
            let path = vec![json!(field), json!("appointment")];
            answer.compare(&expected, &payload["appointment"], path)?;
        }
        self.world.acknowledge(appointment, version);
        answer.end(1)
    }

    /// Checks an event of a subscription, and returns the version that it shows, or none for an expected end.
    pub fn event(&self, asked: &Asked, appointment: usize, seen: u64, body: &Value) -> Verdict<Option<u64>> {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        let mut answer = Answer::of(body)?;
        let value = &body["data"]["appointmentChanged"];
        let path = json!(["appointmentChanged"]);
        if value.is_null() {
            let code = answer.errors.remove(&path.to_string()).ok_or("no appointment, and no error")?;
            let is_final = match access(asked.token, appointment) {
                Access::Forbidden => code == "FORBIDDEN",
                Access::Absent => code == "NOT_FOUND",
                // More requests or subscriptions than the limits allow.
                Access::Visible => code == "OVERLOADED" || self.is_revoked(asked, appointment, &code),
            };
            return if is_final { Ok(None) } else { Err(format!("{code} makes no sense here")) };
        }
        let Some(version) = self.look(asked, appointment, Selection::Brief, value, &path, &mut answer)?
        else {
            // It contains no version.
            return Ok(Some(seen));
        };
        answer.end(1)?;
        if version < seen {
            return Err(format!("version {version} after {seen}"));
        }
        Ok(Some(version))
    }

    fn appointment(
        &self,
        asked: &Asked,
        appointment: usize,
        selection: Selection,
        value: &Value,
        path: &Value,
        answer: &mut Answer,
    ) -> Verdict<()> {
        let access = access(asked.token, appointment);
        if value.is_null() {
            return match answer.errors.remove(&path.to_string()) {
                None if access == Access::Absent => Ok(()),
                None => Err(format!("{} is missing without an error", id(appointment))),
                Some(code) if TROUBLE.contains(&code.as_str()) => {
                    answer.troubles += 1;
                    Ok(())
                }
                Some(code) if code == "FORBIDDEN" && access == Access::Forbidden => Ok(()),
                Some(code) if self.is_revoked(asked, appointment, &code) => Ok(()),
                Some(code) => Err(format!("{code} makes no sense for {}", id(appointment))),
            };
        }
        let version = self.look(asked, appointment, selection, value, path, answer)?;
        let superseded = version.and_then(|version| self.world.superseded(appointment, version));
        let is_stale = answer.stale.remove(&path.to_string()).is_some() || answer.is_stale;
        let max_age = if is_stale { self.max_age + self.stale } else { self.max_age };
        match superseded {
            Some(superseded) if superseded + max_age < asked.at => {
                Err(format!("{} is {:?} out of date", id(appointment), asked.at - superseded))
            }
            _ => Ok(()),
        }
    }

    /// Whether `code` reports a revoked access, which is recorded then.
    fn is_revoked(&self, asked: &Asked, appointment: usize, code: &str) -> bool {
        let is_revoked = code == "FORBIDDEN" && is_revocable(asked.token, appointment);
        if is_revoked {
            let (world, token, earliest) = (self.world.clone(), asked.token, asked.earliest[appointment]);
            match self.fleet {
                None => world.refuse(token, appointment, earliest),
                Some((lease, _)) => drop(tokio::spawn(async move {
                    sleep(lease).await;
                    world.refuse(token, appointment, earliest);
                })),
            }
        }
        is_revoked
    }

    /// Compares an appointment with the expected one of the version that it names.
    fn look(
        &self,
        asked: &Asked,
        appointment: usize,
        selection: Selection,
        value: &Value,
        path: &Value,
        answer: &mut Answer,
    ) -> Verdict<Option<u64>> {
        if access(asked.token, appointment) != Access::Visible {
            return Err(format!("{} is not for this caller", id(appointment)));
        }
        let Some(from) = provenance(value) else {
            return Err(format!("nothing says where {} comes from", id(appointment)));
        };
        if from.token != asked.token {
            return Err(format!("{} is what caller {} got", id(appointment), from.token));
        }
        if from.appointment != appointment {
            return Err(format!("it is {} instead of {}", id(from.appointment), id(appointment)));
        }
        let least = asked.acknowledged[appointment];
        if from.version < least {
            self.old(
                asked,
                format!("{} is older than the change that made version {least}", id(appointment)),
            )?;
        }
        // The list still shows an appointment whose access is revoked, in odd epochs: one from the epoch of the
        // rejection may be newer than the rejection.
        let is_before =
            |refused| from.epoch < refused || from.epoch == refused && from.epoch.is_multiple_of(2);
        if asked.refused[appointment].is_some_and(is_before) {
            self.old(asked, format!("{} is from before a refusal", id(appointment)))?;
        }
        if from.version > self.world.version(appointment) {
            return Err(format!("{} has no version {} yet", id(appointment), from.version));
        }
        let path = path.as_array().cloned().unwrap_or_default();
        answer.compare(&selection.of(from), value, path)?;
        Ok(Some(from.version))
    }
}

/// The origin of an appointment, or none if no text names it.
fn provenance(value: &Value) -> Option<Provenance> {
    ["reference", "status"].iter().find_map(|name| Provenance::read(value[name].as_str()?))
}

/// A response during its check: each error must belong to a missing value.
struct Answer {
    /// Codes by path.
    errors: BTreeMap<String, String>,
    /// Ages in seconds, by path.
    stale: BTreeMap<String, u64>,
    /// Whether the list is complete.
    is_stale: bool,
    /// The number of requested items that are missing because of the upstream.
    troubles: usize,
    /// The number of missing fields in the other items.
    gaps: usize,
}

impl Answer {
    /// Reads a response over HTTP, as `application/graphql-response+json`.
    fn read(reply: &Reply) -> Verdict<Self> {
        let status = if reply.body.get("errors").is_some() { 294 } else { 200 };
        if reply.status != status {
            return Err(format!("the status is not {status}"));
        }
        Self::of(&reply.body)
    }

    fn of(body: &Value) -> Verdict<Self> {
        let mut errors = BTreeMap::new();
        for error in body["errors"].as_array().into_iter().flatten() {
            let code = error["extensions"]["code"].as_str().ok_or("an error without a code")?;
            if error["message"].as_str().is_none_or(str::is_empty) {
                return Err("an error without a message".to_owned());
            }
            if errors.insert(error["path"].to_string(), code.to_owned()).is_some() {
                return Err("two errors at one place".to_owned());
            }
        }
        if body.get("data").is_none() {
            return Err("no data".to_owned());
        }
        let mut stale = BTreeMap::new();
        for place in body["extensions"]["stale"].as_array().into_iter().flatten() {
            let age = place["ageSeconds"].as_u64().ok_or("something stale of no age")?;
            stale.insert(place["path"].to_string(), age);
        }
        if body.get("extensions").is_some() && stale.is_empty() {
            return Err("extensions that say nothing".to_owned());
        }
        Ok(Self { errors, stale, is_stale: false, troubles: 0, gaps: 0 })
    }

    /// Removes the error at `path`, which must be one that the upstream can cause.
    fn trouble(&mut self, path: &Value) -> Verdict<()> {
        let code = self.errors.remove(&path.to_string()).ok_or("nothing, and no error")?;
        self.troubles += 1;
        if TROUBLE.contains(&code.as_str()) { Ok(()) } else { Err(format!("{code} makes no sense here")) }
    }

    /// Checks that every field is correct, or null with an error at its path.
    fn compare(&mut self, expected: &Value, value: &Value, path: Vec<Value>) -> Verdict<()> {
        match (expected, value) {
            (Value::Object(expected), Value::Object(value)) => {
                if !expected.keys().eq(value.keys()) && expected.len() != value.len() {
                    return Err(format!("not the fields that were asked for at {}", json!(path)));
                }
                for (name, expected) in expected {
                    let path = [path.clone(), vec![json!(name)]].concat();
                    self.compare(expected, value.get(name).unwrap_or(&Value::Null), path)?;
                }
                Ok(())
            }
            (expected, value) if expected == value => Ok(()),
            (_, Value::Null) => {
                self.gaps += 1;
                let code = self.errors.remove(&json!(path).to_string());
                match code.as_deref() {
                    Some("UPSTREAM_INVALID_RESPONSE") => Ok(()),
                    _ => Err(format!("nothing at {}, and {code:?}", json!(path))),
                }
            }
            _ => Err(format!("{value} instead of {expected} at {}", json!(path))),
        }
    }

    /// The outcome, after all requested `things` were checked.
    fn end(self, things: usize) -> Verdict<Outcome> {
        if !self.errors.is_empty() {
            return Err(format!("errors for what was served: {:?}", self.errors));
        }
        if !self.stale.is_empty() {
            return Err(format!("stale what was not served, or may not be: {:?}", self.stale));
        }
        Ok(match self.troubles {
            0 if self.gaps == 0 => Outcome::Right,
            troubles if troubles == things => Outcome::Failed,
            _ => Outcome::Partial,
        })
    }
}
