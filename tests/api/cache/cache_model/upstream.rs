//! The upstream of the model test: it holds back every response until released, and records the order of all events.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::json;
use tokio::sync::watch;

use crate::support::{Call, Gate, List, Pagination, UpstreamResponse, id};

/// How many appointments there are for a case.
pub const IDS: usize = 2;

/// The subject of a call: an appointment of the case, or its list. A change of the list is a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    One(usize),
    List,
}

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 200, with an appointment or a page that the call's number tells from every other.
    Shown,
    /// The same, with `Cache-Control: no-store`.
    ShownOnce,
    /// 304, if the call is conditional; otherwise as `Shown`.
    Unchanged,
    /// Another status, without data. 204 to a change says that it was made.
    Status(u16),
    /// 200, with another appointment.
    WrongId,
    /// 200, with JSON that is no appointment and no list.
    WrongJson,
    /// 200, without JSON.
    NotJson,
    /// A broken connection instead of an answer.
    Cut,
    /// A broken connection within the answer.
    Truncated,
}

/// The meaning of a response to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    Data,
    /// There is no such appointment.
    Absent,
    /// The credential is not accepted for anything.
    Rejected,
    /// Any other definite answer: the caller has no claim to older copies of the subject.
    Definite,
    /// The upstream cannot say.
    Outage,
}

/// The effect of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Applied,
    Unknown,
    None,
}

/// The effect of an event on earlier copies and calls of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ends {
    No,
    /// The rules leave it open.
    Perhaps,
    Yes,
}

impl Outcome {
    pub const OUTAGES: [Self; 6] = [
        Self::Status(408),
        Self::Status(429),
        Self::Status(500),
        Self::Status(503),
        Self::Cut,
        Self::Truncated,
    ];

    pub const REFUSALS: [Self; 4] =
        [Self::Status(401), Self::Status(403), Self::Status(404), Self::Status(410)];

    pub const UNUSABLE: [Self; 8] = [
        Self::Status(204),
        Self::Status(302),
        Self::Status(400),
        Self::Status(423),
        Self::Status(451),
        Self::WrongId,
        Self::WrongJson,
        Self::NotJson,
    ];

    /// The answers to changes, by the numbers that tell the far side which of them to give.
    pub const OF_CHANGES: [Self; 16] = [
        Self::Shown,
        Self::Status(204),
        Self::Cut,
        Self::Truncated,
        Self::NotJson,
        Self::Status(302),
        Self::Status(408),
        Self::Status(500),
        Self::Status(503),
        Self::Status(401),
        Self::Status(403),
        Self::Status(404),
        Self::Status(409),
        Self::Status(422),
        Self::Status(423),
        Self::Status(429),
    ];

    /// The meaning as a response to a read of `subject`.
    pub fn meaning(self, subject: Subject) -> Meaning {
        match self {
            Self::Shown | Self::ShownOnce | Self::Unchanged => Meaning::Data,
            Self::Status(401) => Meaning::Rejected,
            Self::Status(404 | 410) if subject != Subject::List => Meaning::Absent,
            Self::Status(408 | 429 | 500..) | Self::Cut | Self::Truncated => Meaning::Outage,
            Self::Status(_) | Self::WrongId | Self::WrongJson | Self::NotJson => Meaning::Definite,
        }
    }

    /// Its effect as an answer to a change.
    pub fn effect(self) -> Effect {
        match self {
            Self::Shown | Self::Status(204) => Effect::Applied,
            Self::Status(400..=407 | 409..=499) => Effect::None,
            _ => Effect::Unknown,
        }
    }

    /// The codes of which a client is told one, where it is told no data; none where there is data, or none is there.
    pub fn codes(self, subject: Subject) -> &'static [&'static str] {
        match (self.meaning(subject), self) {
            (Meaning::Data | Meaning::Absent, _) => &[],
            (Meaning::Rejected, _) => &["UNAUTHENTICATED"],
            (Meaning::Definite, Self::Status(403)) => &["FORBIDDEN"],
            (Meaning::Definite, _) => &["UPSTREAM_INVALID_RESPONSE"],
            (Meaning::Outage, Self::Status(429)) => &["RATE_LIMITED"],
            (Meaning::Outage, Self::Status(408)) => {
                &["UPSTREAM_TIMEOUT", "UPSTREAM_UNAVAILABLE", "UPSTREAM_INVALID_RESPONSE"]
            }
            (Meaning::Outage, _) => &["UPSTREAM_UNAVAILABLE"],
        }
    }

    /// The code by which it ends a subscription; none where it is waited out.
    pub fn ends_subscription_with(self) -> Option<&'static str> {
        match self {
            Self::Status(401) => Some("UNAUTHENTICATED"),
            Self::Status(403) => Some("FORBIDDEN"),
            Self::Status(404 | 410) => Some("NOT_FOUND"),
            _ => None,
        }
    }
}

/// A call and the times of its events, as counts of events.
pub struct Made {
    pub scope: String,
    pub subject: Subject,
    pub is_change: bool,
    pub outcome: Outcome,
    /// The call whose data a 304 confirms.
    pub renews: Option<usize>,
    /// Whether the credential and the answer let it be cached.
    pub may_be_kept: bool,
    pub received: u64,
    /// When its answer was let go.
    pub released: Option<u64>,
    /// From when on it is certain that the gateway has done all that it does with the answer.
    pub settled: Option<u64>,
    /// How many clients are known to wait for it.
    pub waiting: usize,
    gate: Gate,
}

impl Made {
    /// Whether it waits for its answer.
    pub fn is_held(&self) -> bool {
        self.released.is_none() && self.gate.is_awaited()
    }

    /// Whether it is to change `subject`, or to change something that shows in it. A create shows in the list alone.
    pub fn is_to_change(&self, subject: Subject) -> bool {
        self.is_change && (self.subject == subject || subject == Subject::List)
    }

    /// Whether it changed something, or may have.
    pub fn has_changed(&self) -> bool {
        self.is_change && self.outcome.effect() != Effect::None
    }

    /// Whether its outcome is unknown.
    pub fn is_in_doubt(&self) -> bool {
        self.is_change && self.outcome.effect() == Effect::Unknown
    }

    /// Whether its answer refuses older copies of `subject` to its caller.
    pub fn refuses(&self, subject: Subject) -> Ends {
        let is_refusal = if self.is_change {
            match self.outcome {
                Outcome::Status(401) => return Ends::Yes,
                Outcome::Status(403 | 404 | 409) => self.subject != Subject::List,
                _ => return Ends::No,
            }
        } else {
            match self.outcome.meaning(self.subject) {
                Meaning::Rejected => return Ends::Yes,
                Meaning::Absent | Meaning::Definite => true,
                Meaning::Data | Meaning::Outage => return Ends::No,
            }
        };
        let is_shown = self.subject == subject || subject == Subject::List;
        if is_refusal && is_shown { Ends::Yes } else { Ends::Perhaps }
    }
}

/// Whether a new read joins a call in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// There is none, or none that it may see the result of.
    No,
    /// The rules leave it open.
    Perhaps(usize),
    Yes(usize),
}

/// Everything that happened in a case.
#[derive(Default)]
pub struct Log {
    now: u64,
    pub calls: Vec<Made>,
    /// The waits after which everything cached before is past its time.
    pub pauses: Vec<(u64, u64)>,
    /// The ids that were asked for only to see that an operation has begun.
    probes: Vec<String>,
    /// Whether a change is on its way: the gateway counts it as sent, and the far side has not received it.
    pub is_changing: bool,
    /// The first event that must not happen.
    pub violation: Option<String>,
    modes: HashMap<(String, Subject), Outcome>,
}

impl Log {
    /// An event.
    pub fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    pub fn set_mode(&mut self, scope: &str, subject: Subject, outcome: Outcome) {
        self.modes.insert((scope.to_owned(), subject), outcome);
    }

    pub fn is_probed(&self, probe: &str) -> bool {
        self.probes.iter().any(|it| it == probe)
    }

    /// The calls that `scope` made to read `subject`.
    pub fn reads<'l>(&'l self, scope: &'l str, subject: Subject) -> impl Iterator<Item = usize> + use<'l> {
        let is_of = move |n: &usize| {
            let call = &self.calls[*n];
            !call.is_change && call.scope == scope && call.subject == subject
        };
        (0..self.calls.len()).filter(is_of)
    }

    /// The call that brought the data of call `n`, and those that have renewed it.
    pub fn copies(&self, n: usize) -> impl Iterator<Item = usize> + use<'_> {
        let renewals = (0..self.calls.len()).filter(move |it| self.calls[*it].renews == Some(n));
        std::iter::once(n).chain(renewals)
    }

    /// Why a call for `subject` by `scope` must not be conditional on the data of call `n`, if that is so.
    fn condition_fault(&self, scope: &str, subject: Subject, n: usize) -> Option<String> {
        let Some(first) = self.calls.get(n) else { return Some(format!("no call {n} was made")) };
        if first.scope != scope || first.subject != subject || first.is_change {
            return Some(format!("call {n} was {:?} as {}", first.subject, first.scope));
        }
        let ends = |copy: &Made, event: &Made| {
            let Some(answered) = event.released else { return false };
            let is_changed = event.is_to_change(subject)
                && event.has_changed()
                && (answered > copy.received || event.is_in_doubt());
            let is_refused = event.scope == scope
                && event.settled.is_some()
                && event.refuses(subject) == Ends::Yes
                && copy.settled.is_some_and(|at| at < answered);
            is_changed || is_refused
        };
        let is_valid = |copy: usize| {
            let copy = &self.calls[copy];
            let is_there = copy.released.is_some() && copy.outcome != Outcome::ShownOnce;
            is_there && !self.calls.iter().any(|event| ends(copy, event))
        };
        let is_any_valid = self.copies(n).any(is_valid);
        (!is_any_valid).then(|| format!("the copies of call {n} have ended"))
    }

    /// The call by which `scope` reads `subject` that was received after `since`.
    pub fn read_since(&self, scope: &str, subject: Subject, since: u64) -> Option<usize> {
        self.reads(scope, subject).find(|n| self.calls[*n].received > since)
    }

    /// The call that a read of `subject` by `scope` joins now.
    pub fn join(&self, scope: &str, subject: Subject) -> Join {
        let Some(call) = self.reads(scope, subject).filter(|n| self.calls[*n].is_held()).last() else {
            return Join::No;
        };
        match self.calls.iter().map(|event| self.ends_call(event, call)).max() {
            None | Some(Ends::No) => Join::Yes(call),
            Some(Ends::Perhaps) => Join::Perhaps(call),
            Some(Ends::Yes) => Join::No,
        }
    }

    /// Whether `event` keeps later reads from joining `call`: a change that was sent or answered since, or a refusal.
    fn ends_call(&self, event: &Made, call: usize) -> Ends {
        let Made { scope, subject, received: since, .. } = &self.calls[call];
        let is_answered_since = event.released.is_some_and(|at| at > *since);
        let is_own = event.scope == *scope && is_answered_since;
        let refusal = if is_own { event.refuses(*subject) } else { Ends::No };
        if !event.is_to_change(*subject) {
            return refusal;
        }
        let is_open = event.released.is_none() && event.received > *since;
        let is_news = event.received > *since || is_answered_since;
        if is_open || is_news && event.has_changed() {
            Ends::Yes
        } else if is_news {
            // It changed nothing, which the gateway learned later.
            refusal.max(Ends::Perhaps)
        } else {
            refusal
        }
    }
}

/// The far side of one case.
#[derive(Clone)]
pub struct ModelUpstream {
    log: Arc<Mutex<Log>>,
    changed: watch::Sender<()>,
    case: usize,
}

impl ModelUpstream {
    pub fn of(case: usize) -> Self {
        Self { log: Arc::default(), changed: watch::Sender::new(()), case }
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        // A panic under the lock is a finding.
        self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notified of every call.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The id of one of the case's appointments.
    pub fn id(&self, n: usize) -> String {
        id(self.case * 100 + n)
    }

    /// The id of the appointment that a call has created.
    pub fn created(&self, call: usize) -> String {
        self.id(50 + call)
    }

    /// An id that is answered at once, and asked for once.
    pub fn probe(&self, n: usize) -> String {
        id(1_000_000_000 + self.case * 10_000 + n)
    }

    /// Lets go of the answer to a call.
    pub fn release(&self, call: usize) {
        let mut log = self.log();
        let now = log.tick();
        log.calls[call].released = Some(now);
        log.calls[call].gate.open();
    }

    /// The answer to `call`, once it is released.
    pub fn answer(&self, call: &Call) -> UpstreamResponse {
        let answer = self.received(call);
        self.changed.send_replace(());
        answer
    }

    fn received(&self, call: &Call) -> UpstreamResponse {
        let mut log = self.log();
        let path_id = call.path.split('/').nth(4).map(|id| id.split('?').next().unwrap_or_default());
        let subject = match path_id {
            None => Subject::List,
            Some(id) => match (0..IDS).find(|n| self.id(*n) == id) {
                Some(n) => Subject::One(n),
                None => {
                    log.probes.push(call.id.clone());
                    return call.appointment();
                }
            },
        };
        let scope = call.token().to_owned();
        let is_change = call.is_change();
        let outcome = if is_change {
            let body = call.json();
            let number = ["status", "reference"].iter().find_map(|name| body[name].as_str()?.parse().ok());
            Outcome::OF_CHANGES[number.unwrap_or(usize::MAX)]
        } else {
            log.modes.get(&(scope.clone(), subject)).copied().unwrap_or(Outcome::Shown)
        };
        let condition = call.header("if-none-match").and_then(|tag| tag.trim_matches('"').parse().ok());
        if let Some(fault) = condition.and_then(|n| log.condition_fault(&scope, subject, n)) {
            log.violation = Some(format!("{subject:?} was asked for with a condition, but {fault}"));
        }
        let renews = condition.filter(|_| outcome == Outcome::Unchanged);
        let outcome = match outcome {
            Outcome::Unchanged if renews.is_none() => Outcome::Shown,
            outcome => outcome,
        };
        if !is_change
            && !log.is_changing
            && let Join::Yes(first) = log.join(&scope, subject)
            && log.calls[first].waiting > 0
        {
            log.violation =
                Some(format!("{subject:?} was asked for while call {first} was under way for it"));
        }
        let received = log.tick();
        let number = log.calls.len();
        let gate = Gate::shut();
        // Nothing fetched with a token that has expired may be cached, and a 410 is no absence of the API's own.
        let may_be_kept =
            !matches!(outcome, Outcome::ShownOnce | Outcome::Status(410)) && !scope.contains('.');
        log.calls.push(Made {
            scope: scope.clone(),
            subject,
            is_change,
            outcome,
            renews,
            may_be_kept,
            received,
            released: None,
            settled: None,
            waiting: 0,
            gate: gate.clone(),
        });
        self.made(call, outcome, subject, number).once(&gate)
    }

    /// The answer with `outcome` to call `number`.
    fn made(&self, call: &Call, outcome: Outcome, subject: Subject, number: usize) -> UpstreamResponse {
        let token = call.token();
        let marked = |id: String| json!({ "id": id, "reference": token, "status": number.to_string() });
        let shown = || match subject {
            Subject::One(n) => UpstreamResponse::json(200, &json!({ "data": marked(self.id(n)) })),
            Subject::List if call.is_change() => {
                UpstreamResponse::json(201, &json!({ "data": marked(self.created(number)) }))
            }
            Subject::List => List::of(IDS, Pagination::Meta).page_of(call, |n| marked(self.id(n))),
        };
        match outcome {
            Outcome::Shown => shown().with("ETag", &format!("\"{number}\"")),
            Outcome::ShownOnce => {
                shown().with("ETag", &format!("\"{number}\"")).with("Cache-Control", "no-store")
            }
            Outcome::Unchanged => UpstreamResponse::not_modified(),
            Outcome::Status(204) => UpstreamResponse::text(204, "text/plain", ""),
            Outcome::Status(422) => UpstreamResponse::json(422, &json!({ "errors": { "status": ["no"] } })),
            Outcome::Status(status) => UpstreamResponse::status(status),
            Outcome::WrongId => {
                let other = if subject == Subject::One(0) { 1 } else { 0 };
                UpstreamResponse::json(200, &json!({ "data": marked(self.id(other)) }))
            }
            Outcome::WrongJson => {
                UpstreamResponse::json(200, &json!({ "data": { "status": number.to_string() } }))
            }
            Outcome::NotJson => UpstreamResponse::text(200, "application/json", "<html>"),
            Outcome::Cut => UpstreamResponse::cut(),
            Outcome::Truncated => shown().short_of(3),
        }
    }
}
