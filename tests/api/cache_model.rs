//! A model of what is remembered: whatever is read, changed, refused, given up and waited for, in whatever order, by
//! several callers of several appointments, nobody is told what the [model](judge) does not allow.
//!
//! Everything happens in an order that the test decides: the [far side](far_side) holds each answer back until the next
//! step is to let go of it, and every step waits until its effect is seen. Nothing is timed but what is to expire.
//!
//! Reads are repeated to the letter, in each of several manners, so that many are answered from the answer cache: the model
//! knows nothing of that, and judges them like all others.

mod far_side;
mod judge;

use std::{
    collections::{HashMap, HashSet},
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
    task::JoinHandle,
    time::{sleep, timeout},
};

use self::{
    far_side::{FarSide, IDS, Outcome, Subject},
    judge::{Read, Staleness, Told, Way, judge},
};
use crate::{
    freshness::jwt,
    support::{Answer, Gateway, PATIENCE, Reply, Upstream, Way as Manner},
};

/// How many cases there are for each [`Setting`], unless `PROPTEST_CASES` says so.
const CASES: u32 = 24;

/// The callers; the last one's token has expired.
const CALLERS: usize = 3;

/// How reads are sent.
const MANNERS: [Manner; 4] =
    [Manner::POST, Manner::GET, Manner::POST.taking("br"), Manner::GET.taking("gzip, identity;q=0.5")];

/// As much of an appointment as is worth compressing.
const FIELDS: &str =
    "{ id reference status claimant { name phoneNumber email dateOfBirth data { name value } } }";

#[derive(Debug, Clone)]
enum Step {
    /// Somebody reads, so many times, in one of the manners.
    Read(usize, Subject, usize, usize),
    /// Somebody changes something, and this becomes of it.
    Change(usize, usize, Outcome),
    /// The upstream answers one of the calls that it holds.
    Release(usize),
    /// One of those who wait hangs up.
    Abandon(usize),
    /// From now on somebody's reads are answered so.
    Mode(usize, Subject, Outcome),
    /// What is kept gets past its time.
    Pause,
}

fn any_subject() -> impl Strategy<Value = Subject> {
    prop_oneof![3 => (0..IDS).prop_map(Subject::One), 1 => Just(Subject::List)]
}

fn any_step() -> impl Strategy<Value = Step> {
    let of_read = prop_oneof![1 => Just(Outcome::Shown), 2 => select(&Outcome::OF_READS[..])];
    let of_change = prop_oneof![1 => Just(Outcome::Shown), 2 => select(&Outcome::OF_CHANGES[..])];
    prop_oneof![
        8 => (0..CALLERS, any_subject(), 0..MANNERS.len(), 1..4_usize)
            .prop_map(|(caller, subject, manner, times)| Step::Read(caller, subject, manner, times)),
        3 => (0..CALLERS, 0..IDS, of_change).prop_map(|(caller, n, outcome)| Step::Change(caller, n, outcome)),
        9 => any::<usize>().prop_map(Step::Release),
        3 => any::<usize>().prop_map(Step::Abandon),
        3 => (0..CALLERS, any_subject(), of_read)
            .prop_map(|(caller, subject, outcome)| Step::Mode(caller, subject, outcome)),
        1 => Just(Step::Pause),
    ]
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
    Setting { ttl: "100ms", pause: Duration::from_millis(120), staleness: Staleness::Never },
    Setting { ttl: "100ms", pause: Duration::from_millis(120), staleness: Staleness::IfError },
];

impl Setting {
    async fn gateway(self, upstream: &Upstream) -> Gateway {
        let stale_if_error = if self.staleness == Staleness::Never { "0" } else { "10m" };
        let settings = [
            ("cache.ttl", self.ttl),
            ("cache.absence_ttl", self.ttl),
            ("cache.list_ttl", self.ttl),
            ("cache.stale_if_error", stale_if_error),
            ("upstream.timeout", "60s"),
            ("http.deadline", "60s"),
        ];
        Gateway::before(upstream.url(), &settings).await
    }
}

/// The far sides of all cases, by the tokens of their callers.
type FarSides = Arc<Mutex<HashMap<String, FarSide>>>;

/// A case while it runs.
struct Case {
    gateway: Arc<Gateway>,
    upstream: Arc<Upstream>,
    far: FarSide,
    tokens: Vec<String>,
    staleness: Staleness,
    pause: Duration,
    pending: Vec<Pending>,
    probes: usize,
    ways: HashSet<Way>,
}

/// Somebody who waits.
struct Pending {
    /// None where it is a change.
    read: Option<Read>,
    call: usize,
    reply: JoinHandle<Reply>,
}

impl Case {
    async fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        for (n, step) in steps.iter().enumerate() {
            self.step(step).await.map_err(|fault| format!("step {n}, {step:?}: {fault}"))?;
            if let Some(violation) = self.far.log().violation.take() {
                return Err(format!("step {n}, {step:?}: {violation}"));
            }
        }
        // At the end everybody gets an answer, and looks at everything once more; and again when it is past its time and
        // the upstream fails.
        self.release_all().await?;
        self.read_all().await?;
        if !self.pause.is_zero() {
            self.step(&Step::Pause).await?;
            for (caller, subject) in Self::everything() {
                self.step(&Step::Mode(caller, subject, Outcome::Failed)).await?;
            }
            self.read_all().await?;
        }
        Ok(())
    }

    /// Appointments that a list brings, and a list that is kept.
    fn everything() -> impl Iterator<Item = (usize, Subject)> {
        let subjects = [Subject::List, Subject::One(0), Subject::One(1), Subject::List];
        (0..CALLERS).flat_map(move |caller| subjects.map(|subject| (caller, subject)))
    }

    async fn read_all(&mut self) -> Result<(), String> {
        for manner in 0..MANNERS.len() {
            for (caller, subject) in Self::everything() {
                self.read(caller, subject, manner).await?;
                self.release_all().await?;
            }
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
            Step::Change(caller, n, outcome) => self.change(*caller, *n, *outcome).await,
            Step::Release(n) => {
                let held = self.held();
                if !held.is_empty() {
                    self.release(held[n % held.len()]).await?;
                }
            }
            Step::Abandon(n) => {
                // A change goes on whoever leaves, so that nobody would see its end.
                let reads: Vec<_> =
                    (0..self.pending.len()).filter(|n| self.pending[*n].read.is_some()).collect();
                if !reads.is_empty() {
                    let leaving = self.pending.remove(reads[n % reads.len()]);
                    self.abandon(leaving).await;
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
        assert!(self.pending.is_empty(), "nobody waits for nothing");
        Ok(())
    }

    /// Asks, and waits until there is an answer, or it is known which call it waits for.
    async fn read(&mut self, caller: usize, subject: Subject, manner: usize) -> Result<(), String> {
        let scope = self.tokens[caller].clone();
        let (asked, joins) = {
            let mut log = self.far.log();
            (log.tick(), log.joinable(&scope, subject))
        };
        let read = Read { scope: scope.clone(), subject, asked };
        let mut query = match subject {
            Subject::One(n) => format!("it: appointment(id: {:?}) {FIELDS}", self.far.id(n)),
            Subject::List => format!("it: appointments(first: {IDS}) {{ nodes {FIELDS} }}"),
        };
        // Who joins a call leaves no trace upstream, but by what else it asks for at the same time.
        let probe = joins.map(|_| self.far.probe(self.probes));
        if let Some(probe) = &probe {
            self.probes += 1;
            query += &format!(" probe: appointment(id: {probe:?}) {{ id }}");
        }
        let gateway = self.gateway.clone();
        let query = format!("{{ {query} }}");
        let reply = tokio::spawn(async move { MANNERS[manner].ask(&gateway, &scope, &query).await });
        let mut changed = self.far.watch();
        let call = loop {
            {
                let log = self.far.log();
                let made = log.reads(&read.scope, subject).find(|n| log.calls[*n].received > asked);
                let joined = joins.filter(|_| probe.as_ref().is_some_and(|probe| log.is_probed(probe)));
                if let Some(call) = made.or(joined) {
                    break Some(call);
                }
            }
            if reply.is_finished() {
                break None;
            }
            // The reply says nothing when it is there, so it is looked for now and then.
            let _ = timeout(Duration::from_millis(2), changed.changed()).await;
        };
        match call {
            Some(call) => {
                self.far.log().calls[call].waiting += 1;
                self.pending.push(Pending { read: Some(read), call, reply });
                Ok(())
            }
            None => self.judge(&read, reply.await.unwrap()),
        }
    }

    async fn change(&mut self, caller: usize, n: usize, outcome: Outcome) {
        let (gateway, token, id) = (self.gateway.clone(), self.tokens[caller].clone(), self.far.id(n));
        let number = Outcome::OF_CHANGES.iter().position(|it| *it == outcome).unwrap().to_string();
        let call = self.far.log().calls.len();
        let reply =
            tokio::spawn(async move { gateway.update(&token, &id, json!({ "status": number })).await });
        let mut changed = self.far.watch();
        while self.far.log().calls.len() == call {
            timeout(PATIENCE, changed.changed()).await.expect("a change is sent").unwrap();
        }
        self.far.log().calls[call].waiting += 1;
        self.pending.push(Pending { read: None, call, reply });
    }

    /// Lets go of an answer, and waits until everybody has it who waits for it.
    async fn release(&mut self, call: usize) -> Result<(), String> {
        self.far.release(call);
        let (waiting, rest): (Vec<_>, _) = self.pending.drain(..).partition(|pending| pending.call == call);
        self.pending = rest;
        let mut replies = Vec::new();
        for Pending { read, reply, .. } in waiting {
            let reply =
                timeout(PATIENCE, reply).await.map_err(|_| format!("no answer, with that of call {call}"))?;
            replies.push((read, reply.unwrap()));
        }
        {
            let mut log = self.far.log();
            let now = log.tick();
            log.calls[call].settled = Some(now);
        }
        for (read, reply) in replies {
            match read {
                Some(read) => self.judge(&read, reply)?,
                None => self.judge_change(call, &reply)?,
            }
        }
        Ok(())
    }

    /// Somebody hangs up. With the last who waits the call ends, which is waited for.
    async fn abandon(&mut self, leaving: Pending) {
        let is_last = {
            let mut log = self.far.log();
            let call = &mut log.calls[leaving.call];
            call.waiting -= 1;
            call.is_given_up = call.waiting == 0;
            call.is_given_up
        };
        let before = self.upstream.seen(|seen| seen.hung_up);
        leaving.reply.abort();
        let _ = leaving.reply.await;
        if is_last {
            self.upstream.until(|seen| seen.hung_up > before).await;
        }
    }

    fn judge(&mut self, read: &Read, reply: Reply) -> Result<(), String> {
        let told = self.told(read, &reply)?;
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

    /// What a reply to a read says.
    fn told(&self, read: &Read, reply: &Reply) -> Result<Told, String> {
        let fault = || format!("{read:?} was answered {}", reply.body);
        let errors = reply.body["errors"].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(code) = errors.first().map(|error| &error["extensions"]["code"]) {
            return Ok(Told::Failed(code.as_str().ok_or_else(fault)?.to_owned()));
        }
        let it = &reply.body["data"]["it"];
        let is_stale = reply.body["extensions"]["stale"].as_array().is_some_and(|stale| !stale.is_empty());
        let one = |it: &Value, n: usize| {
            let is_it = it["id"] == self.far.id(n).as_str();
            let call: usize = it["status"].as_str().filter(|_| is_it)?.parse().ok()?;
            Some((call, it["reference"].as_str()?.to_owned()))
        };
        let (call, scope) = match read.subject {
            Subject::One(_) if it.is_null() => return Ok(Told::Nothing),
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
        Ok(Told::Shown { call, scope, is_stale })
    }

    /// Who made a change is told what became of it.
    fn judge_change(&self, call: usize, reply: &Reply) -> Result<(), String> {
        let (outcome, subject) = {
            let call = &self.far.log().calls[call];
            (call.outcome, call.subject)
        };
        let payload = &reply.body["data"]["updateAppointment"];
        let is_told = match outcome {
            Outcome::Shown => payload["appointment"]["status"].as_str() == Some(&call.to_string()),
            Outcome::Made => payload["appointment"].is_null() && payload["userErrors"] == json!([]),
            Outcome::Rejected => payload["userErrors"].as_array().is_some_and(|faults| faults.len() == 1),
            _ => outcome.code(subject, true).is_some_and(|code| reply.codes() == [code]),
        };
        if is_told { Ok(()) } else { Err(format!("of the change by call {call}: {}", reply.body)) }
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        self.pending.iter().for_each(|pending| pending.reply.abort());
    }
}

/// Runs cases, each with a gateway of its own.
struct Runner {
    setting: Setting,
    upstream: Arc<Upstream>,
    far_sides: FarSides,
    cases: usize,
    ways: HashSet<Way>,
    /// How many reads were answered from the answer cache.
    hits: f64,
}

impl Runner {
    async fn new(setting: Setting) -> Self {
        let far_sides = FarSides::default();
        let upstream = Upstream::answering({
            let far_sides = far_sides.clone();
            move |call| -> Answer {
                let far = far_sides.lock().unwrap().get(call.token()).cloned();
                far.expect("a token of a case").answer(call)
            }
        });
        let upstream = Arc::new(upstream.await);
        Self { setting, upstream, far_sides, cases: 0, ways: HashSet::new(), hits: 0.0 }
    }

    async fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        self.cases += 1;
        let far = FarSide::of(self.cases);
        let tokens = vec![
            format!("one-{}", self.cases),
            format!("other-{}", self.cases),
            jwt(-1_000 - self.cases as i64),
        ];
        self.far_sides.lock().unwrap().extend(tokens.iter().map(|token| (token.clone(), far.clone())));
        let mut case = Case {
            // A new one, of which no change is in doubt.
            gateway: Arc::new(self.setting.gateway(&self.upstream).await),
            upstream: self.upstream.clone(),
            far,
            tokens,
            staleness: self.setting.staleness,
            pause: self.setting.pause,
            pending: Vec::new(),
            probes: 0,
            ways: HashSet::new(),
        };
        let result = case.run(steps).await;
        self.ways.extend(&case.ways);
        self.hits += case.gateway.answer_lookups().await.0;
        result
    }
}

fn check(setting: Setting) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runner = Mutex::new(runtime.block_on(Runner::new(setting)));
    let config = Config::default();
    let is_said = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if is_said { config.cases } else { CASES };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..config };
    let result = TestRunner::new(config).run(&vec(any_step(), 1..60), |steps| {
        let mut runner = runner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        runtime.block_on(runner.run(&steps)).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{setting:?}: {error}");
    }
    let Runner { ways, hits, .. } = runner.into_inner().unwrap();
    let mut expected = vec![Way::Call, Way::Kept];
    match setting {
        Setting { pause: Duration::ZERO, .. } => expected.push(Way::Listed),
        Setting { staleness: Staleness::IfError, .. } => expected.push(Way::Stale),
        _ => {}
    }
    let missing: Vec<_> = expected.into_iter().filter(|way| !ways.contains(way)).collect();
    assert!(missing.is_empty(), "{setting:?}: nobody was told anything by way of {missing:?}");
    assert!(hits >= f64::from(cases), "{setting:?}: {hits} answers came from the answer cache");
}

#[test]
fn nobody_is_told_what_a_model_of_the_cache_does_not_allow() {
    check(SETTINGS[0]);
}

#[test]
fn nobody_is_told_what_is_past_its_time() {
    check(SETTINGS[1]);
}

#[test]
fn what_is_stale_is_said_to_be_and_only_where_the_upstream_failed() {
    check(SETTINGS[2]);
}
