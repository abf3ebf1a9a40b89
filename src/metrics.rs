//! The metrics of the process, and their exposition as OpenMetrics text at `/metrics`.
//!
//! Every module counts its own events through [`metrics`]. Label values are fixed at compile time, so no id and no text of
//! a caller can become one.

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

/// Upper bounds of the histogram buckets of durations, in seconds.
const DURATION_BUCKETS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The upstream routes. Each has its own circuit breaker.
const ROUTES: &[&str] = &["appointment", "list", "change"];

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::register(Registry::with_prefix("gateway")));

/// Returns the metrics of the process.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// The metrics of the gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// HTTP responses by status class.
    pub requests: Counters,
    /// Request duration, from the last byte of the request headers to the first byte of the response.
    pub request_duration: Histogram,
    /// Executed operations by kind.
    pub operations: Counters,
    /// Requests with an array of operations, by whether the response cache answered them.
    pub batches: Counters,
    /// Document cache lookups by result: a hit, a hit whose plan had to be made for other variables, or a miss.
    pub documents: Counters,
    /// Requests with persisted queries by outcome.
    pub persisted_queries: Counters,
    /// Requested documents that are not trusted, unless `documents.mode` is off: texts, and unknown ids.
    pub untrusted_documents: Counters,
    /// Trusted documents.
    pub trusted_documents: Gauge,
    /// Loads of new manifests by outcome.
    pub trusted_document_loads: Counters,
    /// Changes with an idempotency key by the source of their outcome, and refused requests.
    pub idempotent_changes: Counters,
    /// Changes of a fleet by whether all replicas have acknowledged them.
    pub shared_changes: Counters,
    /// Received messages of a fleet by kind.
    pub shared_messages: Counters,
    /// Calls to the shared Redis by outcome.
    pub shared_calls: Counters,
    /// Lookups of copies that other replicas have stored (`shared.cache`), by outcome.
    pub shared_cache_lookups: Counters,
    /// Whether this replica has joined the fleet.
    pub shared_joined: Gauge,
    /// Watched appointments that this replica polls for the fleet.
    pub shared_pollers: ActiveGauge,
    /// Client errors by code.
    pub errors: Counters,
    /// Rejections by limit.
    pub limited: Counters,
    /// Queries and mutations in progress.
    pub operations_in_flight: ActiveGauge,
    /// Operations waiting for a slot of the concurrency limit.
    pub operations_waiting: ActiveGauge,
    /// Open connections, without WebSockets.
    pub connections: ActiveGauge,
    /// Open WebSockets.
    pub websockets: ActiveGauge,
    /// Open event streams.
    pub event_streams: ActiveGauge,
    /// Log lines dropped because standard error was read too slowly.
    pub log_lines_dropped: Counter,
    /// Panics. Each is a bug of the gateway.
    pub panics: Counter,
    /// Requested appointments by source.
    pub appointments: Counters,
    /// Response cache lookups by outcome.
    pub answer_lookups: Counters,
    /// Cache evictions by cause.
    pub evictions: Counters,
    /// Entries and sizes of the caches, updated at each scrape.
    pub caches: CacheGauges,
    /// Memory reserved for responses, updated at each scrape.
    pub response_memory: Gauge,
    /// Upstream calls by outcome.
    pub upstream_calls: Counters,
    /// Duration of upstream calls, from the request to the last byte of the response.
    pub upstream_call_duration: Histogram,
    /// Upstream calls in progress.
    pub upstream_under_way: ActiveGauge,
    /// Upstream calls waiting for a slot of the concurrency limit.
    pub upstream_waiting: ActiveGauge,
    /// Conditional upstream requests by outcome: unchanged (304) or changed.
    pub revalidations: Counters,
    /// Upstream retries by outcome of the previous attempt.
    pub upstream_retries: Counters,
    /// Upstream retries omitted because the retry budget (`upstream.retry_percent`) was exhausted.
    pub upstream_retries_withheld: Counter,
    /// Upstream calls rejected while their caller was paused by a `Retry-After`.
    pub upstream_paused: Counter,
    /// Hedged upstream calls: second attempts sent, and second attempts that responded first.
    pub upstream_hedges: Counters,
    /// Circuit breaker state by route: 0 closed, 1 half-open, 2 open.
    pub upstream_breaker: Gauges,
    /// Circuit breaker transitions by new state.
    pub upstream_breaker_turns: Counters,
    /// Upstream calls rejected by an open circuit breaker, by route.
    pub upstream_breaker_refusals: Counters,
    /// Requests for the gateway's own token by outcome.
    pub service_token_fetches: Counters,
    /// JWKS requests by outcome.
    pub caller_key_fetches: Counters,
    /// Rejected credentials by reason.
    pub rejected_callers: Counters,
    process: ProcessGauges,
}

/// Entries and sizes of the caches.
#[derive(Debug, Default)]
pub struct CacheGauges {
    entries: Family<[(&'static str, &'static str); 1], Gauge>,
    size: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl CacheGauges {
    fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        registry.register("cache_entries", "Cache entries", gauges.entries.clone());
        let size = gauges.size.clone();
        registry.register_with_unit("cache_size", "Memory used by cache entries", Unit::Bytes, size);
        gauges
    }

    /// Sets the number of entries and their bytes, by cache.
    pub fn set(&self, totals: &[(&'static str, (usize, u64))]) {
        for (cache, (entries, bytes)) in totals {
            let label = [("cache", *cache)];
            self.entries.get_or_create(&label).set(*entries as i64);
            self.size.get_or_create(&label).set(*bytes as i64);
        }
    }
}

/// The label values of [`fetch_outcome`].
const FETCH_OUTCOMES: [&str; 2] = ["ok", "failed"];

/// Returns the label value for the outcome of a fetch.
pub fn fetch_outcome<T, E>(outcome: &Result<T, E>) -> &'static str {
    FETCH_OUTCOMES[usize::from(outcome.is_err())]
}

/// Gauges of the process, updated at each scrape.
#[derive(Debug, Default)]
struct ProcessGauges {
    tasks: Gauge,
    open_files: Gauge,
    resident_memory: Gauge,
}

impl Metrics {
    /// Counts the errors of a response by code and by limit.
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
                "HTTP responses by status class",
                "status",
                &["1xx", "2xx", "3xx", "4xx", "5xx"],
            ),
            request_duration: durations(r, "request_duration", "Request duration"),
            operations: counters(
                r,
                "operations",
                "Executed operations by kind",
                "kind",
                &["query", "mutation", "subscription"],
            ),
            batches: counters(
                r,
                "batches",
                "Accepted arrays of operations by source of the response",
                "from",
                &["execution", "cache"],
            ),
            documents: counters(
                r,
                "documents",
                "Document cache lookups by result",
                "from",
                &["cache", "variables", "text"],
            ),
            persisted_queries: counters(
                r,
                "persisted_queries",
                "Persisted queries: trusted documents found, registered texts found here (hit) and in the shared Redis (shared), ids \
                 not found, texts that do not belong to their id, and texts registered",
                "outcome",
                &["trusted", "hit", "shared", "miss", "mismatch", "registered"],
            ),
            untrusted_documents: counters(
                r,
                "untrusted_documents",
                "Requested documents that are not trusted, run with documents.mode = log and refused with require: texts, and \
                 unknown ids",
                "by",
                &["text", "id"],
            ),
            trusted_documents: gauge(r, "trusted_documents", "Trusted documents that can be named by an id"),
            trusted_document_loads: counters(
                r,
                "trusted_document_loads",
                "Loads of new manifests by outcome",
                "outcome",
                &FETCH_OUTCOMES,
            ),
            idempotent_changes: counters(
                r,
                "idempotent_changes",
                "Changes with an idempotency key: sent, joined in flight, and replayed; those sent without a claim in the \
                 shared Redis (unclaimed); requests with a key of another request (mismatch), and without memory for a \
                 record (refused)",
                "outcome",
                &["sent", "joined", "replayed", "unclaimed", "mismatch", "refused"],
            ),
            shared_changes: counters(
                r,
                "shared_changes",
                "Changes by whether all replicas acknowledged them in time",
                "outcome",
                &["acknowledged", "unacknowledged", "unpublished", "unneeded"],
            ),
            shared_messages: counters(
                r,
                "shared_messages",
                "Messages received from the replicas of the fleet",
                "kind",
                &["change", "revocation", "observation"],
            ),
            shared_calls: counters(
                r,
                "shared_calls",
                "Calls to the shared Redis by outcome",
                "outcome",
                &["ok", "timeout", "error"],
            ),
            shared_cache_lookups: counters(
                r,
                "shared_cache_lookups",
                "Lookups in the shared cache by outcome",
                "outcome",
                &["hit", "miss", "unavailable"],
            ),
            shared_joined: gauge(r, "shared_joined", "Whether this replica has joined the fleet"),
            shared_pollers: active_gauge(
                r,
                "shared_pollers",
                "Watched appointments that this replica polls for the fleet",
            ),
            errors: counters(r, "errors", "Client errors by code", "code", CODES),
            limited: counters(r, "limited", "Rejections by limit", "limit", LIMITS),
            operations_in_flight: active_gauge(
                r,
                "operations_in_flight",
                "Queries and mutations in progress",
            ),
            operations_waiting: active_gauge(
                r,
                "operations_waiting",
                "Operations waiting for a concurrency slot",
            ),
            connections: active_gauge(r, "connections", "Open connections, without WebSockets"),
            websockets: active_gauge(r, "websockets", "Open WebSockets"),
            event_streams: active_gauge(r, "event_streams", "Open event streams"),
            log_lines_dropped: counter(r, "log_lines_dropped", "Log lines dropped because of a slow reader"),
            panics: counter(r, "panics", "Panics of the gateway"),
            appointments: counters(
                r,
                "appointments",
                "Requested appointments by source",
                "from",
                &["cache", "call_under_way", "new_call", "shared_cache", "stale"],
            ),
            answer_lookups: counters(
                r,
                "answer_lookups",
                "Response cache lookups by outcome",
                "outcome",
                &["hit", "miss"],
            ),
            evictions: counters(
                r,
                "evictions",
                "Cache evictions by cause: expiry (time), memory limit (room), caller share or revocation (refusal)",
                "cause",
                &["time", "room", "share", "refusal"],
            ),
            caches: CacheGauges::register(r),
            response_memory: bytes(
                r,
                "response_memory",
                "Memory reserved for responses, including cached ones",
            ),
            upstream_calls: counters(
                r,
                "upstream_calls",
                "Upstream calls by outcome",
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
            upstream_call_duration: durations(r, "upstream_call_duration", "Upstream call duration"),
            upstream_under_way: active_gauge(r, "upstream_under_way", "Upstream calls in progress"),
            upstream_waiting: active_gauge(
                r,
                "upstream_waiting",
                "Upstream calls waiting for a concurrency slot",
            ),
            revalidations: counters(
                r,
                "revalidations",
                "Conditional upstream requests by outcome: unchanged (304) or changed",
                "outcome",
                &["unchanged", "changed"],
            ),
            upstream_retries: counters(
                r,
                "upstream_retries",
                "Upstream retries by outcome of the previous attempt",
                "after",
                &["failed", "rate_limited", "timeout", "unreachable"],
            ),
            upstream_retries_withheld: counter(
                r,
                "upstream_retries_withheld",
                "Upstream retries omitted because of an exhausted retry budget",
            ),
            upstream_paused: counter(
                r,
                "upstream_paused",
                "Upstream calls rejected while their caller was paused by Retry-After",
            ),
            upstream_hedges: counters(
                r,
                "upstream_hedges",
                "Hedged upstream calls: second attempts sent, and those that responded first",
                "hedge",
                &["sent", "won"],
            ),
            upstream_breaker: gauges(
                r,
                "upstream_breaker",
                "Circuit breaker state by route: 0 closed, 1 half-open, 2 open",
                "route",
                ROUTES,
            ),
            upstream_breaker_turns: counters(
                r,
                "upstream_breaker_turns",
                "Circuit breaker transitions by new state",
                "to",
                &["closed", "half_open", "open"],
            ),
            upstream_breaker_refusals: counters(
                r,
                "upstream_breaker_refusals",
                "Upstream calls rejected by an open circuit breaker",
                "route",
                ROUTES,
            ),
            service_token_fetches: counters(
                r,
                "service_token_fetches",
                "Requests for the gateway's own token by outcome",
                "outcome",
                &FETCH_OUTCOMES,
            ),
            caller_key_fetches: counters(
                r,
                "caller_key_fetches",
                "JWKS requests by outcome",
                "outcome",
                &FETCH_OUTCOMES,
            ),
            rejected_callers: counters(
                r,
                "rejected_callers",
                "Rejected credentials by reason",
                "reason",
                &Rejection::ALL.map(Rejection::reason),
            ),
            process: ProcessGauges::register(r),
            registry,
        }
    }

    /// Returns all metrics in the text format of OpenMetrics 1.0.
    pub fn text(&self) -> String {
        self.process.observe();
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

impl ProcessGauges {
    fn register(registry: &mut Registry) -> Self {
        let resident_memory = bytes(registry, "resident_memory", "Resident memory");
        let process = Self { resident_memory, ..Self::default() };
        registry.register("tasks", "Live tasks", process.tasks.clone());
        registry.register("open_files", "Open file descriptors", process.open_files.clone());
        process
    }

    /// Updates the gauges. A value that the system does not provide stays at 0.
    fn observe(&self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.tasks.set(runtime.metrics().num_alive_tasks() as i64);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            // Without the descriptor of this directory.
            self.open_files.set(files.count() as i64 - 1);
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        if let Some(kibibytes) = resident.and_then(|number| number.trim().parse::<i64>().ok()) {
            self.resident_memory.set(kibibytes * 1024);
        }
    }
}

/// Counters by the value of one label.
#[derive(Debug)]
pub struct Counters(Vec<(&'static str, Counter)>);

impl Counters {
    /// Increments the counter of `value`. Ignores an unknown value, which panics in debug builds.
    pub fn count(&self, value: &str) {
        self.count_many(value, 1);
    }

    /// Adds `amount` to the counter of `value`.
    pub fn count_many(&self, value: &str, amount: u64) {
        let counter = self.0.iter().find(|(known, _)| *known == value);
        debug_assert!(counter.is_some(), "{value} is not a value of the label");
        if let Some((_, counter)) = counter {
            counter.inc_by(amount);
        }
    }
}

/// Gauges by the value of one label.
#[derive(Debug)]
pub struct Gauges(Vec<(&'static str, Gauge)>);

impl Gauges {
    /// Sets the gauge of `value`. Ignores an unknown value.
    pub fn set(&self, value: &str, state: i64) {
        if let Some((_, gauge)) = self.0.iter().find(|(known, _)| *known == value) {
            gauge.set(state);
        }
    }
}

/// A gauge of active things: each [`ActiveGuard`] counts as one.
#[derive(Debug, Clone, Default)]
pub struct ActiveGauge(Gauge);

/// One of the things that an [`ActiveGauge`] counts, until it is dropped.
#[derive(Debug)]
pub struct ActiveGuard(Gauge);

impl ActiveGauge {
    /// Counts one more until the guard is dropped.
    pub fn enter(&self) -> ActiveGuard {
        self.0.inc();
        ActiveGuard(self.0.clone())
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Registers a counter for each label value. All start at 0, so that the first event shows as an increase.
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

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
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

fn active_gauge(registry: &mut Registry, name: &str, help: &str) -> ActiveGauge {
    let gauge = ActiveGauge::default();
    registry.register(name, help, gauge.0.clone());
    gauge
}

fn bytes(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
    gauge
}

fn durations(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = Histogram::new(DURATION_BUCKETS);
    registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}
