//! A GraphQL gateway in front of the appointments REST API: clients choose the fields, the gateway fetches each
//! appointment once, and nobody ever gets what another caller's credential fetched.
//!
//! # The way of one request
//!
//! Down once and up once; the modules below stand in this order.
//!
//! ```text
//! server                      a listener, connections, a drain at the end
//!  └ http                     what every request passes, in one ordered list; routes
//!     ├ http::caller          headers → token, once
//!     ├ identity              token → Caller: whose data, and with which token the upstream is asked
//!     ├ http::rate_limit      a token bucket for each caller
//!     ├ http::concurrency     concurrency limits: operations (with a share for each caller), WebSockets, event streams
//!     └ http::graphql         GraphQL over HTTP: media types, body or query string, answer; over server-sent events and
//!        │                    WebSocket: answers
//!        ├ http::graphql::answers  an equal request: its finished answer, while all that it was made from is current
//!        └ graphql            limits, parsing, arguments, variables, rewriting; then validation, cost and execution
//!           ├ graphql::documents  queries that are known: all but what depends on the variables is done
//!           ├ graphql::plan   what of it async-graphql resolves, and what of it is written straight to JSON
//!           │  └ graphql::appointment  an appointment as JSON; put into its place by graphql::answer
//!           └ graphql::query  resolvers, a few lines each; beside it mutation and subscription
//!              └ appointments          what one operation of one caller may ask through
//!                 ├ appointments::loader   many fields → one batch of distinct ids
//!                 ├ appointments::cache    by (caller scope, id), bounded in bytes, with a share for each caller
//!                 ├ appointments::flight   one call under way for each key, shared by all who wait
//!                 ├ appointments::lists    windows of the list over the upstream's pages
//!                 ├ appointments::changes  changes, each sent once
//!                 ├ appointments::live     subscriptions: one poller for all subscribers with one token
//!                 ├ appointments::provenance  what an answer was made from, and whether that is current
//!                 ├ cache::validity  the one check of every copy: freshness, eviction, revocations, changes
//!                 └ upstream               one call: address, token, status → UpstreamError
//!                    ├ upstream::attempts  when it is made and how often: repetitions within a budget, hedging
//!                    ├ upstream::breaker   whether it is made at all, by route
//!                    ├ upstream::authorisation  the caller's token or the gateway's own, which is fetched and renewed
//!                    └ upstream::wire      JSON, read leniently → model
//! model                       Appointment and what it holds: decoded once, served as they are
//! ```
//!
//! Beside the way stand three leaves. [`fair_queue`] is the concurrency limit with a share for each caller, before operations
//! and before calls to the upstream. [`renewed`] refreshes values in the background: the gateway's own token and the keys
//! that verify callers' tokens. [`response_memory`] bounds the bytes of all answers, from the first byte that a resolver
//! writes to the last one that a client has taken.
//!
//! Errors come up the same way: [`upstream::UpstreamError`] for us, translated once, in [`graphql::error`], into the
//! closed set of codes that clients see.
//!
//! # What always holds
//!
//! Each has tests under `tests/api` that fail when it is broken; the soak (`tests/soak`) tries them all at once.
//!
//! 1. **No caller gets what was fetched for another.** The scope, a keyed 256-bit digest, is part of every key under which
//!    something is kept or shared. Where the caller's own token goes to the upstream it is one of the whole token; where
//!    the gateway's does, one of the verified subject or the name of the API key, unless the operator has all who are known
//!    share (`callers.share_cache`). Without a caller there is no [`Appointments`](appointments::Appointments) to ask
//!    through, so nothing is fetched.
//! 2. **No copy outlives its validity.** Every copy of upstream data passes one check when it is served
//!    (`cache::validity`): its time to live, the upstream's `Cache-Control`, the `exp` of the caller's token where that fetched
//!    it, no revocation since (any definite answer other than the data), and no change that may have taken effect since,
//!    changes in flight and with an unknown outcome included. During an outage it may be served stale, within a bound and
//!    marked as stale.
//! 3. **One call is in flight for each scope and id**, and a second attempt beside it only where the operator wants hedging
//!    (`upstream.hedge_percent`). Who leaves takes nothing from the others, also who came first; each has a clock of its
//!    own; when the last has left, the call ends.
//! 4. **A failing id never fails its siblings**, and a slow one never delays another operation.
//! 5. **Failures are never kept.** That there is no appointment (404) is, briefly, for the scope that was told so, and
//!    never past its time.
//! 6. **Everything that can grow has a bound** with a name in [`config::KEYS`]; the cache's is in bytes, and who takes
//!    more than a share of it takes it from nobody who has less.
//! 7. **No personal data and no token in a log, a metric or an error**, at any level: only events of this crate are logged
//!    ([`telemetry`]), and the types that hold such data do not print it. Every black-box test plants some, and fails
//!    where it is told.
//! 8. **The upstream is never hammered**: calls under way and calls that wait are bounded, and one caller's part of them;
//!    a change is sent once, a GET repeated seldom, in percent of all calls, and never before the time that `Retry-After`
//!    names; a route that fails is left alone; what is watched is asked for by one poller.
//! 9. **One bad field never loses an appointment**: it is null with an error at its path.
//!
//! # What is absent
//!
//! - Below [`http`], nobody reads a header: a [`caller::Caller`] is all that is known of who asks.
//! - Above [`upstream`], nobody sees JSON of the upstream or a status code.
//! - Resolvers hold no state and do no input or output but through [`appointments::Appointments`].
//! - Labels of [`metrics`] are words of the program: no id and no text of a caller becomes one.
//! - Nobody reads the environment but [`config`] and [`cli`]; a component receives its own slice of the configuration.

pub mod appointments;
pub mod auth;
pub mod cache;
pub mod caller;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod error;
pub mod fair_queue;
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
