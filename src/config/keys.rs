//! The table of all configuration keys.

use std::time::Duration;

use super::{
    auth::{AuthMethod, IdentityMode},
    documents::DocumentsMode,
    http::{ClientCache, GraphqlPath, StatusEdition},
    key::{ConfigKey, ValueKind},
    log::{LogFormat, LogLevel},
    profile::Profile,
    shared::{OnOutage, SharedUrl, ca_file, prefix},
    value::{
        address, algorithms, base_url, contents, count, credentials_file, duration, file, header_names,
        one_of, optional, origins, proxy_url, secret, secret_file, secure_url, size, switch, text, texts,
        token_parameters,
    },
};
use crate::credentials::{api_keys::ApiKeys, jwks::KeySet, key_ring::KeyRing};

const MODES: &[&str] = &["pass-through", "service"];
const AUTH_METHODS: &[&str] = &["basic", "post"];
const PROFILES: &[&str] = &["development", "production"];
const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
const FORMATS: &[&str] = &["human", "json"];
const STATUSES: &[&str] = &["2026", "2025"];
const CLIENT_CACHES: &[&str] = &["off", "validate", "fresh"];
const DOCUMENTS_MODES: &[&str] = &["off", "log", "require"];
const ON_OUTAGE: &[&str] = &["serve", "shorten"];

/// All configuration keys, in the order of `docs/configuration.md`.
pub const KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "listen",
        default: "127.0.0.1:8080",
        kind: ValueKind::Address,
        help: "Listen address. Port 0 selects a free port.",
        set: |c, v| address(v).map(|v| c.listen = v),
    },
    ConfigKey {
        name: "profile",
        default: "development",
        kind: ValueKind::Choice(PROFILES),
        help: "Set of defaults: development, or production with stricter limits. Keys that are set override it.",
        set: |c, v| {
            c.profile = match v {
                "development" => Profile::Development,
                "production" => Profile::Production,
                _ => return Err(one_of(PROFILES)),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "upstream.url",
        default: "",
        kind: ValueKind::Url,
        help: "Base URL of the appointments REST API; /api/v1/appointments is appended. Without it, the built-in \
               sandbox is used.",
        set: |c, v| base_url(v).map(|v| c.upstream.url = v),
    },
    ConfigKey {
        name: "upstream.ca_file",
        default: "",
        kind: ValueKind::File,
        help: "PEM file of additional trusted CA certificates, for an upstream with a private CA.",
        set: |c, v| file(v).map(|v| c.upstream.ca_file = v),
    },
    ConfigKey {
        name: "upstream.client_cert_file",
        default: "",
        kind: ValueKind::File,
        help: "PEM file of the client certificate, with its chain, for an upstream that demands one (mutual TLS). Not \
               sent to identity.token_url and callers.jwks_url.",
        set: |c, v| file(v).map(|v| c.upstream.client_cert_file = v),
    },
    ConfigKey {
        name: "upstream.client_key_file",
        default: "",
        kind: ValueKind::SecretFile,
        help: "PEM file of the unencrypted private key of upstream.client_cert_file.",
        set: |c, v| file(v).map(|v| c.upstream.client_key_file = v),
    },
    ConfigKey {
        name: "upstream.proxy",
        default: "",
        kind: ValueKind::Url,
        help: "Forward proxy for calls to the upstream, identity.token_url and callers.jwks_url: http://HOST:PORT or \
               https://HOST:PORT. It tunnels https:// (CONNECT) and forwards http:// calls to the upstream. Token \
               and JWKS calls over http://, which stay on this machine, avoid it. The proxy variables of the environment \
               are ignored.",
        set: |c, v| proxy_url(v).map(|v| c.upstream.proxy = v),
    },
    ConfigKey {
        name: "upstream.proxy_auth_file",
        default: "",
        kind: ValueKind::SecretFile,
        help: "File with the credentials for upstream.proxy on a single line: user:password.",
        set: |c, v| credentials_file(v).map(|v| c.upstream.proxy_auth_file = v),
    },
    ConfigKey {
        name: "upstream.forward_request_id",
        default: "true",
        kind: ValueKind::Switch,
        help: "Send the x-request-id of a request with the upstream calls that it causes.",
        set: |c, v| switch(v).map(|v| c.upstream.forward_request_id = v),
    },
    ConfigKey {
        name: "upstream.connect_timeout",
        default: "2s",
        kind: ValueKind::Duration,
        help: "Timeout for connecting to the upstream.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.upstream.connect_timeout = v),
    },
    ConfigKey {
        name: "upstream.timeout",
        default: "5s",
        kind: ValueKind::Duration,
        help: "Timeout of one upstream attempt, from the connection to the last byte of the response.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.upstream.timeout = v),
    },
    ConfigKey {
        name: "upstream.idle_timeout",
        default: "4s",
        kind: ValueKind::Duration,
        help: "Time for which an idle connection to the upstream is kept open. Keep it below the upstream's keep-alive \
               timeout; if the upstream states one (Keep-Alive: timeout=…), connections are closed a second before it. \
               Changes use connections that were idle for at most 1s. 0: no connection is reused.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.upstream.idle_timeout = v),
    },
    ConfigKey {
        name: "upstream.max_connection_age",
        default: "5m",
        kind: ValueKind::Duration,
        help: "Maximum age of connections to the upstream, minus up to 20 % jitter. Calls in flight finish. New \
               connections find new addresses of the upstream's name.",
        set: |c, v| duration(v, Duration::from_millis(100)).map(|v| c.upstream.max_connection_age = v),
    },
    ConfigKey {
        name: "upstream.max_response",
        default: "1MiB",
        kind: ValueKind::Size,
        help: "Maximum size of an upstream response body, after decompression.",
        set: |c, v| size(v, 1).map(|v| c.upstream.max_response = v),
    },
    ConfigKey {
        name: "upstream.max_concurrent",
        default: "64",
        kind: ValueKind::Count,
        help: "Concurrency limit of upstream calls, and the number of idle connections in the pool.",
        set: |c, v| count(v, 1..=100_000).map(|v| c.upstream.max_concurrent = v),
    },
    ConfigKey {
        name: "upstream.max_waiting",
        default: "1024",
        kind: ValueKind::Count,
        help: "Maximum number of upstream calls that wait for a slot of upstream.max_concurrent. Further calls fail \
               with OVERLOADED.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.upstream.max_waiting = v),
    },
    ConfigKey {
        name: "upstream.caller_share",
        default: "90",
        kind: ValueKind::Count,
        help: "Maximum share of one caller in upstream.max_concurrent and upstream.max_waiting, in percent of the \
               slots that other callers leave free. Rounded down, at least one.",
        set: |c, v| count(v, 1..=100).map(|v| c.upstream.caller_share = v),
    },
    ConfigKey {
        name: "upstream.retries",
        default: "2",
        kind: ValueKind::Count,
        help: "Maximum number of retries of a GET after a failed connection, a timeout, 429, 502, 503 or 504, within \
               the deadline of the request. 0: no retries.",
        set: |c, v| count(v, 0..=10).map(|v| c.upstream.retries = v as u32),
    },
    ConfigKey {
        name: "upstream.retry_percent",
        default: "20",
        kind: ValueKind::Count,
        help: "Retry budget: retries per 100 calls, in addition to an initial allowance of ten.",
        set: |c, v| count(v, 0..=100).map(|v| c.upstream.retry_percent = v as u32),
    },
    ConfigKey {
        name: "upstream.max_paused",
        default: "10000",
        kind: ValueKind::Count,
        help: "Maximum number of callers tracked as paused after a 429 with Retry-After. The GETs of a paused caller \
               are not sent until then. 0: callers are not paused.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.upstream.max_paused = v),
    },
    ConfigKey {
        name: "upstream.hedge_percent",
        default: "0",
        kind: ValueKind::Count,
        help: "Hedging budget: percentage of GETs that are sent a second time once they take longer than the route's \
               recent p95. The first response wins. 0: no hedging.",
        set: |c, v| count(v, 0..=100).map(|v| c.upstream.hedge_percent = v as u32),
    },
    ConfigKey {
        name: "upstream.breaker_percent",
        default: "50",
        kind: ValueKind::Count,
        help: "Failure rate, in percent, that opens the circuit breaker of a route (one appointment, the list, \
               changes). Failures are 5xx, failed connections and timeouts. No call is made while it is open. 0: the \
               breaker never opens.",
        set: |c, v| count(v, 0..=100).map(|v| c.upstream.breaker.percent = v as u64),
    },
    ConfigKey {
        name: "upstream.breaker_calls",
        default: "20",
        kind: ValueKind::Count,
        help: "Minimum number of calls in upstream.breaker_window before a circuit breaker can open.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.upstream.breaker.calls = v as u64),
    },
    ConfigKey {
        name: "upstream.breaker_window",
        default: "10s",
        kind: ValueKind::Duration,
        help: "Period over which a circuit breaker measures the failure rate.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.upstream.breaker.window = v),
    },
    ConfigKey {
        name: "upstream.breaker_pause",
        default: "5s",
        kind: ValueKind::Duration,
        help: "Time for which a circuit breaker stays open, plus up to 20 % jitter, before it admits trial calls \
               (half-open): three, and many more after each success. The third success closes it.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.upstream.breaker.pause = v),
    },
    ConfigKey {
        name: "identity.mode",
        default: "pass-through",
        kind: ValueKind::Choice(MODES),
        help: "Token sent to the upstream: the caller's own (pass-through) or the gateway's (service). In service \
               mode, callers authenticate with a JWT or an API key (callers.*).",
        set: |c, v| {
            c.identity.mode = match v {
                "pass-through" => IdentityMode::PassThrough,
                "service" => IdentityMode::Service,
                _ => return Err(one_of(MODES)),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "identity.token_url",
        default: "",
        kind: ValueKind::Url,
        help: "OAuth 2.0 token endpoint for the gateway's own token (client credentials). A query string is sent with it. \
               upstream.timeout, upstream.max_response and upstream.ca_file apply.",
        set: |c, v| secure_url(v).map(|v| c.identity.token_url = v),
    },
    ConfigKey {
        name: "identity.client_id",
        default: "",
        kind: ValueKind::Text,
        help: "OAuth client id of the gateway.",
        set: |c, v| text(v).map(|v| c.identity.client_id = v),
    },
    ConfigKey {
        name: "identity.client_secret",
        default: "",
        kind: ValueKind::Secret,
        help: "OAuth client secret of the gateway.",
        set: |c, v| secret(v).map(|v| c.identity.client_secret = v),
    },
    ConfigKey {
        name: "identity.client_secret_file",
        default: "",
        kind: ValueKind::SecretFile,
        help: "File with the OAuth client secret on a single line. Alternatively, set GATEWAY_IDENTITY_CLIENT_SECRET.",
        set: |c, v| secret_file(v).map(|v| c.identity.client_secret_file = v),
    },
    ConfigKey {
        name: "identity.auth_method",
        default: "basic",
        kind: ValueKind::Choice(AUTH_METHODS),
        help: "How the token request sends the client id and secret: in the Authorization header (basic) or in the form \
               (post).",
        set: |c, v| {
            c.identity.auth_method = match v {
                "basic" => AuthMethod::Basic,
                "post" => AuthMethod::Post,
                _ => return Err(one_of(AUTH_METHODS)),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "identity.scope",
        default: "",
        kind: ValueKind::Text,
        help: "OAuth scopes to request, separated by spaces. Without it, the client's default scopes.",
        set: |c, v| text(v).map(|v| c.identity.scope = v),
    },
    ConfigKey {
        name: "identity.parameters",
        default: "",
        kind: ValueKind::Text,
        help: "Further parameters of the token request, form-encoded, such as \
               audience=https%3A%2F%2Fapi.example&resource=appointments.",
        set: |c, v| token_parameters(v).map(|v| c.identity.parameters = v),
    },
    ConfigKey {
        name: "identity.retry_interval",
        default: "1s",
        kind: ValueKind::Duration,
        help: "Initial backoff after a failed token request. It doubles with each further failure, up to 32 times the \
               interval.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.identity.retry_interval = v),
    },
    ConfigKey {
        name: "identity.refresh_interval",
        default: "10s",
        kind: ValueKind::Duration,
        help: "Minimum interval between early token refreshes. A token that the upstream rejects with 401 is refreshed \
               before it expires.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.identity.refresh_interval = v),
    },
    ConfigKey {
        name: "callers.jwks_url",
        default: "",
        kind: ValueKind::Url,
        help: "JWKS URL of the issuer of the callers' JWTs. Redirects within its origin are followed. upstream.timeout, \
               upstream.max_response and upstream.ca_file apply.",
        set: |c, v| secure_url(v).map(|v| c.callers.jwks_url = v),
    },
    ConfigKey {
        name: "callers.jwks_file",
        default: "",
        kind: ValueKind::File,
        help: "JWKS file, read at start. An alternative to callers.jwks_url.",
        set: |c, v| contents(v, KeySet::from_file).map(|v| c.callers.jwks_file = v),
    },
    ConfigKey {
        name: "callers.jwks_max_age",
        default: "10m",
        kind: ValueKind::Duration,
        help: "Maximum age of the keys from callers.jwks_url before they are refreshed.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.callers.jwks_max_age = v),
    },
    ConfigKey {
        name: "callers.jwks_refresh_interval",
        default: "10s",
        kind: ValueKind::Duration,
        help: "Minimum interval between early JWKS refreshes. A token with an unknown key triggers one. Also the \
               initial backoff after a failed refresh, which doubles with each further failure, up to 32 times the \
               interval.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.callers.jwks_refresh_interval = v),
    },
    ConfigKey {
        name: "callers.issuer",
        default: "",
        kind: ValueKind::Text,
        help: "Accepted issuers (iss) of the callers' JWTs, separated by commas. All of them sign with the same key set.",
        set: |c, v| texts(v).map(|v| c.callers.issuers = v),
    },
    ConfigKey {
        name: "callers.audience",
        default: "",
        kind: ValueKind::Text,
        help: "Required audience (aud) of the callers' JWTs.",
        set: |c, v| text(v).map(|v| c.callers.audience = v),
    },
    ConfigKey {
        name: "callers.algorithms",
        default: "RS256,ES256",
        kind: ValueKind::Algorithms,
        help: "Accepted signature algorithms of the callers' JWTs, separated by commas.",
        set: |c, v| algorithms(v).map(|v| c.callers.algorithms = v),
    },
    ConfigKey {
        name: "callers.leeway",
        default: "5s",
        kind: ValueKind::Duration,
        help: "Tolerated clock skew between the issuer and the gateway, for exp and nbf. In pass-through mode, the time \
               past exp after which a subscription ends.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.callers.leeway = v),
    },
    ConfigKey {
        name: "callers.max_verified",
        default: "10000",
        kind: ValueKind::Count,
        help: "Maximum number of verified JWTs that are cached by digest until they expire, and of verified subjects \
               (callers.verifications_per_second). 0: no caching.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.callers.max_verified = v),
    },
    ConfigKey {
        name: "callers.verifications_per_second",
        default: "2000",
        kind: ValueKind::Count,
        help: "Maximum rate of JWT signature checks. Further tokens are rejected with OVERLOADED. Half of the rate is \
               reserved for subjects with a previously verified token; one subject gets at most a hundredth of that \
               half. Cached tokens, and tokens rejected without a check, do not count. 0: no limit.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.callers.verifications_per_second = v as u32),
    },
    ConfigKey {
        name: "callers.api_keys_file",
        default: "",
        kind: ValueKind::File,
        help: "API key file with one NAME:DIGEST per line, read at start. The command api-key NAME generates a line.",
        set: |c, v| contents(v, ApiKeys::from_file).map(|v| c.callers.api_keys_file = v),
    },
    ConfigKey {
        name: "callers.share_cache",
        default: "false",
        kind: ValueKind::Switch,
        help: "Share cached data between all authenticated callers when identity.mode is service. Off: one cache scope \
               per caller.",
        set: |c, v| switch(v).map(|v| c.callers.share_cache = v),
    },
    ConfigKey {
        name: "cache.size",
        default: "64MiB",
        kind: ValueKind::Size,
        help: "Memory limit of cached appointments.",
        set: |c, v| size(v, 0).map(|v| c.cache.size = v),
    },
    ConfigKey {
        name: "cache.ttl",
        default: "30s",
        kind: ValueKind::Duration,
        help: "Maximum TTL of a cached appointment. The upstream's Cache-Control and the token's exp can shorten it. \
               0: no caching.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.cache.ttl = v),
    },
    ConfigKey {
        name: "cache.absence_ttl",
        default: "5s",
        kind: ValueKind::Duration,
        help: "TTL of a cached 404 for an appointment. 0: no caching.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.cache.absence_ttl = v),
    },
    ConfigKey {
        name: "cache.list_ttl",
        default: "5s",
        kind: ValueKind::Duration,
        help: "Maximum TTL of a cached page of the list. 0: no caching.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.cache.list_ttl = v),
    },
    ConfigKey {
        name: "cache.list_size",
        default: "16MiB",
        kind: ValueKind::Size,
        help: "Memory limit of cached pages of the list, in addition to cache.size.",
        set: |c, v| size(v, 0).map(|v| c.cache.list_size = v),
    },
    ConfigKey {
        name: "cache.answers_size",
        default: "16MiB",
        kind: ValueKind::Size,
        help: "Memory limit of the response cache, in addition to cache.size. An identical request of the same caller \
               gets the cached response while everything it was built from is cached and fresh. 0: no response cache.",
        set: |c, v| size(v, 0).map(|v| c.cache.answers_size = v),
    },
    ConfigKey {
        name: "cache.stale_if_error",
        default: "5m",
        kind: ValueKind::Duration,
        help: "Time past its TTL for which an entry may be served, marked as stale, when the upstream fails. 0: never.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.cache.stale_if_error = v),
    },
    ConfigKey {
        name: "cache.stale_while_revalidate",
        default: "0",
        kind: ValueKind::Duration,
        help: "Time past its TTL for which an entry is served immediately, marked as stale, while it is revalidated in \
               the background. 0: never.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.cache.stale_while_revalidate = v),
    },
    ConfigKey {
        name: "cache.keep_expired",
        default: "10m",
        kind: ValueKind::Duration,
        help: "Time past its TTL for which an entry with an ETag or Last-Modified is kept, to be revalidated with a \
               conditional request. It is served only if the upstream confirms it (304). 0: no longer than \
               cache.stale_if_error.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.cache.keep_expired = v),
    },
    ConfigKey {
        name: "cache.caller_share",
        default: "5",
        kind: ValueKind::Count,
        help: "Guaranteed share per caller of cache.size, cache.list_size, cache.answers_size, the texts of automatic \
               persisted queries and changes.idempotency_size, in percent. Entries of callers above their share are \
               evicted first; records of idempotency keys are never evicted.",
        set: |c, v| count(v, 1..=100).map(|v| c.cache.caller_share = v as u8),
    },
    ConfigKey {
        name: "changes.idempotency_ttl",
        default: "10m",
        kind: ValueKind::Duration,
        help: "How long the outcome of a change with an Idempotency-Key is recorded for repeats of the request. 0: \
               mutations with the header are rejected (400).",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.changes.idempotency_ttl = v),
    },
    ConfigKey {
        name: "changes.idempotency_size",
        default: "16MiB",
        kind: ValueKind::Size,
        help: "Memory limit of the records of idempotency keys, about 1 KiB each. A caller may use its share \
               (cache.caller_share), and beyond it as much as stays free. Without memory, new mutations with the header \
               are rejected (503). 0: all of them (400).",
        set: |c, v| size(v, 0).map(|v| c.changes.idempotency_size = v),
    },
    ConfigKey {
        name: "live.fast_interval",
        default: "2s",
        kind: ValueKind::Duration,
        help: "Polling interval of a watched appointment near its time and in session.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.live.fast_interval = v),
    },
    ConfigKey {
        name: "live.slow_interval",
        default: "30s",
        kind: ValueKind::Duration,
        help: "Polling interval of a watched appointment otherwise, and the maximum backoff after failures.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.live.slow_interval = v),
    },
    ConfigKey {
        name: "live.near",
        default: "15m",
        kind: ValueKind::Duration,
        help: "Period before and after appointmentAt in which live.fast_interval applies.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.live.near = v),
    },
    ConfigKey {
        name: "live.max_watched",
        default: "10000",
        kind: ValueKind::Count,
        help: "Maximum number of watched appointments, counted per caller. Further subscriptions fail with OVERLOADED.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.live.max_watched = v),
    },
    ConfigKey {
        name: "live.max_subscribers",
        default: "1000",
        kind: ValueKind::Count,
        help: "Maximum number of subscribers of one appointment per caller. Further subscriptions fail with \
               OVERLOADED.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.live.max_subscribers = v),
    },
    ConfigKey {
        name: "live.max_subscriptions",
        default: "20000",
        kind: ValueKind::Count,
        help: "Maximum number of subscriptions in total, at about 24 KiB each. Further subscriptions fail with \
               OVERLOADED.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.live.max_subscriptions = v),
    },
    ConfigKey {
        name: "live.caller_share",
        default: "50",
        kind: ValueKind::Count,
        help: "Maximum share of one caller, in percent: of live.max_watched, and of the live.max_subscriptions that \
               other callers leave free. Further subscriptions of this caller fail with OVERLOADED.",
        set: |c, v| count(v, 1..=100).map(|v| c.live.caller_share = v as u8),
    },
    ConfigKey {
        name: "live.max_event_streams",
        default: "10000",
        kind: ValueKind::Count,
        help: "Maximum number of open event streams. Further requests get 503. 0: no event streams.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.live.max_event_streams = v),
    },
    ConfigKey {
        name: "live.keep_alive",
        default: "12s",
        kind: ValueKind::Duration,
        help: "Interval of keep-alive messages on an idle event stream or WebSocket.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.live.keep_alive = v),
    },
    ConfigKey {
        name: "websocket.init_timeout",
        default: "10s",
        kind: ValueKind::Duration,
        help: "Timeout for connection_init on a new WebSocket. Then it is closed with 4408.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.websocket.init_timeout = v),
    },
    ConfigKey {
        name: "websocket.max_connections",
        default: "10000",
        kind: ValueKind::Count,
        help: "Maximum number of open WebSockets. Further requests get 503. 0: no WebSockets.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.websocket.max_connections = v),
    },
    ConfigKey {
        name: "websocket.max_subscriptions",
        default: "100",
        kind: ValueKind::Count,
        help: "Maximum number of concurrent operations on one WebSocket. Further operations get an error.",
        set: |c, v| count(v, 1..=10_000).map(|v| c.websocket.max_subscriptions = v),
    },
    ConfigKey {
        name: "websocket.max_message",
        default: "256KiB",
        kind: ValueKind::Size,
        help: "Maximum size of a WebSocket message. A larger message closes the WebSocket with 1009.",
        set: |c, v| size(v, 128).map(|v| c.websocket.max_message = v),
    },
    ConfigKey {
        name: "websocket.init_max_message",
        default: "16KiB",
        kind: ValueKind::Size,
        help: "Maximum size of a WebSocket message before connection_ack, and afterwards without a valid token. A \
               larger message closes the WebSocket with 1009. websocket.max_message applies as well.",
        set: |c, v| size(v, 128).map(|v| c.websocket.init_max_message = v),
    },
    ConfigKey {
        name: "websocket.message_timeout",
        default: "10s",
        kind: ValueKind::Duration,
        help: "Timeout from the first to the last byte of a WebSocket message, including all fragments. Then the \
               WebSocket is closed with 4408.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.websocket.message_timeout = v),
    },
    ConfigKey {
        name: "websocket.messages_per_second",
        default: "50",
        kind: ValueKind::Count,
        help: "Rate limit, and burst, of frames from one WebSocket: messages, fragments, pings and pongs. Above it, \
               the gateway reads more slowly (back-pressure).",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.websocket.messages_per_second = v as u32),
    },
    ConfigKey {
        name: "websocket.max_partial",
        default: "16MiB",
        kind: ValueKind::Size,
        help: "Memory limit of the unfinished messages of all WebSockets together, in addition to 4 KiB each. A \
               WebSocket that needs more is closed with 1013.",
        set: |c, v| size(v, 0).map(|v| c.websocket.max_partial = v),
    },
    ConfigKey {
        name: "limits.body",
        default: "256KiB",
        kind: ValueKind::Size,
        help: "Maximum size of a request body. A larger body gets 413.",
        set: |c, v| size(v, 1).map(|v| c.limits.body = v),
    },
    ConfigKey {
        name: "limits.headers",
        default: "32KiB",
        kind: ValueKind::Size,
        help: "Maximum size of the request line and headers together. A larger head gets 431.",
        set: |c, v| size(v, 1024).map(|v| c.limits.headers = v),
    },
    ConfigKey {
        name: "limits.header_count",
        default: "64",
        kind: ValueKind::Count,
        help: "Maximum number of request headers. More headers get 431.",
        set: |c, v| count(v, 8..=1000).map(|v| c.limits.header_count = v),
    },
    ConfigKey {
        name: "limits.uri",
        default: "8KiB",
        kind: ValueKind::Size,
        help: "Maximum length of the request URI, including the query string. A longer URI gets 414.",
        set: |c, v| size(v, 64).map(|v| c.limits.uri = v),
    },
    ConfigKey {
        name: "limits.token",
        default: "8KiB",
        kind: ValueKind::Size,
        help: "Maximum length of a bearer token.",
        set: |c, v| size(v, 1).map(|v| c.limits.token = v),
    },
    ConfigKey {
        name: "limits.batch",
        default: "10",
        kind: ValueKind::Count,
        help: "Maximum number of operations in one request, sent as a JSON array. 0 rejects arrays.",
        set: |c, v| count(v, 0..=1_000).map(|v| c.limits.batch = v),
    },
    ConfigKey {
        name: "limits.query",
        default: "64KiB",
        kind: ValueKind::Size,
        help: "Maximum length of a GraphQL document.",
        set: |c, v| size(v, 1).map(|v| c.limits.query = v),
    },
    ConfigKey {
        name: "limits.tokens",
        default: "4000",
        kind: ValueKind::Count,
        help: "Maximum number of lexical tokens in a GraphQL document.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.limits.tokens = v),
    },
    ConfigKey {
        name: "limits.depth",
        default: "25",
        kind: ValueKind::Count,
        help: "Maximum nesting depth of selections; a fragment counts as a level. GraphiQL's introspection query needs \
               19.",
        set: |c, v| count(v, 1..=50).map(|v| c.limits.depth = v),
    },
    ConfigKey {
        name: "limits.fields",
        default: "2000",
        kind: ValueKind::Count,
        help: "Maximum number of fields in an operation. Each use of a fragment counts.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.limits.fields = v),
    },
    ConfigKey {
        name: "limits.root_fields",
        default: "50",
        kind: ValueKind::Count,
        help: "Maximum number of root fields in an operation.",
        set: |c, v| count(v, 1..=10_000).map(|v| c.limits.root_fields = v),
    },
    ConfigKey {
        name: "limits.aliases",
        default: "50",
        kind: ValueKind::Count,
        help: "Maximum number of aliases in an operation. Each use of a fragment counts.",
        set: |c, v| count(v, 0..=10_000).map(|v| c.limits.aliases = v),
    },
    ConfigKey {
        name: "limits.directives",
        default: "50",
        kind: ValueKind::Count,
        help: "Maximum number of directives in an operation. Each use of a fragment counts.",
        set: |c, v| count(v, 0..=10_000).map(|v| c.limits.directives = v),
    },
    ConfigKey {
        name: "limits.cost",
        default: "100000",
        kind: ValueKind::Count,
        help: "Maximum cost of an operation: 1 per field, 10 more per field that needs the upstream, and lists by \
               their length. The rule is in docs/api.md, under \"Cost\".",
        set: |c, v| count(v, 1..=1_000_000_000).map(|v| c.limits.cost = v),
    },
    ConfigKey {
        name: "limits.errors",
        default: "20",
        kind: ValueKind::Count,
        help: "Maximum number of errors listed for a request that is not executed. Field errors are always listed in \
               full.",
        set: |c, v| count(v, 1..=1_000).map(|v| c.limits.errors = v),
    },
    ConfigKey {
        name: "limits.ids",
        default: "100",
        kind: ValueKind::Count,
        help: "Maximum number of ids in appointmentsByIds, and of distinct ids in a request.",
        set: |c, v| count(v, 1..=100).map(|v| c.limits.ids = v),
    },
    ConfigKey {
        name: "limits.items",
        default: "1000",
        kind: ValueKind::Count,
        help: "Maximum number of appointments that all fields of an operation request together, repetitions included.",
        set: |c, v| count(v, 1..=100_000).map(|v| c.limits.items = v),
    },
    ConfigKey {
        name: "limits.answer",
        default: "8MiB",
        kind: ValueKind::Size,
        help: "Maximum size of a response, or of one event of a subscription, as JSON before compression.",
        set: |c, v| size(v, 1024).map(|v| c.limits.answer = v),
    },
    ConfigKey {
        name: "limits.operations",
        default: "1024",
        kind: ValueKind::Count,
        help: "Concurrency limit of queries and mutations.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.limits.operations = v),
    },
    ConfigKey {
        name: "limits.operations_waiting",
        default: "256",
        kind: ValueKind::Count,
        help: "Maximum number of operations that wait for a slot of limits.operations. Further operations fail with \
               OVERLOADED.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.limits.operations_waiting = v),
    },
    ConfigKey {
        name: "limits.operations_wait",
        default: "500ms",
        kind: ValueKind::Duration,
        help: "Maximum time an operation waits for a slot of limits.operations. Then it fails with OVERLOADED.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.limits.operations_wait = v),
    },
    ConfigKey {
        name: "limits.caller_share",
        default: "50",
        kind: ValueKind::Count,
        help: "Maximum share of one caller in limits.operations, limits.operations_waiting and \
               http.max_response_memory, in percent of the capacity that other callers leave free; at least one \
               operation. Callers without a valid credential count as one.",
        set: |c, v| count(v, 1..=100).map(|v| c.limits.caller_share = v),
    },
    ConfigKey {
        name: "rate_limit.per_second",
        default: "0",
        kind: ValueKind::Count,
        help: "Rate limit per caller (token bucket): operations per second. Further operations fail with RATE_LIMITED. \
               Callers without a token count as one. 0: no limit.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.rate_limit.per_second = v as u32),
    },
    ConfigKey {
        name: "rate_limit.burst",
        default: "200",
        kind: ValueKind::Count,
        help: "Burst per caller: size of the token bucket.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.rate_limit.burst = v as u32),
    },
    ConfigKey {
        name: "rate_limit.max_callers",
        default: "100000",
        kind: ValueKind::Count,
        help: "Maximum number of token buckets, at about 100 bytes each. Further callers share the bucket of callers \
               without a token.",
        set: |c, v| count(v, 1..=10_000_000).map(|v| c.rate_limit.max_callers = v),
    },
    ConfigKey {
        name: "http.path",
        default: "/graphql",
        kind: ValueKind::Path,
        help: "Path of the GraphQL endpoint. Requests may add a trailing slash. With / GraphiQL must be off.",
        set: |c, v| GraphqlPath::parse(v).map(|v| c.http.path = v),
    },
    ConfigKey {
        name: "http.statuses",
        default: "2026",
        kind: ValueKind::Choice(STATUSES),
        help: "HTTP statuses of responses in application/graphql-response+json: those of GraphQL over HTTP, edition \
               September 2026, or of the drafts up to 2025. Clients of application/json always get the latter.",
        set: |c, v| {
            c.http.statuses = match v {
                "2026" => StatusEdition::Edition2026,
                "2025" => StatusEdition::Edition2025,
                _ => return Err(one_of(STATUSES)),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "http.client_cache",
        default: "validate",
        kind: ValueKind::Choice(CLIENT_CACHES),
        help: "Storage of responses to GET by clients. off: none (no-store). validate: with an ETag, by which the client \
               asks before each use whether its copy is current. fresh: clients need not ask while the data behind \
               the response is fresh (max-age), and may miss changes meanwhile.",
        set: |c, v| {
            c.http.client_cache = match v {
                "off" => ClientCache::Off,
                "validate" => ClientCache::Validate,
                "fresh" => ClientCache::Fresh,
                _ => return Err(one_of(CLIENT_CACHES)),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "http.origins",
        default: "",
        kind: ValueKind::Origins,
        help: "Origins that CORS allows to call the GraphQL endpoint, separated by commas: \
               https://app.example,https://admin.example:8443. They may also open WebSockets, in addition to pages \
               from the gateway's own host.",
        set: |c, v| origins(v).map(|v| c.http.origins = v),
    },
    ConfigKey {
        name: "http.cors_headers",
        default: "accept,authorization,content-type,x-request-id,x-requested-with,graphql-require-preflight,\
                  apollo-require-preflight,x-apollo-operation-name,x-apollo-operation-id,apollographql-client-name,\
                  apollographql-client-version,x-request-timeout,idempotency-key,traceparent,tracestate,baggage,sentry-trace,if-none-match",
        kind: ValueKind::HeaderNames,
        help: "Request headers that CORS allows to pages of http.origins, separated by commas.",
        set: |c, v| header_names(v).map(|v| c.http.cors_headers = v),
    },
    ConfigKey {
        name: "http.compression",
        default: "true",
        kind: ValueKind::Switch,
        help: "Compress responses with br or gzip when the client accepts it.",
        set: |c, v| switch(v).map(|v| c.http.compression = v),
    },
    ConfigKey {
        name: "http.deadline",
        default: "10s",
        kind: ValueKind::Duration,
        help: "Deadline of a request, including reading its body (408). Data still missing then fails with \
               UPSTREAM_TIMEOUT, a change already sent with OUTCOME_UNKNOWN, and the rest is returned. The request \
               header x-request-timeout can shorten it. Subscriptions have no deadline.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.http.deadline = v),
    },
    ConfigKey {
        name: "http.max_connections",
        default: "20000",
        kind: ValueKind::Count,
        help: "Maximum number of connections, in addition to WebSockets. Further connections get 503 and are closed at \
               once. The limit on open files, less a reserve, bounds connections and WebSockets together.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.http.max_connections = v),
    },
    ConfigKey {
        name: "http.write_timeout",
        default: "30s",
        kind: ValueKind::Duration,
        help: "Maximum time without progress while a client reads. Then its connection is closed.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.http.write_timeout = v),
    },
    ConfigKey {
        name: "http.send_timeout",
        default: "60s",
        kind: ValueKind::Duration,
        help: "Maximum time for a client to read a complete response, event or WebSocket message. Then its connection \
               is closed.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.http.send_timeout = v),
    },
    ConfigKey {
        name: "http.max_response_memory",
        default: "256MiB",
        kind: ValueKind::Size,
        help: "Memory limit of all responses: being built, being sent and cached. Further operations fail with \
               OVERLOADED. At least the sum of cache.answers_size and limits.answer.",
        set: |c, v| size(v, 1024).map(|v| c.http.max_response_memory = v),
    },
    ConfigKey {
        name: "http.header_timeout",
        default: "10s",
        kind: ValueKind::Duration,
        help: "Timeout for reading the request headers, from the opening of the connection or from the first byte of a \
               further request.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.http.header_timeout = v),
    },
    ConfigKey {
        name: "http.idle_timeout",
        default: "75s",
        kind: ValueKind::Duration,
        help: "Time for which a connection is kept open between requests. Keep it above the idle timeout of the load \
               balancer in front of the gateway, which is often 60s.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.http.idle_timeout = v),
    },
    ConfigKey {
        name: "http.body_timeout",
        default: "5s",
        kind: ValueKind::Duration,
        help: "Timeout for reading a request body. Then the request gets 408. Also the time for which the rest of a \
               rejected body is discarded before its connection is closed.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.http.body_timeout = v),
    },
    ConfigKey {
        name: "http.drain_delay",
        default: "0",
        kind: ValueKind::Duration,
        help: "Time for which /readyz returns 503 while requests are still accepted, at the beginning of a graceful \
               shutdown. Load balancers need it to stop sending traffic.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.http.drain_delay = v),
    },
    ConfigKey {
        name: "http.drain_deadline",
        default: "15s",
        kind: ValueKind::Duration,
        help: "Maximum time for requests in flight to finish after http.drain_delay.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.http.drain_deadline = v),
    },
    ConfigKey {
        name: "graphql.introspection",
        default: "true",
        kind: ValueKind::Switch,
        help: "Allow introspection (__schema, __type), which GraphiQL needs. Off: GRAPHQL_VALIDATION_FAILED.",
        set: |c, v| switch(v).map(|v| c.graphql.introspection = v),
    },
    ConfigKey {
        name: "graphql.suggestions",
        default: "true",
        kind: ValueKind::Switch,
        help: "Suggest existing fields in the message for an unknown field.",
        set: |c, v| switch(v).map(|v| c.graphql.suggestions = v),
    },
    ConfigKey {
        name: "graphql.federation",
        default: "false",
        kind: ValueKind::Switch,
        help: "Serve a subgraph of a federated graph: _service and _entities. _service shows the schema without a \
               credential, also without graphql.introspection.",
        set: |c, v| switch(v).map(|v| c.graphql.federation = v),
    },
    ConfigKey {
        name: "graphql.documents_size",
        default: "4MiB",
        kind: ValueKind::Size,
        help: "Memory limit of the document cache: half of it for validated documents, which are not parsed and \
               validated again, half for the texts of automatic persisted queries. 0: neither.",
        set: |c, v| size(v, 0).map(|v| c.graphql.documents_size = v),
    },
    ConfigKey {
        name: "documents.path",
        default: "",
        kind: ValueKind::File,
        help: "File or directory of manifests with trusted documents: Apollo (apollo-persisted-query-manifest), Relay or \
               GraphQL Codegen (.json), or plain GraphQL (.graphql, .gql). A directory is read with its subdirectories. \
               See docs/operations.md.",
        set: |c, v| file(v).map(|v| c.documents.path = v),
    },
    ConfigKey {
        name: "documents.mode",
        default: "off",
        kind: ValueKind::Choice(DOCUMENTS_MODES),
        help: "Documents that run: off (all), log (all; those that are not trusted are counted) or require (trusted ones \
               only, over every transport).",
        set: |c, v| {
            c.documents.mode = match v {
                "off" => DocumentsMode::Off,
                "log" => DocumentsMode::Log,
                "require" => DocumentsMode::Require,
                _ => return Err(one_of(DOCUMENTS_MODES)),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "documents.reload_interval",
        default: "5s",
        kind: ValueKind::Duration,
        help: "Time between two reads of documents.path. A change takes effect once two successive reads are equal. 0: \
               the manifests are read at start only.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.documents.reload_interval = v),
    },
    ConfigKey {
        name: "documents.size",
        default: "16MiB",
        kind: ValueKind::Size,
        help: "Maximum size of all manifests together, and memory limit of their validated documents with query plans.",
        set: |c, v| size(v, 1).map(|v| c.documents.size = v),
    },
    ConfigKey {
        name: "shared.url",
        default: "",
        kind: ValueKind::Url,
        help: "Redis 7 or later, or Valkey, that the replicas of a fleet share: redis://[USER@]HOST[:PORT][/DATABASE], \
               rediss:// with TLS, or redis-sentinel:// and rediss-sentinel:// with the sentinels and the name of their \
               master: redis-sentinel://[USER@]HOST[:PORT],HOST[:PORT]/MASTER[/DATABASE]. Without it, the gateway shares \
               nothing.",
        set: |c, v| SharedUrl::parse(v).map(|v| c.shared.url = v),
    },
    ConfigKey {
        name: "shared.password_file",
        default: "",
        kind: ValueKind::SecretFile,
        help: "File with the password of the Redis of shared.url, or of the user that it names, on a single line. It is not \
               sent to sentinels.",
        set: |c, v| secret_file(v).map(|v| c.shared.password_file = v),
    },
    ConfigKey {
        name: "shared.ca_file",
        default: "",
        kind: ValueKind::File,
        help: "PEM file of the CA certificates that are trusted for shared.url, in place of those of the system.",
        set: |c, v| ca_file(v).map(|v| c.shared.ca_file = v),
    },
    ConfigKey {
        name: "shared.key_file",
        default: "",
        kind: ValueKind::SecretFile,
        help: "File with the keys of the fleet, the same on all replicas, read at start: one key of 64 hexadecimal digits \
               per line. The command key generates a line. The first key is used for new data, all are accepted. \
               docs/operations.md describes their rotation.",
        set: |c, v| contents(v, KeyRing::parse).map(|v| c.shared.key_file = v),
    },
    ConfigKey {
        name: "shared.prefix",
        default: "gateway",
        kind: ValueKind::Text,
        help: "Prefix of all keys and channels in the shared Redis. Fleets that share a Redis need different ones.",
        set: |c, v| prefix(v).map(|v| c.shared.prefix = v),
    },
    ConfigKey {
        name: "shared.timeout",
        default: "20ms",
        kind: ValueKind::Duration,
        help: "Maximum time for which a request waits for the shared Redis. Then it is served without.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.shared.timeout = v),
    },
    ConfigKey {
        name: "shared.lease",
        default: "2s",
        kind: ValueKind::Duration,
        help: "Time for which a replica belongs to the fleet without a sign of life. A replica that cannot renew its lease \
               revalidates its cached data (shared.on_outage).",
        set: |c, v| duration(v, Duration::from_millis(500)).map(|v| c.shared.lease = v),
    },
    ConfigKey {
        name: "shared.publish_timeout",
        default: "50ms",
        kind: ValueKind::Duration,
        help: "Maximum time for which the response to a change waits until all replicas have acknowledged the change.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.shared.publish_timeout = v),
    },
    ConfigKey {
        name: "shared.cache",
        default: "false",
        kind: ValueKind::Switch,
        help: "Store appointments in the shared Redis, encrypted, as a second-level cache of all replicas: at most twice \
               cache.size, with cache.caller_share for each caller.",
        set: |c, v| switch(v).map(|v| c.shared.cache = v),
    },
    ConfigKey {
        name: "shared.on_outage",
        default: "serve",
        kind: ValueKind::Choice(ON_OUTAGE),
        help: "Cached data while the shared Redis is not available, once the upstream has confirmed it: served for \
               cache.ttl (serve), or for shared.outage_ttl at most (shorten).",
        set: |c, v| {
            c.shared.on_outage = match v {
                "serve" => OnOutage::Serve,
                "shorten" => OnOutage::Shorten,
                _ => return Err(one_of(ON_OUTAGE)),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "shared.outage_ttl",
        default: "2s",
        kind: ValueKind::Duration,
        help: "Maximum TTL of cached data while the shared Redis is not available, if shared.on_outage is shorten. 0: no \
               caching.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.shared.outage_ttl = v),
    },
    ConfigKey {
        name: "graphiql.enabled",
        default: "true",
        kind: ValueKind::Switch,
        help: "Serve GraphiQL at /. Its addresses are relative, so it works behind a proxy that strips a path prefix. \
               Off: 404.",
        set: |c, v| switch(v).map(|v| c.graphiql = v),
    },
    ConfigKey {
        name: "metrics.enabled",
        default: "true",
        kind: ValueKind::Switch,
        help: "Serve /metrics on the address of the API. Off: 404.",
        set: |c, v| switch(v).map(|v| c.metrics.enabled = v),
    },
    ConfigKey {
        name: "metrics.listen",
        default: "",
        kind: ValueKind::Address,
        help: "Additional listen address that serves only /metrics, for a scraper on a private network.",
        set: |c, v| optional(v, address).map(|v| c.metrics.listen = v),
    },
    ConfigKey {
        name: "admin.listen",
        default: "",
        kind: ValueKind::Address,
        help: "Additional listen address that serves only /livez, /readyz and /metrics, whatever the load and the limits \
               of the address of the API. It is served until the process exits.",
        set: |c, v| optional(v, address).map(|v| c.admin.listen = v),
    },
    ConfigKey {
        name: "log.level",
        default: "info",
        kind: ValueKind::Choice(LEVELS),
        help: "Log level on standard error: off, error, warn, info, debug (every request) or trace.",
        set: |c, v| {
            c.log.level = match v {
                "off" => LogLevel::Off,
                "error" => LogLevel::Error,
                "warn" => LogLevel::Warn,
                "info" => LogLevel::Info,
                "debug" => LogLevel::Debug,
                "trace" => LogLevel::Trace,
                _ => return Err(one_of(LEVELS)),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "log.format",
        default: "human",
        kind: ValueKind::Choice(FORMATS),
        help: "Log format: human or json.",
        set: |c, v| {
            c.log.format = match v {
                "human" => LogFormat::Human,
                "json" => LogFormat::Json,
                _ => return Err(one_of(FORMATS)),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "log.buffer",
        default: "1MiB",
        kind: ValueKind::Size,
        help: "Size of the log buffer for a slow reader of standard error, in addition to the batch being written. \
               Lines that do not fit are dropped and counted.",
        set: |c, v| size(v, 4096).map(|v| c.log.buffer = v),
    },
    ConfigKey {
        name: "sandbox.enabled",
        default: "false",
        kind: ValueKind::Switch,
        help: "Serve the built-in sandbox (made-up data), even on an address that is not loopback. Without \
               upstream.url, a gateway on a loopback address serves it anyway.",
        set: |c, v| switch(v).map(|v| c.sandbox.enabled = v),
    },
    ConfigKey {
        name: "sandbox.latency",
        default: "0",
        kind: ValueKind::Duration,
        help: "Delay of every sandbox response.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.sandbox.faults.latency = v),
    },
    ConfigKey {
        name: "sandbox.error_percent",
        default: "0",
        kind: ValueKind::Count,
        help: "Percentage of sandbox responses with status 500, 502 or 503.",
        set: |c, v| count(v, 0..=100).map(|v| c.sandbox.faults.error_percent = v as u8),
    },
    ConfigKey {
        name: "sandbox.garbage_percent",
        default: "0",
        kind: ValueKind::Count,
        help: "Percentage of sandbox responses that are not JSON.",
        set: |c, v| count(v, 0..=100).map(|v| c.sandbox.faults.garbage_percent = v as u8),
    },
    ConfigKey {
        name: "sandbox.cut_percent",
        default: "0",
        kind: ValueKind::Count,
        help: "Percentage of sandbox responses that are truncated.",
        set: |c, v| count(v, 0..=100).map(|v| c.sandbox.faults.cut_percent = v as u8),
    },
    ConfigKey {
        name: "sandbox.rate_limit",
        default: "0",
        kind: ValueKind::Count,
        help: "Requests per minute and token that the sandbox accepts before it returns 429. 0: no limit.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.sandbox.faults.rate_limit = v as u32),
    },
];
