//! The far side of the model: answers as it is told to, holds every answer back until it is told to let go of it, and
//! writes down in which order everything happened.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::json;
use tokio::sync::watch;

use crate::support::{Answer, Call, Gate, List, Tells, id};

/// How many appointments there are for a case.
pub const IDS: usize = 2;

/// What is asked for: one of a case's appointments, or its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    One(usize),
    List,
}

impl Subject {
    /// Whether what is known of one has to do with the other.
    pub fn touches(self, other: Self) -> bool {
        self == other || self == Self::List || other == Self::List
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 200, with what the call's number tells from every other.
    Shown,
    /// The same, with `Cache-Control: no-store`.
    ShownOnce,
    /// 401
    NotAccepted,
    /// 403
    Forbidden,
    /// 404
    Absent,
    /// 500, after which nobody knows of a change whether it was made.
    Failed,
    /// 429
    Limited,
    /// 200, and no JSON.
    Garbage,
    /// A change: 204.
    Made,
    /// A change: the connection breaks.
    Lost,
    /// A change: 409
    Conflict,
    /// A change: 422
    Rejected,
}

impl Outcome {
    pub const OF_READS: [Self; 8] = [
        Self::Shown,
        Self::ShownOnce,
        Self::NotAccepted,
        Self::Forbidden,
        Self::Absent,
        Self::Failed,
        Self::Limited,
        Self::Garbage,
    ];
    pub const OF_CHANGES: [Self; 9] = [
        Self::Shown,
        Self::Made,
        Self::Lost,
        Self::Failed,
        Self::NotAccepted,
        Self::Forbidden,
        Self::Absent,
        Self::Conflict,
        Self::Rejected,
    ];

    /// The code that a client is told; none where there is data.
    pub fn code(self, subject: Subject, is_change: bool) -> Option<&'static str> {
        match self {
            Self::Shown | Self::ShownOnce | Self::Made | Self::Rejected => None,
            Self::NotAccepted => Some("UNAUTHENTICATED"),
            Self::Forbidden => Some("FORBIDDEN"),
            Self::Absent if is_change => Some("NOT_FOUND"),
            // That there is no list is not what the API promises.
            Self::Absent => (subject == Subject::List).then_some("UPSTREAM_INVALID_RESPONSE"),
            Self::Failed => Some("UPSTREAM_UNAVAILABLE"),
            Self::Limited => Some("RATE_LIMITED"),
            Self::Garbage => Some("UPSTREAM_INVALID_RESPONSE"),
            Self::Lost => Some("OUTCOME_UNKNOWN"),
            Self::Conflict => Some("CONFLICT"),
        }
    }
}

/// A call, and when what happened to it. All times are counts of what has happened.
pub struct Made {
    pub scope: String,
    pub subject: Subject,
    pub is_change: bool,
    pub outcome: Outcome,
    /// Whether the credential and the answer let it be kept.
    pub may_be_kept: bool,
    pub received: u64,
    /// When its answer was let go.
    pub released: Option<u64>,
    /// From when on it is certain that the gateway has done all that it does with the answer.
    pub settled: Option<u64>,
    /// How many are known to wait for it.
    pub waiting: usize,
    /// Whether the gateway gave it up.
    pub is_given_up: bool,
    gate: Gate,
}

impl Made {
    pub fn is_held(&self) -> bool {
        self.released.is_none() && !self.is_given_up
    }

    /// Whether it changed something, or may have.
    pub fn has_changed(&self) -> bool {
        self.is_change
            && matches!(self.outcome, Outcome::Shown | Outcome::Made | Outcome::Lost | Outcome::Failed)
    }

    /// Whether nobody knows if it changed something, or will.
    pub fn is_in_doubt(&self) -> bool {
        self.is_change && matches!(self.outcome, Outcome::Lost | Outcome::Failed)
    }
}

/// Everything that happened in a case.
#[derive(Default)]
pub struct Log {
    now: u64,
    pub calls: Vec<Made>,
    /// When something was waited for until all that was kept is past its time.
    pub pauses: Vec<(u64, u64)>,
    /// The ids that were asked for only to see that the gateway is at it.
    probes: Vec<String>,
    /// What happened that must not.
    pub violation: Option<String>,
    modes: HashMap<(String, Subject), Outcome>,
}

impl Log {
    /// Something happens.
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

    /// The call under way that who asks now joins: what changed since it was made is not what it was made for.
    pub fn joinable(&self, scope: &str, subject: Subject) -> Option<usize> {
        let call = self.reads(scope, subject).filter(|n| self.calls[*n].is_held()).last()?;
        let since = self.calls[call].received;
        (!self.changes(subject).any(|change| change.released.is_some_and(|at| at > since))).then_some(call)
    }

    /// What changed `subject`, or may have.
    pub fn changes(&self, subject: Subject) -> impl Iterator<Item = &Made> {
        self.calls.iter().filter(move |call| call.has_changed() && call.subject.touches(subject))
    }
}

/// The far side of one case.
#[derive(Clone)]
pub struct FarSide {
    log: Arc<Mutex<Log>>,
    changed: watch::Sender<()>,
    case: usize,
}

impl FarSide {
    pub fn of(case: usize) -> Self {
        Self { log: Arc::default(), changed: watch::Sender::new(()), case }
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        // Who panics with it has found something.
        self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Told of every call.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The id of one of the case's appointments.
    pub fn id(&self, n: usize) -> String {
        id(self.case * 100 + n)
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

    /// What `call` is answered with, once it is released.
    pub fn answer(&self, call: &Call) -> Answer {
        let answer = self.received(call);
        self.changed.send_replace(());
        answer
    }

    fn received(&self, call: &Call) -> Answer {
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
            Outcome::OF_CHANGES
                [body["status"].as_str().and_then(|n| n.parse::<usize>().ok()).expect("an outcome")]
        } else {
            log.modes.get(&(scope.clone(), subject)).copied().unwrap_or(Outcome::Shown)
        };
        if !is_change {
            let twice = log.joinable(&scope, subject).filter(|n| log.calls[*n].waiting > 0);
            if let Some(first) = twice {
                log.violation =
                    Some(format!("{subject:?} was asked for while call {first} was under way for it"));
            }
        }
        let received = log.tick();
        let number = log.calls.len();
        let gate = Gate::shut();
        // Of a token that has expired nothing may be kept.
        let may_be_kept = outcome != Outcome::ShownOnce && !scope.contains('.');
        log.calls.push(Made {
            scope: scope.clone(),
            subject,
            is_change,
            outcome,
            may_be_kept,
            received,
            released: None,
            settled: None,
            waiting: 0,
            is_given_up: false,
            gate: gate.clone(),
        });
        let shown = |n: usize| json!({ "id": self.id(n), "reference": scope, "status": number.to_string() });
        let answer = match outcome {
            Outcome::Shown | Outcome::ShownOnce => match subject {
                Subject::One(n) => Answer::json(200, &json!({ "data": shown(n) })),
                Subject::List => List::of(IDS, Tells::Meta).page_of(call, shown),
            },
            Outcome::NotAccepted => Answer::status(401),
            Outcome::Forbidden => Answer::status(403),
            Outcome::Absent => Answer::status(404),
            Outcome::Failed => Answer::status(500),
            Outcome::Limited => Answer::status(429),
            Outcome::Garbage => Answer::text(200, "application/json", "<html>"),
            Outcome::Made => Answer::text(204, "text/plain", ""),
            Outcome::Lost => Answer::cut(),
            Outcome::Conflict => Answer::status(409),
            Outcome::Rejected => Answer::json(422, &json!({ "errors": { "status": ["no"] } })),
        };
        let answer =
            if outcome == Outcome::ShownOnce { answer.with("Cache-Control", "no-store") } else { answer };
        answer.once(&gate)
    }
}
