//! The gateway from outside: a real process, asked over real sockets, before an upstream that each test controls.

#![expect(unreachable_pub, reason = "a test binary has no outside")]
#![expect(clippy::unwrap_used, reason = "what the tests share fails as a test does")]

mod support;

mod answer_cache;
mod answer_cache_bounds;
mod answers;
mod batching;
mod breaker;
mod bulkhead;
mod cache_model;
mod caller_shares;
mod change_bodies;
mod changes;
mod changes_in_flight;
mod failures;
mod fair_shares;
mod freshness;
mod hedging;
mod isolation;
mod list_arguments;
mod list_items;
mod list_sharing;
mod lists;
mod live;
mod live_changes;
mod live_failures;
mod live_subscribers;
mod lost_changes;
mod retries;
mod revocation;
mod single_flight;
mod smoke;
mod stale;
mod upstream_calls;
mod validity;
mod write_during_read;
mod write_then_read;

mod browser;
mod event_stream;
mod subscriber_limit;
mod subscribers;
mod websocket;
mod websocket_bounds;
mod websocket_frames;

mod compression;
mod execution;
mod identity;
mod page;
mod projection;
mod protocol;
mod selections;

mod answer_memory;
mod answer_size;
mod cost;
mod framing;
mod hostile;
mod in_flight;
mod limits;
mod open_files;
mod operation_shares;
mod rate_limit;
mod request_errors;
mod wire;

mod callers_api_keys;
mod callers_flood;
mod callers_jwt;
mod callers_withdrawal;
mod key_rotation;
mod service_identity;
mod service_token;

mod commands;
mod configuration;
mod failing_operations;
mod lifecycle;
mod log_reader;
mod logs;
mod metrics;
mod privacy;
mod profile;
mod switches;
mod warnings;

mod documents;
mod licences;
mod schema;
