//! A model test of all caches. Several callers read, change, subscribe, lose access, disconnect and wait, in random
//! order. No client may receive data that the [model](judge) does not allow.
//!
//! The test determines the order of all events: the [upstream](upstream) holds back each response until a step releases
//! it, and every step waits for its effect. Only expiry depends on time. Pollers call on their own when a subscription
//! begins, and after a change or a rejection. The test awaits each of these calls, or allows some time for it if the
//! rules do not require it.
//!
//! Reads are repeated byte for byte in several request forms, arrays and federated entities included, so that the response cache serves many of them. Those by GET
//! list the tags of all earlier responses of the case, to any caller. A 304 stands for the response with its tag. The model
//! does not distinguish these.
//!
//! Changes have idempotency keys, which all callers share. A repeat of a recorded change sends no change, and its appointment
//! is judged as a read.

mod judge;
mod upstream;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestCaseError, TestRunner},
};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use self::{
    judge::{Observed, Read, Source, Staleness, judge, judge_first_event, judge_next_event},
    upstream::{Effect, Ends, IDS, Join, ModelUpstream, Outcome, Subject},
};
use crate::support::{
    APPOINTMENT_AT, Gateway, GatewayResponse, Keyed, RequestForm, SubscriptionEvent, TIMEOUT, Transport,
    Upstream, UpstreamResponse, creation, jwt, update,
};

/// How many cases there are for each [`Setting`], unless `PROPTEST_CASES` says so.
const CASES: u32 = 16;

/// The callers; the last one's token has expired.
const CALLERS: usize = 3;

/// The callers that subscribe: those with valid tokens.
const SUBSCRIBERS: usize = 2;

/// How reads are sent.
const REQUEST_FORMS: [RequestForm; 9] = [
    RequestForm::POST,
    RequestForm::GET,
    RequestForm::POST.taking("br"),
    RequestForm::GET.taking("gzip, identity;q=0.5"),
    RequestForm::BY_HASH[0],
    RequestForm::BY_HASH[1],
    RequestForm::IN_ARRAY[0],
    RequestForm::IN_ARRAY[1],
    RequestForm::POST,
];

/// The form in which an appointment is read as an entity of a federated graph.
const AS_ENTITY: usize = REQUEST_FORMS.len() - 1;

/// As much of an appointment as is worth compressing.
const FIELDS: &str =
    "{ id reference status claimant { name phoneNumber email dateOfBirth data { name value } } }";

/// How long a call is awaited that the rules do not promise.
const MOMENT: Duration = Duration::from_millis(40);

/// How long a call or an answer is awaited that has to come, while nothing is held back that it waits for.
const SOON: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
enum Step {
    /// Somebody reads, so many times, in one of the manners.
    Read(usize, Subject, usize, usize),
    /// Somebody changes or creates something, with this outcome.
    Change(usize, Subject, Outcome),
    /// Somebody sends one of the earlier changes, with its key: once more, or for the first time.
    Repeat(usize, usize),
    /// The upstream answers one of the calls that it holds.
    Release(usize),
    /// The upstream answers the call that it has received last.
    ReleaseLast,
    /// One of the clients that wait hangs up.
    Abandon(usize),
    /// Somebody subscribes.
    Subscribe(usize, usize, Transport),
    /// One of the subscribers leaves.
    Leave(usize),
    /// From now on somebody's reads are answered so.
    Mode(usize, Subject, Outcome),
    /// Everything cached gets past its time.
    Pause,
}

fn any_subject() -> impl Strategy<Value = Subject> {
    prop_oneof![3 => (0..IDS).prop_map(Subject::One), 1 => Just(Subject::List)]
}

fn any_outage() -> impl Strategy<Value = Outcome> {
    select(&Outcome::OUTAGES[..])
}

fn any_refusal() -> impl Strategy<Value = Outcome> {
    prop_oneof![select(&Outcome::REFUSALS[..]), select(&Outcome::UNUSABLE[..])]
}

fn any_step() -> impl Strategy<Value = Step> {
    let of_read = prop_oneof![
        2 => Just(Outcome::Shown),
        1 => Just(Outcome::ShownOnce),
        2 => Just(Outcome::Unchanged),
        2 => any_outage(),
        4 => any_refusal(),
    ];
    let transport = select(&Transport::EACH[..]);
    prop_oneof![
        8 => (0..CALLERS, any_subject(), 0..REQUEST_FORMS.len(), 1..4_usize)
            .prop_map(|(caller, subject, manner, times)| Step::Read(caller, subject, manner, times)),
        9 => any::<usize>().prop_map(Step::Release),
        3 => any::<usize>().prop_map(Step::Abandon),
        4 => (0..SUBSCRIBERS, 0..IDS, transport)
            .prop_map(|(caller, n, transport)| Step::Subscribe(caller, n, transport)),
        1 => any::<usize>().prop_map(Step::Leave),
        4 => (0..CALLERS, any_subject(), of_read)
            .prop_map(|(caller, subject, outcome)| Step::Mode(caller, subject, outcome)),
        1 => Just(Step::Pause),
    ]
}

fn any_change() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![1 => Just(Outcome::Shown), 2 => select(&Outcome::OF_CHANGES[..])];
    (0..CALLERS, any_subject(), outcome)
        .prop_map(|(caller, subject, outcome)| Step::Change(caller, subject, outcome))
}

fn any_repeat() -> impl Strategy<Value = Step> {
    (0..CALLERS, any::<usize>()).prop_map(|(caller, n)| Step::Repeat(caller, n))
}

/// Somebody makes a change, something happens, and they and somebody else send it again.
fn repeated_change() -> impl Strategy<Value = Vec<Step>> {
    (0..CALLERS, any_subject(), select(&Outcome::OF_CHANGES[..]), any_step(), 1..CALLERS).prop_map(
        |(caller, subject, outcome, step, other)| {
            vec![
                Step::Change(caller, subject, outcome),
                Step::Repeat(caller, usize::MAX),
                Step::ReleaseLast,
                step,
                Step::Repeat(caller, usize::MAX),
                Step::ReleaseLast,
                Step::Repeat((caller + other) % CALLERS, usize::MAX),
                Step::Repeat(caller, usize::MAX),
            ]
        },
    )
}

/// Something that is read, and something that is refused, which is often the same.
fn read_and_refused() -> impl Strategy<Value = (Subject, Subject)> {
    prop_oneof![any_subject().prop_map(|it| (it, it)), (any_subject(), any_subject())]
}

/// Somebody reads something and is then refused something; then the upstream fails.
fn refusal_of_copies() -> impl Strategy<Value = Vec<Step>> {
    (0..SUBSCRIBERS, read_and_refused(), any_refusal(), any_outage(), select(&Transport::EACH[..])).prop_map(
        |(caller, (read, refused), refusal, outage, transport)| {
            let ask = match refused {
                // Of a fresh copy only a poller asks again.
                Subject::One(n) => Step::Subscribe(caller, n, transport),
                Subject::List => Step::Read(caller, refused, 0, 1),
            };
            vec![
                Step::Mode(caller, read, Outcome::Shown),
                Step::Read(caller, read, 0, 1),
                Step::ReleaseLast,
                Step::Pause,
                Step::Mode(caller, refused, refusal),
                ask,
                Step::ReleaseLast,
                Step::Mode(caller, read, outage),
                Step::Read(caller, read, 0, 1),
                Step::ReleaseLast,
            ]
        },
    )
}

/// Somebody waits for something, is refused something, and asks once more.
fn refusal_in_flight() -> impl Strategy<Value = Vec<Step>> {
    (0..SUBSCRIBERS, read_and_refused(), any_refusal()).prop_map(|(caller, (read, refused), refusal)| {
        vec![
            Step::Mode(caller, read, Outcome::Shown),
            Step::Read(caller, read, 0, 1),
            Step::Mode(caller, refused, refusal),
            Step::Read(caller, refused, 1, 1),
            Step::ReleaseLast,
            Step::Read(caller, read, 0, 1),
        ]
    })
}

/// A caller reads a subject, revalidates it after its expiry, meets a refusal or an outage, and reads it once more.
fn renewal() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![any_refusal(), any_outage(), Just(Outcome::Unchanged)];
    (0..SUBSCRIBERS, read_and_refused(), end).prop_map(|(caller, (read, refused), end)| {
        let again = [Step::Read(caller, read, 0, 1), Step::ReleaseLast, Step::Pause];
        let mut steps = vec![Step::Mode(caller, read, Outcome::Shown)];
        steps.extend(again.clone());
        steps.push(Step::Mode(caller, read, Outcome::Unchanged));
        steps.extend(again.clone());
        steps.extend([
            Step::Mode(caller, refused, end),
            Step::Read(caller, refused, 0, 1),
            Step::ReleaseLast,
            Step::Mode(caller, read, Outcome::Unchanged),
        ]);
        steps.extend(again);
        steps
    })
}

/// Scenes, in half of the cases without changes: one whose outcome is unknown keeps lists from being cached for the rest
/// of the case.
fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let without_changes = || {
        prop_oneof![
            28 => any_step().prop_map(|step| vec![step]),
            2 => refusal_of_copies(),
            1 => refusal_in_flight(),
            2 => renewal(),
        ]
    };
    let with_changes = prop_oneof![
        14 => without_changes(),
        2 => any_change().prop_map(|change| vec![change]),
        1 => any_repeat().prop_map(|repeat| vec![repeat]),
        1 => repeated_change(),
    ];
    prop_oneof![vec(without_changes(), 1..60), vec(with_changes, 1..60)].prop_map(|scenes| scenes.concat())
}

/// How the gateway is set.
#[derive(Debug, Clone, Copy)]
struct Setting {
    ttl: &'static str,
    /// Longer than that; zero where it is not waited for.
    pause: Duration,
    staleness: Staleness,
}

const SETTINGS: [Setting; 3] = [
    Setting { ttl: "10m", pause: Duration::ZERO, staleness: Staleness::IfError },
    Setting { ttl: "200ms", pause: Duration::from_millis(230), staleness: Staleness::Never },
    Setting { ttl: "200ms", pause: Duration::from_millis(230), staleness: Staleness::IfError },
];

impl Setting {
    async fn gateway(self, upstream: &Upstream) -> Gateway {
        let stale_if_error = if self.staleness == Staleness::Never { "0" } else { "10m" };
        let settings = [
            ("cache.ttl", self.ttl),
            ("cache.absence_ttl", self.ttl),
            ("cache.list_ttl", self.ttl),
            ("cache.stale_if_error", stale_if_error),
            ("graphql.federation", "true"),
            ("upstream.timeout", "60s"),
            ("http.deadline", "60s"),
            ("live.fast_interval", "10m"),
            ("live.slow_interval", "10m"),
        ];
        Gateway::before(upstream.url(), &settings).await
    }
}

/// The far sides of all cases, by the tokens of their callers.
type ModelUpstreams = Arc<Mutex<HashMap<String, ModelUpstream>>>;

/// A case while it runs.
struct Case {
    gateway: Arc<Gateway>,
    far: ModelUpstream,
    tokens: Vec<String>,
    staleness: Staleness,
    pause: Duration,
    pending: Vec<Pending>,
    watchers: Vec<Watcher>,
    copies: Copies,
    probes: usize,
    ways: HashSet<Source>,
    /// The changes, by the number of their key.
    keyed: Vec<(Subject, Outcome)>,
    /// The last call for a change, by caller and key.
    sent: HashMap<(usize, usize), usize>,
}

/// The bodies that clients have stored, by tag.
#[derive(Clone, Default)]
struct Copies(Arc<Mutex<BTreeMap<String, Value>>>);

impl Copies {
    /// Sends a request with the tags of all copies. Returns the copy in place of a 304.
    async fn ask(&self, form: RequestForm, gateway: &Gateway, scope: &str, query: &str) -> GatewayResponse {
        let tags = self.0.lock().unwrap().keys().cloned().collect::<Vec<_>>().join(", ");
        let mut reply = form.ask_if_none_match(gateway, scope, query, &tags).await;
        if let Some(tag) = reply.headers.get("etag").map(|tag| tag.to_str().unwrap().to_owned()) {
            let mut copies = self.0.lock().unwrap();
            match reply.status {
                304 => reply.body = copies[&tag].clone(),
                _ => drop(copies.insert(tag, reply.body.clone())),
            }
        }
        reply
    }
}

/// The response to a read of the entity `it` as that of a field: one that does not exist is null without an error.
fn of_entity(mut reply: GatewayResponse) -> GatewayResponse {
    if let Some(entity) = reply.body["data"]["it"].get_mut(0) {
        reply.body["data"]["it"] = entity.take();
    }
    if reply.codes() == ["NOT_FOUND"] {
        reply.body.as_object_mut().unwrap().remove("errors");
    }
    reply
}

/// A client that waits.
struct Pending {
    /// None where it waits for a change.
    read: Option<Read>,
    call: usize,
    reply: JoinHandle<GatewayResponse>,
}

/// A client that subscribes.
struct Watcher {
    read: Read,
    n: usize,
    events: mpsc::UnboundedReceiver<SubscriptionEvent>,
    /// Whether there has been an event since this was last looked at.
    has_news: bool,
    /// The call that the last event came from.
    last: Option<usize>,
    has_ended: bool,
    task: JoinHandle<()>,
}

impl Watcher {
    fn is_of(&self, scope: &str, subject: Subject) -> bool {
        !self.has_ended && self.read.scope == scope && self.read.subject == subject
    }
}

impl Case {
    async fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        for (n, step) in steps.iter().enumerate() {
            self.step(step).await.map_err(|fault| format!("step {n}, {step:?}: {fault}"))?;
            self.drain().map_err(|fault| format!("step {n}, {step:?}: {fault}"))?;
            if let Some(violation) = self.far.log().violation.take() {
                return Err(format!("step {n}, {step:?}: {violation}"));
            }
        }
        // At the end everybody gets an answer, subscribes, and looks at everything once more; and again when it is past
        // its time and the upstream fails.
        self.release_all().await?;
        self.subscribe_all().await?;
        self.read_all().await?;
        if !self.pause.is_zero() {
            self.step(&Step::Pause).await?;
            for (caller, subject) in Self::everything() {
                self.step(&Step::Mode(caller, subject, Outcome::Status(500))).await?;
            }
            self.read_all().await?;
        }
        Ok(())
    }

    /// Appointments that a list brings, and a list that is cached.
    fn everything() -> impl Iterator<Item = (usize, Subject)> {
        let subjects = [Subject::List, Subject::One(0), Subject::One(1), Subject::List];
        (0..CALLERS).flat_map(move |caller| subjects.map(|subject| (caller, subject)))
    }

    async fn read_all(&mut self) -> Result<(), String> {
        for manner in 0..REQUEST_FORMS.len() {
            for (caller, subject) in Self::everything() {
                self.read(caller, subject, manner).await?;
                self.release_all().await?;
            }
        }
        Ok(())
    }

    /// Has every subscriber subscribe once more, beside those that do already, and then has all of them leave.
    async fn subscribe_all(&mut self) -> Result<(), String> {
        for caller in 0..SUBSCRIBERS {
            for n in 0..IDS {
                self.subscribe(caller, n, Transport::EACH[(caller + n) % 2]).await?;
            }
        }
        self.release_all().await?;
        while !self.watchers.is_empty() {
            self.leave(0).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Read(caller, subject, manner, times) => {
                for _ in 0..*times {
                    self.read(*caller, *subject, *manner).await?;
                }
            }
            Step::Change(caller, subject, outcome) => self.change(*caller, *subject, *outcome).await?,
            Step::Repeat(caller, n) => self.repeat(*caller, *n).await?,
            Step::Release(n) => {
                let held = self.held();
                if !held.is_empty() {
                    self.release(held[n % held.len()]).await?;
                }
            }
            Step::ReleaseLast => {
                if let Some(call) = self.held().last() {
                    self.release(*call).await?;
                }
            }
            Step::Abandon(n) => {
                if !self.pending.is_empty() {
                    let leaving = self.pending.remove(n % self.pending.len());
                    self.abandon(leaving).await?;
                }
            }
            Step::Subscribe(caller, n, transport) => self.subscribe(*caller, *n, *transport).await?,
            Step::Leave(n) => {
                if !self.watchers.is_empty() {
                    self.leave(n % self.watchers.len()).await?;
                }
            }
            Step::Mode(caller, subject, outcome) => {
                self.far.log().set_mode(&self.tokens[*caller], *subject, *outcome);
            }
            Step::Pause if self.pause.is_zero() => {}
            Step::Pause => {
                let begin = self.far.log().tick();
                sleep(self.pause).await;
                let mut log = self.far.log();
                let end = log.tick();
                log.pauses.push((begin, end));
            }
        }
        Ok(())
    }

    fn held(&self) -> Vec<usize> {
        let log = self.far.log();
        (0..log.calls.len()).filter(|n| log.calls[*n].is_held()).collect()
    }

    async fn release_all(&mut self) -> Result<(), String> {
        while let Some(call) = self.held().first() {
            self.release(*call).await?;
        }
        if self.pending.is_empty() { Ok(()) } else { Err("somebody waits for nothing".to_owned()) }
    }

    /// The call that a new read of `subject` by `scope` has to join. Where the rules leave it open whether it joins one,
    /// that one is answered first.
    async fn joins(&mut self, scope: &str, subject: Subject) -> Result<Option<usize>, String> {
        loop {
            let join = self.far.log().join(scope, subject);
            match join {
                Join::No => return Ok(None),
                Join::Yes(call) => return Ok(Some(call)),
                Join::Perhaps(call) => self.release(call).await?,
            }
        }
    }

    /// Asks, and waits until there is an answer, or it is known which call it waits for.
    async fn read(&mut self, caller: usize, subject: Subject, manner: usize) -> Result<(), String> {
        let scope = self.tokens[caller].clone();
        let joins = self.joins(&scope, subject).await?;
        let asked = self.far.log().tick();
        let read = Read { scope: scope.clone(), subject, asked };
        let mut query = match subject {
            Subject::One(n) if manner == AS_ENTITY => format!(
                "it: _entities(representations: [{{ __typename: \"Appointment\", id: {:?} }}]) {{ ... on Appointment {FIELDS} }}",
                self.far.id(n)
            ),
            Subject::One(n) => format!("it: appointment(id: {:?}) {FIELDS}", self.far.id(n)),
            Subject::List => format!("it: appointments(first: {IDS}) {{ nodes {FIELDS} }}"),
        };
        // Joining a call leaves no trace upstream but by another id that is asked for at the same time.
        let probe = joins.map(|_| self.far.probe(self.probes));
        if let Some(probe) = &probe {
            self.probes += 1;
            query += &format!(" probe: appointment(id: {probe:?}) {{ id }}");
        }
        let (gateway, copies) = (self.gateway.clone(), self.copies.clone());
        let query = format!("{{ {query} }}");
        let reply = tokio::spawn(async move {
            let form = REQUEST_FORMS[manner];
            if form.is_get {
                copies.ask(form, &gateway, &scope, &query).await
            } else {
                let reply = form.ask(&gateway, &scope, &query).await;
                if manner == AS_ENTITY { of_entity(reply) } else { reply }
            }
        });
        self.await_call(read, joins.zip(probe), reply).await
    }

    /// Waits until there is a reply, or it is known which call it waits for: a new one, or the `joined` one once its probe has
    /// come.
    async fn await_call(
        &mut self,
        read: Read,
        joined: Option<(usize, String)>,
        reply: JoinHandle<GatewayResponse>,
    ) -> Result<(), String> {
        let (mut changed, began) = (self.far.watch(), Instant::now());
        let call = loop {
            {
                let log = self.far.log();
                let made = log.read_since(&read.scope, read.subject, read.asked);
                let joined = joined.as_ref().filter(|(_, probe)| log.is_probed(probe)).map(|(call, _)| *call);
                if let Some(call) = made.or(joined) {
                    break Some(call);
                }
            }
            if reply.is_finished() {
                break None;
            }
            if began.elapsed() > SOON {
                return Err(format!("{read:?} waits for a call that it must not join"));
            }
            // Nothing tells that the reply is there, so it is looked for now and then.
            let _ = timeout(Duration::from_millis(2), changed.changed()).await;
        };
        match call {
            Some(call) => {
                self.far.log().calls[call].waiting += 1;
                self.pending.push(Pending { read: Some(read), call, reply });
                Ok(())
            }
            None => self.judge(&read, &reply.await.unwrap()),
        }
    }

    /// The change with the key of that number, as one of the callers.
    fn keyed_change(&self, caller: usize, key: usize) -> Keyed {
        let (subject, outcome) = self.keyed[key];
        let number = Outcome::OF_CHANGES.iter().position(|it| *it == outcome).unwrap().to_string();
        let operation = match subject {
            Subject::One(n) => update(&self.far.id(n), json!({ "status": number })),
            Subject::List => creation(json!({ "appointmentAt": APPOINTMENT_AT, "reference": number })),
        };
        Keyed::of(&self.tokens[caller], &format!("change-{key}"), operation)
    }

    async fn change(&mut self, caller: usize, subject: Subject, outcome: Outcome) -> Result<(), String> {
        self.keyed.push((subject, outcome));
        self.send_change(caller, self.keyed.len() - 1).await
    }

    async fn send_change(&mut self, caller: usize, key: usize) -> Result<(), String> {
        let (gateway, mutation) = (self.gateway.clone(), self.keyed_change(caller, key));
        let asked = {
            let mut log = self.far.log();
            log.is_changing = true;
            log.tick()
        };
        let reply = tokio::spawn(async move { mutation.send(&gateway).await });
        let mut changed = self.far.watch();
        let call = loop {
            let sent = {
                let log = self.far.log();
                log.calls.iter().position(|call| call.is_change && call.received > asked)
            };
            match sent {
                Some(call) => break call,
                None => timeout(TIMEOUT, changed.changed()).await.expect("a change is sent").unwrap(),
            }
        };
        {
            let mut log = self.far.log();
            log.is_changing = false;
            log.calls[call].waiting += 1;
        }
        self.sent.insert((caller, key), call);
        self.pending.push(Pending { read: None, call, reply });
        self.pollers_ask(call, asked).await
    }

    async fn repeat(&mut self, caller: usize, n: usize) -> Result<(), String> {
        let Some(last) = self.keyed.len().checked_sub(1) else { return Ok(()) };
        let key = if n == usize::MAX { last } else { n % self.keyed.len() };
        let Some(call) = self.sent.get(&(caller, key)).copied() else {
            return self.send_change(caller, key).await;
        };
        let (is_held, outcome) = {
            let log = self.far.log();
            (log.calls[call].is_held(), log.calls[call].outcome)
        };
        match outcome {
            _ if is_held => self.join_change(caller, key).await,
            // It was not made, for a reason that may pass.
            Outcome::Status(401 | 429) => self.send_change(caller, key).await,
            _ => self.replay_change(caller, key, call).await,
        }
    }

    /// Sends a change in flight again, and hangs up: both leave it as it is.
    async fn join_change(&mut self, caller: usize, key: usize) -> Result<(), String> {
        let (gateway, mutation) = (self.gateway.clone(), self.keyed_change(caller, key));
        let asked = self.far.log().tick();
        let reply = tokio::spawn(async move { mutation.send(&gateway).await });
        sleep(MOMENT).await;
        let is_answered = reply.is_finished();
        reply.abort();
        if is_answered {
            return Err("a repeat was answered before its change".to_owned());
        }
        self.nothing_changes_since(asked)
    }

    /// Sends a recorded change again. Only a made change of an appointment is read.
    async fn replay_change(&mut self, caller: usize, key: usize, call: usize) -> Result<(), String> {
        let (scope, subject) = (self.tokens[caller].clone(), self.keyed[key].0);
        let is_read = subject != Subject::List && self.far.log().calls[call].outcome == Outcome::Shown;
        if is_read {
            // Joining a call would leave no trace.
            while let Some(held) = self.joins(&scope, subject).await? {
                self.release(held).await?;
            }
        }
        let (gateway, mutation) = (self.gateway.clone(), self.keyed_change(caller, key));
        let asked = self.far.log().tick();
        let reply = tokio::spawn(async move { mutation.send(&gateway).await });
        if is_read {
            self.await_call(Read { scope, subject, asked }, None, reply).await?;
        } else {
            let reply = timeout(TIMEOUT, reply).await.map_err(|_| "no answer to a repeat")?.unwrap();
            self.judge_repeat(call, &scope, &reply)?;
        }
        self.nothing_changes_since(asked)
    }

    fn nothing_changes_since(&self, asked: u64) -> Result<(), String> {
        let log = self.far.log();
        match log.calls.iter().any(|call| call.is_change && call.received > asked) {
            true => Err("a recorded change was sent again".to_owned()),
            false => Ok(()),
        }
    }

    /// Subscribes, and waits until there is an event or a call for it. Where it may join what is there, neither need come.
    async fn subscribe(&mut self, caller: usize, n: usize, transport: Transport) -> Result<(), String> {
        let (scope, subject) = (self.tokens[caller].clone(), Subject::One(n));
        let joins = self.joins(&scope, subject).await?;
        let may_wait = joins.is_some() || self.watchers.iter().any(|it| it.is_of(&scope, subject));
        let read = Read { scope: scope.clone(), subject, asked: self.far.log().tick() };
        let (sender, events) = mpsc::unbounded_channel();
        let (gateway, id) = (self.gateway.clone(), self.far.id(n));
        let task = tokio::spawn(async move {
            let mut subscription = gateway.subscribe(transport, &scope, &id).await;
            loop {
                // Long silence is no fault.
                let Ok(event) = timeout(TIMEOUT / 2, subscription.event()).await else { continue };
                let is_over = event == SubscriptionEvent::Complete;
                if sender.send(event).is_err() || is_over {
                    return;
                }
            }
        });
        let watcher =
            Watcher { read: read.clone(), n, events, has_news: false, last: None, has_ended: false, task };
        self.watchers.push(watcher);
        let (limit, began) = (if may_wait { MOMENT } else { SOON }, Instant::now());
        loop {
            self.drain()?;
            let is_called = self.far.log().read_since(&read.scope, subject, read.asked).is_some();
            if is_called || std::mem::take(&mut self.watchers.last_mut().unwrap().has_news) {
                return Ok(());
            }
            if began.elapsed() > limit {
                let fault = Err(format!("{read:?}: the subscription waits for a call that it must not join"));
                return if may_wait { Ok(()) } else { fault };
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// A subscriber leaves. With the last of a caller and an appointment goes the call of their poller.
    async fn leave(&mut self, n: usize) -> Result<(), String> {
        self.drain()?;
        let Watcher { read, task, .. } = self.watchers.remove(n);
        task.abort();
        let _ = task.await;
        if self.watchers.iter().any(|it| it.is_of(&read.scope, read.subject)) {
            return Ok(());
        }
        let began = Instant::now();
        let is_polled = || {
            let log = self.far.log();
            log.reads(&read.scope, read.subject).any(|n| log.calls[n].is_held() && log.calls[n].waiting == 0)
        };
        while is_polled() && began.elapsed() < SOON {
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Judges the events that have come.
    fn drain(&mut self) -> Result<(), String> {
        let Self { far, watchers, ways, .. } = self;
        let log = far.log();
        for watcher in watchers.iter_mut() {
            while let Ok(event) = watcher.events.try_recv() {
                watcher.has_news = true;
                let SubscriptionEvent::Next(answer) = event else {
                    if watcher.has_ended {
                        continue;
                    }
                    return Err(format!("{:?}: the subscription is complete without an error", watcher.read));
                };
                let told = told_by_event(far, watcher.n, &answer)
                    .ok_or_else(|| format!("{:?} was told {answer}", watcher.read))?;
                let fault =
                    |fault| format!("{:?}, event after {:?}: {told:?}: {fault}", watcher.read, watcher.last);
                match watcher.last {
                    None => drop(ways.insert(judge_first_event(&log, &watcher.read, &told).map_err(fault)?)),
                    Some(last) => judge_next_event(&log, &watcher.read, last, &told).map_err(fault)?,
                }
                match told {
                    Observed::Shown { call, .. } => watcher.last = Some(call),
                    Observed::Nothing | Observed::Failed(_) => watcher.has_ended = true,
                }
            }
        }
        Ok(())
    }

    /// Waits for the calls of pollers that `call` has ask, or for its event, where there is one or the other: a moment,
    /// since that is not certain.
    async fn pollers_ask(&mut self, call: usize, since: u64) -> Result<(), String> {
        let is_touched = {
            let log = self.far.log();
            let call = &log.calls[call];
            let is_change = call.is_change && call.outcome.effect() != Effect::None;
            let touched = self.watchers.iter().map(|watcher| {
                let subject = watcher.read.subject;
                let is_refused = call.scope == watcher.read.scope && call.refuses(subject) == Ends::Yes;
                !watcher.has_ended && (is_refused || is_change && call.is_to_change(subject))
            });
            touched.collect::<Vec<_>>()
        };
        let began = Instant::now();
        loop {
            self.drain()?;
            let is_waiting = {
                let log = self.far.log();
                self.watchers.iter().zip(&is_touched).any(|(watcher, is_touched)| {
                    let Read { scope, subject, .. } = &watcher.read;
                    let is_settled = watcher.has_ended || watcher.has_news;
                    *is_touched && !is_settled && log.read_since(scope, *subject, since).is_none()
                })
            };
            if !is_waiting || began.elapsed() > MOMENT {
                break;
            }
            sleep(Duration::from_millis(2)).await;
        }
        self.watchers.iter_mut().for_each(|watcher| watcher.has_news = false);
        Ok(())
    }

    /// Lets go of an answer, and waits until every client has it that waits for it.
    async fn release(&mut self, call: usize) -> Result<(), String> {
        self.watchers.iter_mut().for_each(|watcher| watcher.has_news = false);
        let is_own = |pending: &Pending, case: &Self| {
            let log = case.far.log();
            let (made, waits_for) = (&log.calls[call], &log.calls[pending.call]);
            let is_same = pending.read.as_ref().is_some_and(|read| {
                !made.is_change && read.scope == made.scope && read.subject == made.subject
            });
            pending.call == call || is_same && !waits_for.is_held() && waits_for.released.is_none()
        };
        let (waiting, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|pending| is_own(pending, self));
        self.pending = rest;
        let calls_ended = if waiting.is_empty() { Some(self.calls_ended().await) } else { None };
        self.far.release(call);
        let released = self.far.log().calls[call].released.unwrap();
        let mut replies = Vec::new();
        for mut pending in waiting {
            match self.reply_to(&mut pending, call).await? {
                Some(reply) => replies.push((pending.read, reply)),
                None => self.pending.push(pending),
            }
        }
        // No client receives the response to a poll or an abandoned change, so the test looks for its end.
        if let Some(before) = calls_ended {
            let began = Instant::now();
            while self.calls_ended().await <= before && began.elapsed() < SOON {
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_millis(5)).await;
        }
        {
            let mut log = self.far.log();
            let now = log.tick();
            log.calls[call].settled = Some(now);
        }
        for (read, reply) in replies {
            match read {
                Some(read) => self.judge(&read, &reply)?,
                None => self.judge_change(call, &reply)?,
            }
        }
        self.pollers_ask(call, released).await
    }

    /// The reply that comes with the answer to `call`; none where the client turns out to wait for a later call.
    async fn reply_to(&self, pending: &mut Pending, call: usize) -> Result<Option<GatewayResponse>, String> {
        let began = Instant::now();
        loop {
            if let Ok(reply) = timeout(Duration::from_millis(100), &mut pending.reply).await {
                return Ok(Some(reply.unwrap()));
            }
            let mut log = self.far.log();
            let later = pending.read.as_ref().and_then(|read| {
                let mut calls = log.reads(&read.scope, read.subject);
                calls.find(|n| *n > call && log.calls[*n].is_held() && log.calls[*n].received > read.asked)
            });
            if let Some(later) = later {
                log.calls[later].waiting += 1;
                pending.call = later;
                return Ok(None);
            }
            if began.elapsed() > TIMEOUT {
                return Err(format!("no answer, with that of call {call}"));
            }
        }
    }

    /// How many calls have ended, by the gateway's own count.
    async fn calls_ended(&self) -> f64 {
        let metrics = self.gateway.metrics().await;
        metrics
            .iter()
            .filter(|(name, _)| name.starts_with("gateway_upstream_calls_total"))
            .map(|it| it.1)
            .sum()
    }

    /// A client hangs up. With the last one that waits a read ends, unless a poller waits too. A change goes on.
    async fn abandon(&mut self, leaving: Pending) -> Result<(), String> {
        let (is_change, is_last) = {
            let mut log = self.far.log();
            let call = &mut log.calls[leaving.call];
            call.waiting -= 1;
            (call.is_change, call.waiting == 0)
        };
        leaving.reply.abort();
        let _ = leaving.reply.await;
        if is_change || !is_last {
            return Ok(());
        }
        let (began, is_polled) = (Instant::now(), {
            let log = self.far.log();
            let call = &log.calls[leaving.call];
            self.watchers.iter().any(|it| it.is_of(&call.scope, call.subject))
        });
        while self.far.log().calls[leaving.call].is_held() {
            if began.elapsed() > if is_polled { MOMENT } else { SOON } {
                return if is_polled { Ok(()) } else { Err(format!("call {} goes on", leaving.call)) };
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    fn judge(&mut self, read: &Read, reply: &GatewayResponse) -> Result<(), String> {
        let told = self.told(read, reply)?;
        let log = self.far.log();
        let way = judge(&log, self.staleness, read, &told).map_err(|fault| {
            let calls = log.calls.iter().enumerate().map(|(n, call)| {
                let kind = if call.is_change { "change" } else { "read" };
                let (received, released, settled) = (call.received, call.released, call.settled);
                format!(
                    "\n  call {n}: {kind} {:?} as {}: {:?} {received} {released:?} {settled:?}",
                    call.subject, call.scope, call.outcome
                )
            });
            format!("{read:?} was told {told:?}: {fault}{}", calls.collect::<String>())
        })?;
        self.ways.insert(way);
        Ok(())
    }

    /// The observation in a response to a read.
    fn told(&self, read: &Read, reply: &GatewayResponse) -> Result<Observed, String> {
        let fault = || format!("{read:?} was answered {}", reply.body);
        let errors = reply.body["errors"].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(code) = errors.first().map(|error| &error["extensions"]["code"]) {
            return Ok(Observed::Failed(code.as_str().ok_or_else(fault)?.to_owned()));
        }
        let data = &reply.body["data"];
        let payload = &data["updateAppointment"];
        if !payload.is_null() && payload["userErrors"] != json!([]) {
            return Err(fault());
        }
        let it = data.get("it").unwrap_or(&payload["appointment"]);
        let is_stale = reply.body["extensions"]["stale"].as_array().is_some_and(|stale| !stale.is_empty());
        let one = |it: &Value, n: usize| marks(&self.far, it, n);
        let (call, scope) = match read.subject {
            Subject::One(_) if it.is_null() => return Ok(Observed::Nothing),
            Subject::One(n) => one(it, n).ok_or_else(fault)?,
            Subject::List => {
                let nodes = it["nodes"].as_array().filter(|nodes| nodes.len() == IDS).ok_or_else(fault)?;
                let first = one(&nodes[0], 0).ok_or_else(fault)?;
                let is_one_page =
                    nodes.iter().enumerate().all(|(n, node)| one(node, n).as_ref() == Some(&first));
                if !is_one_page {
                    return Err(fault());
                }
                first
            }
        };
        Ok(Observed::Shown { call, scope, is_stale })
    }

    /// Whether the repeat of a change is told its outcome. A created appointment is read, or cached.
    fn judge_repeat(&self, call: usize, scope: &str, reply: &GatewayResponse) -> Result<(), String> {
        let appointment = &reply.body["data"]["createAppointment"]["appointment"];
        if self.far.log().calls[call].outcome != Outcome::Shown {
            return self.judge_change(call, reply);
        }
        let is_told =
            appointment["id"] == self.far.created(call).as_str() && appointment["reference"] == scope;
        if is_told { Ok(()) } else { Err(format!("of the repeated creation by call {call}: {}", reply.body)) }
    }

    /// Whether the client that made a change is told its outcome.
    fn judge_change(&self, call: usize, reply: &GatewayResponse) -> Result<(), String> {
        let outcome = self.far.log().calls[call].outcome;
        let payload = reply.body["data"].as_object().and_then(|data| data.values().next());
        let payload = payload.unwrap_or(&Value::Null);
        let is_told = match outcome {
            Outcome::Shown => payload["appointment"]["status"].as_str() == Some(&call.to_string()),
            Outcome::Status(204) => payload["appointment"].is_null() && payload["userErrors"] == json!([]),
            Outcome::Status(422) => payload["userErrors"].as_array().is_some_and(|faults| faults.len() == 1),
            Outcome::Cut | Outcome::Truncated | Outcome::NotJson => reply.codes() == ["OUTCOME_UNKNOWN"],
            Outcome::Status(401) => reply.codes() == ["UNAUTHENTICATED"],
            Outcome::Status(403) => reply.codes() == ["FORBIDDEN"],
            Outcome::Status(409) => reply.codes() == ["CONFLICT"],
            Outcome::Status(429) => reply.codes() == ["RATE_LIMITED"],
            _ => reply.codes().len() == 1 && payload.is_null(),
        };
        if is_told { Ok(()) } else { Err(format!("of the change by call {call}: {}", reply.body)) }
    }
}

/// The call and the token that marked an appointment, if it is the one by this number.
fn marks(far: &ModelUpstream, it: &Value, n: usize) -> Option<(usize, String)> {
    let is_it = it["id"] == far.id(n).as_str();
    let call = it["status"].as_str().filter(|_| is_it)?.parse().ok()?;
    Some((call, it["reference"].as_str()?.to_owned()))
}

/// The observation in an event, or none if it has no usable content.
fn told_by_event(far: &ModelUpstream, n: usize, answer: &Value) -> Option<Observed> {
    if let Some(code) = answer["errors"].get(0).map(|error| &error["extensions"]["code"]) {
        return Some(Observed::Failed(code.as_str()?.to_owned()));
    }
    let (call, scope) = marks(far, &answer["data"]["appointmentChanged"], n)?;
    Some(Observed::Shown { call, scope, is_stale: answer.get("extensions").is_some() })
}

impl Drop for Case {
    fn drop(&mut self) {
        self.pending.iter().for_each(|pending| pending.reply.abort());
        self.watchers.iter().for_each(|watcher| watcher.task.abort());
    }
}

/// Runs cases, each with a gateway of its own.
struct Runner {
    setting: Setting,
    upstream: Upstream,
    far_sides: ModelUpstreams,
    cases: usize,
    ways: HashSet<Source>,
    /// How many reads were answered from the answer cache.
    hits: f64,
    /// How many reads were answered with 304.
    confirmed: f64,
    /// How many changes were answered from their records.
    replayed: f64,
}

impl Runner {
    async fn new(setting: Setting) -> Self {
        let far_sides = ModelUpstreams::default();
        let upstream = Upstream::answering({
            let far_sides = far_sides.clone();
            move |call| -> UpstreamResponse {
                let far = far_sides.lock().unwrap().get(call.token()).cloned();
                far.expect("a token of a case").answer(call)
            }
        });
        Self {
            setting,
            upstream: upstream.await,
            far_sides,
            cases: 0,
            ways: HashSet::new(),
            hits: 0.0,
            confirmed: 0.0,
            replayed: 0.0,
        }
    }

    async fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        self.cases += 1;
        let far = ModelUpstream::of(self.cases);
        let tokens = vec![
            format!("one-{}", self.cases),
            format!("other-{}", self.cases),
            jwt(-1_000 - self.cases as i64),
        ];
        self.far_sides.lock().unwrap().extend(tokens.iter().map(|token| (token.clone(), far.clone())));
        let mut case = Case {
            // A new one, of which no change is in doubt.
            gateway: Arc::new(self.setting.gateway(&self.upstream).await),
            far,
            tokens,
            staleness: self.setting.staleness,
            pause: self.setting.pause,
            pending: Vec::new(),
            watchers: Vec::new(),
            copies: Copies::default(),
            probes: 0,
            ways: HashSet::new(),
            keyed: Vec::new(),
            sent: HashMap::new(),
        };
        let result = case.run(steps).await;
        self.ways.extend(&case.ways);
        self.hits += case.gateway.response_cache_lookups().await.0;
        let metrics = case.gateway.metrics().await;
        self.confirmed += metrics["gateway_requests_total{status=\"3xx\"}"];
        self.replayed += metrics["gateway_idempotent_changes_total{outcome=\"replayed\"}"];
        result
    }
}

fn check(setting: Setting) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runner = Mutex::new(runtime.block_on(Runner::new(setting)));
    let config = Config::default();
    let is_said = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if is_said { config.cases } else { CASES };
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 300, max_shrink_time: 30_000, ..config };
    let result = TestRunner::new(config).run(&any_steps(), |steps| {
        let mut runner = runner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        runtime.block_on(runner.run(&steps)).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{setting:?}: {error}");
    }
    let Runner { ways, hits, confirmed, replayed, .. } = runner.into_inner().unwrap();
    let mut expected = vec![Source::Call, Source::Cached, Source::Watched];
    match setting {
        Setting { pause: Duration::ZERO, .. } => expected.push(Source::Listed),
        Setting { staleness: Staleness::IfError, .. } => expected.push(Source::Stale),
        _ => {}
    }
    if !setting.pause.is_zero() {
        expected.push(Source::Renewed);
    }
    let missing: Vec<_> = expected.into_iter().filter(|way| !ways.contains(way)).collect();
    assert!(missing.is_empty(), "{setting:?}: nobody was told anything by way of {missing:?}");
    // Where entries expire, a slow machine repeats few reads in time.
    let least = if setting.pause.is_zero() { f64::from(cases) } else { 1.0 };
    assert!(hits >= least, "{setting:?}: {hits} answers came from the answer cache");
    assert!(confirmed >= least, "{setting:?}: {confirmed} copies were confirmed");
    assert!(replayed > 0.0, "{setting:?}: no change was answered from its record");
}

#[test]
fn responses_conform_to_the_model_of_the_caches() {
    check(SETTINGS[0]);
}

#[test]
fn expired_data_is_never_served() {
    check(SETTINGS[1]);
}

#[test]
fn stale_data_is_marked_and_served_on_upstream_failure_only() {
    check(SETTINGS[2]);
}
