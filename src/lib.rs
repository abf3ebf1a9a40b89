//! A GraphQL gateway in front of the appointments REST API.
//!
//! It translates GraphQL operations into as few REST calls as possible and caches their results per caller.
//! `docs/architecture.md` describes the design; this page maps it to the modules.
//!
//! # The path of a request
//!
//! Each layer imports only layers below it.
//!
//! ```text
//! server                        listener, connections, timeouts, graceful shutdown
//!  └ http                       request id, header limits, CORS, compression, health, GraphiQL
//!     ├ auth                    bearer tokens, API keys and JWTs to a caller
//!     ├ http::rate_limit        a token bucket per caller
//!     ├ http::graphql           content negotiation, request body, SSE, WebSocket
//!     │  └ http::graphql::response_cache   cached responses of identical requests
//!     ├ http::concurrency       concurrency limits and admission control, fair between callers
//!     └ graphql
//!        ├ graphql::persisted   trusted documents, and texts of persisted queries, by their id
//!        ├ graphql::pipeline    document cache, limits, parsing, validation, variables, cost, query plan
//!        ├ graphql::execute     projection of appointments to JSON
//!        └ graphql::schema      types and resolvers
//!           └ appointments      batching loader, list windows, changes, subscriptions, polling
//!              ├ cache          cache store, quota, freshness, validity, single flight
//!              └ upstream       HTTP client, service token, decoding
//!                 └ upstream::resilience   fair queue, circuit breaker, retry budget, hedging, Retry-After
//! ```
//!
//! Shared by several layers:
//!
//! - [`fleet`]: replicas that share a Redis: leases, the change bus, encryption.
//! - [`model`]: an appointment, decoded once and shared.
//! - [`caller`] and [`credentials`]: the authenticated caller; formats and verification of credentials.
//! - [`fair_queue`]: a concurrency limit with a share per caller, for operations and for upstream calls.
//! - [`response_memory`]: the memory limit of all responses.
//! - [`refresh`]: background refresh of the service token and of the JWKS.
//! - [`http_client`]: outbound HTTP requests.
//! - [`graceful_shutdown`]: draining of requests in flight.
//! - [`config`], [`cli`], [`error`], [`logging`], [`metrics`]: settings, command line, error codes, logs, metrics.
//! - [`sandbox`]: the built-in upstream with made-up data.
//!
//! An upstream error becomes a client error in one place, `upstream::error_mapping`, with a code from a closed set
//! ([`error`]).
//!
//! # Invariants
//!
//! Tests under `tests/api` fail when one is broken. The soak test (`tests/soak`) exercises all of them at once.
//!
//! 1. **Isolation.** Cached and shared data is keyed by the scope of the caller, a keyed 256-bit digest. No caller
//!    receives data fetched for another, unless the operator sets `callers.share_cache`. Requests without a caller never
//!    reach the upstream.
//! 2. **Validity.** `cache::validity` checks every copy when it is served: freshness, eviction, revocation and changes,
//!    including changes in flight or with an unknown outcome, and changes through other replicas of the fleet. During an outage, a copy may be served stale within a bound,
//!    and is marked as stale.
//! 3. **Single flight.** One call per scope and id is in flight, plus a hedged attempt if `upstream.hedge_percent` allows
//!    it. A waiter that leaves does not affect the others. The call is cancelled with its last waiter.
//! 4. **Independence.** A failing id never fails its siblings, and a slow one never delays another operation.
//! 5. **Failures are never cached.** Absence (404) is cached briefly, for the scope that received it.
//! 6. **Bounded growth.** Everything that can grow has a limit in [`config::keys::KEYS`]. Callers above their share of a
//!    cache never evict entries of callers below it.
//! 7. **Privacy.** No log, metric or error contains personal data or a token, at any level. Only events of this crate are
//!    logged ([`logging`]), and types with such data redact it in their `Debug` output.
//! 8. **Upstream protection.** Active and waiting calls are bounded, in total and per caller. A change is made at most once. A GET
//!    is retried within the retry budget, and never before a `Retry-After`. An open circuit breaker rejects calls. Each
//!    watched appointment has one poller per caller.
//! 9. **Partial data.** An invalid field never loses an appointment: it is null, with an error at its path.
//!
//! Deliberate absences:
//!
//! - Outside [`http`] and [`auth::bearer`], no code reads a request header: a [`caller::Caller`] is all that is known about
//!   the client.
//! - Above [`upstream`], no code sees upstream JSON or a status code.
//! - Resolvers are stateless, and do no input or output except through [`appointments`].
//! - Labels of [`metrics`] are fixed words: no id and no text of a caller becomes one.
//! - Only [`config`] and [`cli`] read the environment. A component receives its own section of the configuration.

pub mod appointments;
pub mod auth;
pub mod cache;
pub mod caller;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod error;
pub mod fair_queue;
pub mod fleet;
pub mod graceful_shutdown;
pub mod graphql;
pub mod http;
pub mod http_client;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod refresh;
pub mod response_memory;
pub mod sandbox;
pub mod server;
pub mod upstream;
