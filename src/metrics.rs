//! What is counted, and how it is read: OpenMetrics text at `/metrics`.
//!
//! Counters are the process's, as the log is: whoever has something to count does so where it happens, through
//! [`metrics`]. A label's value is one of a few words of this program, fixed at compile time, so that neither an id nor
//! anything of a caller can become one.

use std::sync::LazyLock;

use async_graphql::ServerError;
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{
    credentials::rejection::Rejection,
    error::{self, code::CODES, limit::LIMITS},
};

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds, in seconds, of the classes in which durations are counted.
const SECONDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The routes of the upstream, each with a circuit breaker of its own.
const ROUTES: &[&str] = &["appointment", "list", "change"];

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::register(Registry::with_prefix("gateway")));

/// What the process counts.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests answered, by the class of their status.
    pub requests: Counters,
    /// How long requests took, from the last byte of their headers to the first of the answer.
    pub request_duration: Histogram,
    /// Operations that were found valid and run.
    pub operations: Counters,
    /// How what is run of a document was come by: from the cache; anew of a known text, for what its variables decide; or
    /// of a text that is not known.
    pub documents: Counters,
    /// Errors that clients were told, by their code.
    pub errors: Counters,
    /// What limits refused, by the limit's name.
    pub limited: Counters,
    /// Queries and changes that are being carried out.
    pub operations_in_flight: Level,
    /// Operations that wait for their turn.
    pub operations_waiting: Level,
    /// Connections that are open, but for those that have become WebSockets.
    pub connections: Level,
    /// WebSockets that are open.
    pub websockets: Level,
    /// Event streams of subscriptions that are open.
    pub event_streams: Level,
    /// Lines of the log that were dropped, since the reader of standard error was too slow.
    pub log_lines_dropped: Counter,
    /// Panics that were caught: each is a fault of the gateway.
    pub panics: Counter,
    /// How appointments that were asked for were come by.
    pub appointments: Counters,
    /// Requests that were looked up in the answer cache, by what came of it.
    pub answer_lookups: Counters,
    /// What was kept and had to go, by why.
    pub evictions: Counters,
    /// What the memories hold, as of the moment at which it is asked for.
    pub kept: Memories,
    /// Bytes of answers in memory, as of the moment at which it is asked for.
    pub response_memory: Gauge,
    /// Calls to the upstream, by what came of them.
    pub upstream_calls: Counters,
    /// How long calls to the upstream took, from the request to the last byte of the answer.
    pub upstream_call_duration: Histogram,
    /// Calls to the upstream that are being made.
    pub upstream_under_way: Level,
    /// Calls to the upstream that wait for their turn.
    pub upstream_waiting: Level,
    /// Calls that were repeated, by what came of the attempt before.
    pub upstream_retries: Counters,
    /// Calls that would have been repeated, were it not too many for `upstream.retry_percent`.
    pub upstream_retries_withheld: Counter,
    /// Calls that were not made, since the upstream told their caller to wait.
    pub upstream_paused: Counter,
    /// Calls that were sent a second time because they took long, and those of them of which the second answer counted.
    pub upstream_hedges: Counters,
    /// The state of the circuit breaker of each route: 0 closed, 1 half-open, 2 open.
    pub upstream_breaker: Gauges,
    /// Changes of state of circuit breakers, by the new state.
    pub upstream_breaker_turns: Counters,
    /// Calls that were not made since the circuit breaker was open, by route.
    pub upstream_breaker_refusals: Counters,
    /// Fetches of the gateway's own token, by what came of them.
    pub service_token_fetches: Counters,
    /// Fetches of the keys that callers' tokens are verified with, by what came of them.
    pub caller_key_fetches: Counters,
    /// Callers who were turned away, by why.
    pub rejected_callers: Counters,
    process: Process,
}

/// What the memories hold, by what they are for.
#[derive(Debug, Default)]
pub struct Memories {
    entries: Family<[(&'static str, &'static str); 1], Gauge>,
    size: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl Memories {
    fn register(registry: &mut Registry) -> Self {
        let kept = Self::default();
        registry.register("cache_entries", "What is kept", kept.entries.clone());
        let size = kept.size.clone();
        registry.register_with_unit("cache_size", "The memory that it takes", Unit::Bytes, size);
        kept
    }

    /// Of each memory, how many entries there are and how many bytes they take.
    pub fn set(&self, of: &[(&'static str, (usize, u64))]) {
        for (cache, (entries, bytes)) in of {
            let label = [("cache", *cache)];
            self.entries.get_or_create(&label).set(*entries as i64);
            self.size.get_or_create(&label).set(*bytes as i64);
        }
    }
}

/// What came of a fetch: with [`fetched`], the values of a label.
const FETCHED: [&str; 2] = ["ok", "failed"];

/// The word for what came of a fetch.
pub fn fetched<T, E>(outcome: &Result<T, E>) -> &'static str {
    FETCHED[usize::from(outcome.is_err())]
}

/// Of the process, as of the moment at which it is asked for.
#[derive(Debug, Default)]
struct Process {
    tasks: Gauge,
    open_files: Gauge,
    resident_memory: Gauge,
}

impl Metrics {
    /// Counts errors that clients are told, by their code and by their limit.
    pub fn count_errors(&self, errors: &[ServerError]) {
        errors.iter().filter_map(error::code).for_each(|code| self.errors.count(code.as_str()));
        errors.iter().filter_map(error::limit).for_each(|limit| self.limited.count(limit.as_str()));
    }

    fn register(mut registry: Registry) -> Self {
        let r = &mut registry;
        Self {
            requests: counters(
                r,
                "requests",
                "Requests answered, by the class of their status",
                "status",
                &["1xx", "2xx", "3xx", "4xx", "5xx"],
            ),
            request_duration: durations(r, "request_duration", "How long requests took"),
            operations: counters(
                r,
                "operations",
                "Operations run, by their kind",
                "kind",
                &["query", "mutation", "subscription"],
            ),
            documents: counters(
                r,
                "documents",
                "DocumentCache asked for, by how what is run of them was come by",
                "from",
                &["cache", "variables", "text"],
            ),
            errors: counters(r, "errors", "Errors that clients were told, by their code", "code", CODES),
            limited: counters(r, "limited", "What limits refused, by the limit's name", "limit", LIMITS),
            operations_in_flight: level(r, "operations_in_flight", "Queries and changes being carried out"),
            operations_waiting: level(r, "operations_waiting", "Operations that wait for their turn"),
            connections: level(r, "connections", "Connections that are open, WebSockets aside"),
            websockets: level(r, "websockets", "WebSockets that are open"),
            event_streams: level(r, "event_streams", "Event streams of subscriptions that are open"),
            log_lines_dropped: counter(r, "log_lines_dropped", "Log lines dropped for want of a reader"),
            panics: counter(r, "panics", "Faults of the gateway that were caught"),
            appointments: counters(
                r,
                "appointments",
                "Appointments asked for, by how they were come by",
                "from",
                &["cache", "call_under_way", "new_call", "stale"],
            ),
            answer_lookups: counters(
                r,
                "answer_lookups",
                "Requests looked up in the answer cache, by whether it had their answer",
                "outcome",
                &["hit", "miss"],
            ),
            evictions: counters(
                r,
                "evictions",
                "What was kept and had to go, by why: its time, the room, the share of its caller, a refusal",
                "cause",
                &["time", "room", "share", "refusal"],
            ),
            kept: Memories::register(r),
            response_memory: bytes(r, "response_memory", "Memory reserved for answers, cached ones included"),
            upstream_calls: counters(
                r,
                "upstream_calls",
                "Calls to the upstream, by what came of them",
                "outcome",
                &[
                    "ok",
                    "unauthenticated",
                    "forbidden",
                    "not_found",
                    "conflict",
                    "rejected",
                    "rate_limited",
                    "failed",
                    "unexpected",
                    "unreachable",
                    "timeout",
                    "invalid",
                    "abandoned",
                ],
            ),
            upstream_call_duration: durations(
                r,
                "upstream_call_duration",
                "How long calls to the upstream took",
            ),
            upstream_under_way: level(r, "upstream_under_way", "Calls to the upstream that are being made"),
            upstream_waiting: level(r, "upstream_waiting", "Calls to the upstream that wait for their turn"),
            upstream_retries: counters(
                r,
                "upstream_retries",
                "Calls that were repeated, by what came of the attempt before",
                "after",
                &["failed", "rate_limited", "timeout", "unreachable"],
            ),
            upstream_retries_withheld: counter(
                r,
                "upstream_retries_withheld",
                "Calls that were not repeated since too many were already",
            ),
            upstream_paused: counter(
                r,
                "upstream_paused",
                "Calls that were not made since the upstream told their caller to wait",
            ),
            upstream_hedges: counters(
                r,
                "upstream_hedges",
                "Calls that were sent a second time because they took long, and those that it answered first",
                "hedge",
                &["sent", "won"],
            ),
            upstream_breaker: gauges(
                r,
                "upstream_breaker",
                "State of the circuit breaker: 0 closed, 1 half-open, 2 open",
                "route",
                ROUTES,
            ),
            upstream_breaker_turns: counters(
                r,
                "upstream_breaker_turns",
                "Changes of state of circuit breakers, by the new state",
                "to",
                &["closed", "half_open", "open"],
            ),
            upstream_breaker_refusals: counters(
                r,
                "upstream_breaker_refusals",
                "Calls that were not made since the circuit breaker was open",
                "route",
                ROUTES,
            ),
            service_token_fetches: counters(
                r,
                "service_token_fetches",
                "Fetches of the gateway's own token, by what came of them",
                "outcome",
                &FETCHED,
            ),
            caller_key_fetches: counters(
                r,
                "caller_key_fetches",
                "Fetches of the keys that callers' tokens are verified with, by what came of them",
                "outcome",
                &FETCHED,
            ),
            rejected_callers: counters(
                r,
                "rejected_callers",
                "Callers turned away, by why",
                "reason",
                &Rejection::ALL.map(Rejection::reason),
            ),
            process: Process::register(r),
            registry,
        }
    }

    /// Everything in the text form of OpenMetrics 1.0.
    pub fn text(&self) -> String {
        self.process.observe();
        let mut text = String::new();
        // A string takes whatever is written to it.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

impl Process {
    fn register(registry: &mut Registry) -> Self {
        let resident_memory = bytes(registry, "resident_memory", "Memory that is in use");
        let process = Self { resident_memory, ..Self::default() };
        registry.register("tasks", "Tasks that are alive", process.tasks.clone());
        registry.register("open_files", "File descriptors that are open", process.open_files.clone());
        process
    }

    /// What the system does not tell stays at 0.
    fn observe(&self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.tasks.set(runtime.metrics().num_alive_tasks() as i64);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            // But for the one that counts them.
            self.open_files.set(files.count() as i64 - 1);
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        if let Some(kibibytes) = resident.and_then(|number| number.trim().parse::<i64>().ok()) {
            self.resident_memory.set(kibibytes * 1024);
        }
    }
}

/// Counters that differ in the value of one label.
#[derive(Debug)]
pub struct Counters(Vec<(&'static str, Counter)>);

impl Counters {
    /// Counts one more of `value`; of what is no value of the label, nothing. The tests do not let that happen.
    pub fn count(&self, value: &str) {
        self.count_many(value, 1);
    }

    /// Counts so many more of `value`.
    pub fn count_many(&self, value: &str, more: u64) {
        let counter = self.0.iter().find(|(known, _)| *known == value);
        debug_assert!(counter.is_some(), "the label has all the values that are counted");
        if let Some((_, counter)) = counter {
            counter.inc_by(more);
        }
    }
}

/// Gauges that differ in the value of one label.
#[derive(Debug)]
pub struct Gauges(Vec<(&'static str, Gauge)>);

impl Gauges {
    /// Shows `state` of `value`; of what is no value of the label, nothing.
    pub fn set(&self, value: &str, state: i64) {
        if let Some((_, gauge)) = self.0.iter().find(|(known, _)| *known == value) {
            gauge.set(state);
        }
    }
}

/// How many of something there are now.
#[derive(Debug, Clone, Default)]
pub struct Level(Gauge);

/// One of those that a [`Level`] counts, for as long as it is held.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Level {
    /// One more, until it is dropped.
    pub fn one(&self) -> Counted {
        self.0.inc();
        Counted(self.0.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// All there from the start, so that a first time shows as a rise.
fn counters(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[&'static str],
) -> Counters {
    let family = Family::<[(&str, &str); 1], Counter>::default();
    registry.register(name, help, family.clone());
    Counters(values.iter().map(|value| (*value, family.get_or_create_owned(&[(label, value)]))).collect())
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauges(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[&'static str],
) -> Gauges {
    let family = Family::<[(&str, &str); 1], Gauge>::default();
    registry.register(name, help, family.clone());
    Gauges(values.iter().map(|value| (*value, family.get_or_create_owned(&[(label, value)]))).collect())
}

fn level(registry: &mut Registry, name: &str, help: &str) -> Level {
    let level = Level::default();
    registry.register(name, help, level.0.clone());
    level
}

fn bytes(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
    gauge
}

fn durations(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = Histogram::new(SECONDS);
    registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}
