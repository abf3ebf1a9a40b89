//! Every key that there is.

use std::time::Duration;

use super::{
    auth::IdentityMode,
    key::{Key, Kind},
    log::{LogFormat, LogLevel},
    profile::Profile,
    value::{
        address, algorithms, base_url, contents, count, duration, file, one_of, optional, origins, secret,
        secret_file, secure_url, size, switch, text,
    },
};
use crate::credentials::{api_keys::ApiKeys, jwks::KeySet};

const MODES: &[&str] = &["pass-through", "service"];
const PROFILES: &[&str] = &["development", "production"];
const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
const FORMATS: &[&str] = &["human", "json"];

/// Every key, in the order of `docs/configuration.md`.
pub const KEYS: &[Key] = &[
    Key {
        name: "listen",
        default: "127.0.0.1:8080",
        kind: Kind::Address,
        help: "Where the gateway listens. Port 0 takes a free one.",
        set: |c, v| address(v).map(|v| c.listen = v),
    },
    Key {
        name: "profile",
        default: "development",
        kind: Kind::Choice(PROFILES),
        help: "Which defaults there are: development, those for a laptop, or production, of which many are strict. A key \
               that is set beats either.",
        set: |c, v| {
            c.profile = match v {
                "development" => Profile::Development,
                "production" => Profile::Production,
                _ => return Err(one_of(PROFILES)),
            };
            Ok(())
        },
    },
    Key {
        name: "upstream.url",
        default: "",
        kind: Kind::Url,
        help: "The base address of the appointments REST API; /api/v1/appointments is added to it. \
               None: the built-in sandbox.",
        set: |c, v| base_url(v).map(|v| c.upstream.url = v),
    },
    Key {
        name: "upstream.ca_file",
        default: "",
        kind: Kind::File,
        help: "PEM certificates to trust beside those of the system, for an upstream with a private authority.",
        set: |c, v| file(v).map(|v| c.upstream.ca_file = v),
    },
    Key {
        name: "upstream.connect_timeout",
        default: "2s",
        kind: Kind::Duration,
        help: "How long a connection to the upstream may take to be made.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.upstream.connect_timeout = v),
    },
    Key {
        name: "upstream.timeout",
        default: "5s",
        kind: Kind::Duration,
        help: "How long one attempt at a call to the upstream may take, from the connection to the last byte.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.upstream.timeout = v),
    },
    Key {
        name: "upstream.max_response",
        default: "1MiB",
        kind: Kind::Size,
        help: "The largest answer that is read from the upstream.",
        set: |c, v| size(v, 1).map(|v| c.upstream.max_response = v),
    },
    Key {
        name: "upstream.max_concurrent",
        default: "64",
        kind: Kind::Count,
        help: "How many calls to the upstream are under way at once, and how many idle connections are kept.",
        set: |c, v| count(v, 1..=100_000).map(|v| c.upstream.max_concurrent = v),
    },
    Key {
        name: "upstream.max_waiting",
        default: "1024",
        kind: Kind::Count,
        help: "How many more calls may wait for their turn; beyond, OVERLOADED.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.upstream.max_waiting = v),
    },
    Key {
        name: "upstream.caller_share",
        default: "90",
        kind: Kind::Count,
        help: "How many in a hundred of upstream.max_concurrent and upstream.max_waiting one caller may take, counted from \
               what the others leave: so there is always something left for one more. Rounded down, at least one.",
        set: |c, v| count(v, 1..=100).map(|v| c.upstream.caller_share = v),
    },
    Key {
        name: "upstream.retries",
        default: "2",
        kind: Kind::Count,
        help: "How often a GET is repeated that found no connection or no answer in time, or met 429, 502, 503 or 504, \
               as long as the request has time left. 0: never.",
        set: |c, v| count(v, 0..=10).map(|v| c.upstream.retries = v as u32),
    },
    Key {
        name: "upstream.retry_percent",
        default: "20",
        kind: Kind::Count,
        help: "How many repetitions there may be for a hundred calls, beside the first ten.",
        set: |c, v| count(v, 0..=100).map(|v| c.upstream.retry_percent = v as u32),
    },
    Key {
        name: "upstream.max_paused",
        default: "10000",
        kind: Kind::Count,
        help: "How many callers are remembered that the upstream told to wait (429 with Retry-After): until then, none \
               of their GETs is sent. 0: none.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.upstream.max_paused = v),
    },
    Key {
        name: "upstream.hedge_percent",
        default: "0",
        kind: Kind::Count,
        help: "How many GETs in a hundred may be sent a second time when they take longer than 95 in a hundred of late; \
               the first answer counts. 0: none.",
        set: |c, v| count(v, 0..=100).map(|v| c.upstream.hedge_percent = v as u32),
    },
    Key {
        name: "upstream.breaker_percent",
        default: "50",
        kind: Kind::Count,
        help: "How many calls in a hundred of a route (one appointment, the list, changes) have to fail (5xx, no \
               connection, no answer in time) for its circuit breaker to open: then none is made. 0: it never opens.",
        set: |c, v| count(v, 0..=100).map(|v| c.upstream.breaker.percent = v as u64),
    },
    Key {
        name: "upstream.breaker_calls",
        default: "20",
        kind: Kind::Count,
        help: "How many calls it takes to judge by.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.upstream.breaker.calls = v as u64),
    },
    Key {
        name: "upstream.breaker_window",
        default: "10s",
        kind: Kind::Duration,
        help: "How far back calls count for it.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.upstream.breaker.window = v),
    },
    Key {
        name: "upstream.breaker_pause",
        default: "5s",
        kind: Kind::Duration,
        help: "How long a breaker stays open, and up to a fifth longer, before it lets three calls through to see.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.upstream.breaker.pause = v),
    },
    Key {
        name: "identity.mode",
        default: "pass-through",
        kind: Kind::Choice(MODES),
        help: "With whose token the upstream is asked. pass-through: each caller's own. service: the gateway's, and \
               callers have to show who they are (callers.*).",
        set: |c, v| {
            c.identity.mode = match v {
                "pass-through" => IdentityMode::PassThrough,
                "service" => IdentityMode::Service,
                _ => return Err(one_of(MODES)),
            };
            Ok(())
        },
    },
    Key {
        name: "identity.token_url",
        default: "",
        kind: Kind::Url,
        help: "Where the gateway gets its own token (OAuth 2.0 client credentials). It is called as the upstream is: \
               upstream.timeout, upstream.max_response and upstream.ca_file hold.",
        set: |c, v| secure_url(v).map(|v| c.identity.token_url = v),
    },
    Key {
        name: "identity.client_id",
        default: "",
        kind: Kind::Text,
        help: "The gateway's client id there.",
        set: |c, v| text(v).map(|v| c.identity.client_id = v),
    },
    Key {
        name: "identity.client_secret",
        default: "",
        kind: Kind::Secret,
        help: "The secret of that client.",
        set: |c, v| secret(v).map(|v| c.identity.client_secret = v),
    },
    Key {
        name: "identity.client_secret_file",
        default: "",
        kind: Kind::SecretFile,
        help: "The file that holds the secret of that client, in one line; or set GATEWAY_IDENTITY_CLIENT_SECRET.",
        set: |c, v| secret_file(v).map(|v| c.identity.client_secret_file = v),
    },
    Key {
        name: "identity.scope",
        default: "",
        kind: Kind::Text,
        help: "The OAuth scopes to ask for, with spaces between them. None: those that the client has.",
        set: |c, v| text(v).map(|v| c.identity.scope = v),
    },
    Key {
        name: "identity.retry_interval",
        default: "1s",
        kind: Kind::Duration,
        help: "How long to wait after no token could be got; twice as long after each further failure, up to 32 times \
               as long.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.identity.retry_interval = v),
    },
    Key {
        name: "identity.refresh_interval",
        default: "10s",
        kind: Kind::Duration,
        help: "A token that the upstream does not accept (401) is replaced before its time, but not more often than this.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.identity.refresh_interval = v),
    },
    Key {
        name: "callers.jwks_url",
        default: "",
        kind: Kind::Url,
        help: "Where the public keys of who issues the callers' JWTs are (a JWK set). It is called as the upstream is.",
        set: |c, v| secure_url(v).map(|v| c.callers.jwks_url = v),
    },
    Key {
        name: "callers.jwks_file",
        default: "",
        kind: Kind::File,
        help: "Those keys as a file, read at the start.",
        set: |c, v| contents(v, KeySet::from_file).map(|v| c.callers.jwks_file = v),
    },
    Key {
        name: "callers.jwks_max_age",
        default: "10m",
        kind: Kind::Duration,
        help: "How long the keys from callers.jwks_url are used before they are fetched again.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.callers.jwks_max_age = v),
    },
    Key {
        name: "callers.jwks_refresh_interval",
        default: "10s",
        kind: Kind::Duration,
        help: "A token with a key that is not known has them fetched before their time, but not more often than this. \
               After a failure it is waited for as long; twice as long after each further one, up to 32 times as long.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.callers.jwks_refresh_interval = v),
    },
    Key {
        name: "callers.issuer",
        default: "",
        kind: Kind::Text,
        help: "Who issues the callers' JWTs: their iss has to be this.",
        set: |c, v| text(v).map(|v| c.callers.issuer = v),
    },
    Key {
        name: "callers.audience",
        default: "",
        kind: Kind::Text,
        help: "Whom they are for: their aud has to have this.",
        set: |c, v| text(v).map(|v| c.callers.audience = v),
    },
    Key {
        name: "callers.algorithms",
        default: "RS256,ES256",
        kind: Kind::Algorithms,
        help: "The algorithms that they may be signed with, with commas between them.",
        set: |c, v| algorithms(v).map(|v| c.callers.algorithms = v),
    },
    Key {
        name: "callers.leeway",
        default: "5s",
        kind: Kind::Duration,
        help: "How far the issuer's clock may be from the gateway's, for exp and nbf.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.callers.leeway = v),
    },
    Key {
        name: "callers.max_verified",
        default: "10000",
        kind: Kind::Count,
        help: "How many verified JWTs are remembered as such, by a digest and not past their exp, so that each is \
               verified once; and as many of their subjects, for callers.verifications_per_second. 0: none.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.callers.max_verified = v),
    },
    Key {
        name: "callers.verifications_per_second",
        default: "2000",
        kind: Kind::Count,
        help: "How many signatures of JWTs are checked a second; beyond, OVERLOADED. Half of them are reserved for \
               subjects that had a token verified before, of which one may take a hundredth. Tokens that are remembered \
               as verified, and those that are rejected without a check, cost none. 0: any number.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.callers.verifications_per_second = v as u32),
    },
    Key {
        name: "callers.api_keys_file",
        default: "",
        kind: Kind::File,
        help: "The callers' API keys, one line NAME:DIGEST each, read at the start; api-key NAME makes one.",
        set: |c, v| contents(v, ApiKeys::from_file).map(|v| c.callers.api_keys_file = v),
    },
    Key {
        name: "callers.share_cache",
        default: "false",
        kind: Kind::Switch,
        help: "Whether what one caller had fetched is shown to all others that are known, where identity.mode is \
               service. Off: to each its own.",
        set: |c, v| switch(v).map(|v| c.callers.share_cache = v),
    },
    Key {
        name: "cache.size",
        default: "64MiB",
        kind: Kind::Size,
        help: "How much memory the remembered appointments may take.",
        set: |c, v| size(v, 0).map(|v| c.cache.size = v),
    },
    Key {
        name: "cache.ttl",
        default: "30s",
        kind: Kind::Duration,
        help: "How long an appointment is remembered, unless the upstream or the caller's token says less. 0: not at all.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.cache.ttl = v),
    },
    Key {
        name: "cache.absence_ttl",
        default: "5s",
        kind: Kind::Duration,
        help: "How long it is remembered that there is no appointment by an id. 0: not at all.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.cache.absence_ttl = v),
    },
    Key {
        name: "cache.list_ttl",
        default: "5s",
        kind: Kind::Duration,
        help: "How long a page of the list is remembered. 0: not at all.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.cache.list_ttl = v),
    },
    Key {
        name: "cache.list_size",
        default: "16MiB",
        kind: Kind::Size,
        help: "How much memory the remembered pages may take, beside cache.size.",
        set: |c, v| size(v, 0).map(|v| c.cache.list_size = v),
    },
    Key {
        name: "cache.answers_size",
        default: "16MiB",
        kind: Kind::Size,
        help: "How much memory finished answers may take, beside cache.size: an equal request of the same caller is \
               answered with one as long as everything that it was made from is remembered and fresh. 0: none.",
        set: |c, v| size(v, 0).map(|v| c.cache.answers_size = v),
    },
    Key {
        name: "cache.stale_if_error",
        default: "5m",
        kind: Kind::Duration,
        help: "How long past its time what is remembered is served, marked as stale, where the upstream fails. 0: not at \
               all.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.cache.stale_if_error = v),
    },
    Key {
        name: "cache.stale_while_revalidate",
        default: "0",
        kind: Kind::Duration,
        help: "How long past its time it is served at once, marked as stale, while it is asked for anew. 0: not at all.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.cache.stale_while_revalidate = v),
    },
    Key {
        name: "cache.caller_share",
        default: "5",
        kind: Kind::Count,
        help: "What one token may take of cache.size, cache.list_size and cache.answers_size for certain, in percent. Who \
               has more gives way first when there is no room.",
        set: |c, v| count(v, 1..=100).map(|v| c.cache.caller_share = v as u8),
    },
    Key {
        name: "live.fast_interval",
        default: "2s",
        kind: Kind::Duration,
        help: "How often a watched appointment is asked for close to its time and while in session.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.live.fast_interval = v),
    },
    Key {
        name: "live.slow_interval",
        default: "30s",
        kind: Kind::Duration,
        help: "How often it is asked for otherwise, and the longest pause after failures.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.live.slow_interval = v),
    },
    Key {
        name: "live.near",
        default: "15m",
        kind: Kind::Duration,
        help: "How close to appointmentAt, before and after, counts as close.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.live.near = v),
    },
    Key {
        name: "live.max_watched",
        default: "10000",
        kind: Kind::Count,
        help: "How many appointments are watched at once, counted for each token; beyond, OVERLOADED.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.live.max_watched = v),
    },
    Key {
        name: "live.max_subscribers",
        default: "1000",
        kind: Kind::Count,
        help: "The most subscribers of one appointment with one token; beyond, OVERLOADED.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.live.max_subscribers = v),
    },
    Key {
        name: "live.max_subscriptions",
        default: "20000",
        kind: Kind::Count,
        help: "The most subscriptions in all, each at about 24 KiB; beyond, OVERLOADED.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.live.max_subscriptions = v),
    },
    Key {
        name: "live.caller_share",
        default: "50",
        kind: Kind::Count,
        help: "Share per caller, in percent: of live.max_watched, and of those live.max_subscriptions that other callers leave. \
               Beyond, OVERLOADED for that caller alone.",
        set: |c, v| count(v, 1..=100).map(|v| c.live.caller_share = v as u8),
    },
    Key {
        name: "live.max_event_streams",
        default: "10000",
        kind: Kind::Count,
        help: "How many subscriptions go over event streams at once; beyond, 503. 0: none.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.live.max_event_streams = v),
    },
    Key {
        name: "live.keep_alive",
        default: "12s",
        kind: Kind::Duration,
        help: "How often an open event stream or WebSocket gets a sign of life when there is nothing else to send.",
        set: |c, v| duration(v, Duration::from_millis(10)).map(|v| c.live.keep_alive = v),
    },
    Key {
        name: "websocket.init_timeout",
        default: "10s",
        kind: Kind::Duration,
        help: "How long a client may take to begin (connection_init) once its WebSocket is open; beyond, it is closed \
               with 4408.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.websocket.init_timeout = v),
    },
    Key {
        name: "websocket.max_connections",
        default: "10000",
        kind: Kind::Count,
        help: "How many WebSockets are open at once; beyond, 503. 0: none.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.websocket.max_connections = v),
    },
    Key {
        name: "websocket.max_subscriptions",
        default: "100",
        kind: Kind::Count,
        help: "How many operations one WebSocket runs at once; beyond, an error for the operation.",
        set: |c, v| count(v, 1..=10_000).map(|v| c.websocket.max_subscriptions = v),
    },
    Key {
        name: "websocket.max_message",
        default: "256KiB",
        kind: Kind::Size,
        help: "The largest message that is read from a WebSocket; beyond, it is closed with 1009.",
        set: |c, v| size(v, 128).map(|v| c.websocket.max_message = v),
    },
    Key {
        name: "websocket.init_max_message",
        default: "16KiB",
        kind: Kind::Size,
        help: "The largest message before connection_ack to a valid token, and for as long as there is none; beyond, the \
               WebSocket is closed with 1009. websocket.max_message holds too.",
        set: |c, v| size(v, 128).map(|v| c.websocket.init_max_message = v),
    },
    Key {
        name: "websocket.message_timeout",
        default: "10s",
        kind: Kind::Duration,
        help: "The time from the first byte of a message to its last, fragments included; beyond, the WebSocket is closed \
               with 4408.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.websocket.message_timeout = v),
    },
    Key {
        name: "websocket.messages_per_second",
        default: "50",
        kind: Kind::Count,
        help: "The rate of frames from one WebSocket: messages, fragments, pings and pongs; as many may come at once. \
               Beyond, the gateway reads no faster (back-pressure).",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.websocket.messages_per_second = v as u32),
    },
    Key {
        name: "websocket.max_partial",
        default: "16MiB",
        kind: Kind::Size,
        help: "The bytes of unfinished messages of all WebSockets together, beside 4 KiB for each; beyond, the WebSocket \
               that needs more is closed with 1013.",
        set: |c, v| size(v, 0).map(|v| c.websocket.max_partial = v),
    },
    Key {
        name: "limits.body",
        default: "256KiB",
        kind: Kind::Size,
        help: "The largest request body; beyond, 413.",
        set: |c, v| size(v, 1).map(|v| c.limits.body = v),
    },
    Key {
        name: "limits.headers",
        default: "32KiB",
        kind: Kind::Size,
        help: "The most that the request line and headers may take together; beyond, 431.",
        set: |c, v| size(v, 1024).map(|v| c.limits.headers = v),
    },
    Key {
        name: "limits.header_count",
        default: "64",
        kind: Kind::Count,
        help: "The most headers; beyond, 431.",
        set: |c, v| count(v, 8..=1000).map(|v| c.limits.header_count = v),
    },
    Key {
        name: "limits.uri",
        default: "8KiB",
        kind: Kind::Size,
        help: "The longest address, its query string included; beyond, 414.",
        set: |c, v| size(v, 64).map(|v| c.limits.uri = v),
    },
    Key {
        name: "limits.token",
        default: "8KiB",
        kind: Kind::Size,
        help: "The longest bearer token.",
        set: |c, v| size(v, 1).map(|v| c.limits.token = v),
    },
    Key {
        name: "limits.query",
        default: "64KiB",
        kind: Kind::Size,
        help: "The longest query text.",
        set: |c, v| size(v, 1).map(|v| c.limits.query = v),
    },
    Key {
        name: "limits.tokens",
        default: "4000",
        kind: Kind::Count,
        help: "The most words and signs (lexical tokens) in a query.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.limits.tokens = v),
    },
    Key {
        name: "limits.depth",
        default: "25",
        kind: Kind::Count,
        help: "How deep selections may nest; a fragment counts as a level. GraphiQL's own introspection needs 19.",
        set: |c, v| count(v, 1..=50).map(|v| c.limits.depth = v),
    },
    Key {
        name: "limits.fields",
        default: "2000",
        kind: Kind::Count,
        help: "The most fields in an operation, counted each time a fragment is used.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.limits.fields = v),
    },
    Key {
        name: "limits.root_fields",
        default: "50",
        kind: Kind::Count,
        help: "The most fields at the top of an operation.",
        set: |c, v| count(v, 1..=10_000).map(|v| c.limits.root_fields = v),
    },
    Key {
        name: "limits.aliases",
        default: "50",
        kind: Kind::Count,
        help: "The most aliases in an operation, counted each time a fragment is used.",
        set: |c, v| count(v, 0..=10_000).map(|v| c.limits.aliases = v),
    },
    Key {
        name: "limits.directives",
        default: "50",
        kind: Kind::Count,
        help: "The most directives in an operation, counted each time a fragment is used.",
        set: |c, v| count(v, 0..=10_000).map(|v| c.limits.directives = v),
    },
    Key {
        name: "limits.cost",
        default: "100000",
        kind: Kind::Count,
        help: "The most that an operation may cost: 1 for a field, 10 more for what it has asked of the upstream, and lists \
               by their length. The rule is in docs/api.md, under \"Cost\".",
        set: |c, v| count(v, 1..=1_000_000_000).map(|v| c.limits.cost = v),
    },
    Key {
        name: "limits.errors",
        default: "20",
        kind: Kind::Count,
        help: "The most errors that are listed for a request that is not run. Errors of fields are always all listed.",
        set: |c, v| count(v, 1..=1_000).map(|v| c.limits.errors = v),
    },
    Key {
        name: "limits.ids",
        default: "100",
        kind: Kind::Count,
        help: "The most ids that appointmentsByIds takes, and the most distinct ones that an operation asks for.",
        set: |c, v| count(v, 1..=100).map(|v| c.limits.ids = v),
    },
    Key {
        name: "limits.items",
        default: "1000",
        kind: Kind::Count,
        help: "The most appointments that all fields of an operation ask for together, each counted as often as it is \
               asked for.",
        set: |c, v| count(v, 1..=100_000).map(|v| c.limits.items = v),
    },
    Key {
        name: "limits.answer",
        default: "8MiB",
        kind: Kind::Size,
        help: "The largest answer to an operation, and the largest event of a subscription, as JSON before compression.",
        set: |c, v| size(v, 1024).map(|v| c.limits.answer = v),
    },
    Key {
        name: "limits.operations",
        default: "1024",
        kind: Kind::Count,
        help: "How many queries and changes are carried out at once.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.limits.operations = v),
    },
    Key {
        name: "limits.operations_waiting",
        default: "256",
        kind: Kind::Count,
        help: "How many more may wait for their turn; beyond, OVERLOADED.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.limits.operations_waiting = v),
    },
    Key {
        name: "limits.operations_wait",
        default: "500ms",
        kind: Kind::Duration,
        help: "How long one may wait for its turn; beyond, OVERLOADED.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.limits.operations_wait = v),
    },
    Key {
        name: "limits.caller_share",
        default: "50",
        kind: Kind::Count,
        help: "The share of one caller in limits.operations, limits.operations_waiting and http.max_response_memory, in \
               percent of what the other callers leave; at least one. Callers without a valid credential count as one.",
        set: |c, v| count(v, 1..=100).map(|v| c.limits.caller_share = v),
    },
    Key {
        name: "rate_limit.per_second",
        default: "0",
        kind: Kind::Count,
        help: "How many operations a second each caller may ask for on the long run; beyond, RATE_LIMITED. Those without a token count as one caller. 0: any number.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.rate_limit.per_second = v as u32),
    },
    Key {
        name: "rate_limit.burst",
        default: "200",
        kind: Kind::Count,
        help: "How many it may ask for at once after a pause.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.rate_limit.burst = v as u32),
    },
    Key {
        name: "rate_limit.max_callers",
        default: "100000",
        kind: Kind::Count,
        help: "How many callers are counted apart at once, at about 100 bytes each; who comes beyond them is counted with those without a token.",
        set: |c, v| count(v, 1..=10_000_000).map(|v| c.rate_limit.max_callers = v),
    },
    Key {
        name: "http.origins",
        default: "",
        kind: Kind::Origins,
        help: "The origins whose pages may ask /graphql and read the answers (CORS), and open a WebSocket beside those of \
               the host that they open it to, with commas between them: \
               https://app.example,https://admin.example:8443.",
        set: |c, v| origins(v).map(|v| c.http.origins = v),
    },
    Key {
        name: "http.compression",
        default: "true",
        kind: Kind::Switch,
        help: "Whether answers are compressed (br or gzip) for clients that ask for it.",
        set: |c, v| switch(v).map(|v| c.http.compression = v),
    },
    Key {
        name: "http.deadline",
        default: "10s",
        kind: Kind::Duration,
        help: "How long a request may take, its body included (408). What is not there by then fails with \
               UPSTREAM_TIMEOUT, a change that was sent with OUTCOME_UNKNOWN; the rest is answered. A subscription \
               has none.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.http.deadline = v),
    },
    Key {
        name: "http.max_connections",
        default: "20000",
        kind: Kind::Count,
        help: "How many connections are served at once, beside the WebSockets; who comes then waits to be let in. Connections \
               and WebSockets together are bounded by the limit on open files, less a reserve.",
        set: |c, v| count(v, 1..=1_000_000).map(|v| c.http.max_connections = v),
    },
    Key {
        name: "http.write_timeout",
        default: "30s",
        kind: Kind::Duration,
        help: "How long a client may take nothing of what is sent to it, before its connection is closed.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.http.write_timeout = v),
    },
    Key {
        name: "http.send_timeout",
        default: "60s",
        kind: Kind::Duration,
        help: "How long a client may take to read a response, an event or a WebSocket message whole, before its connection \
               is closed.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.http.send_timeout = v),
    },
    Key {
        name: "http.max_response_memory",
        default: "256MiB",
        kind: Kind::Size,
        help: "How much memory all answers may take together: those being written, those that clients have not read yet, and \
               the cached ones. Beyond, OVERLOADED. At least cache.answers_size and limits.answer together.",
        set: |c, v| size(v, 1024).map(|v| c.http.max_response_memory = v),
    },
    Key {
        name: "http.header_timeout",
        default: "10s",
        kind: Kind::Duration,
        help: "How long a client may take to send the headers of a request; a connection that sends nothing is closed \
               after it too.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.http.header_timeout = v),
    },
    Key {
        name: "http.body_timeout",
        default: "5s",
        kind: Kind::Duration,
        help: "How long a client may take to send the body of a request; beyond, 408.",
        set: |c, v| duration(v, Duration::from_millis(1)).map(|v| c.http.body_timeout = v),
    },
    Key {
        name: "http.drain_delay",
        default: "0",
        kind: Kind::Duration,
        help: "How long /readyz says 503 while requests are still accepted, once asked to stop: the time that a load \
               balancer needs to look away.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.http.drain_delay = v),
    },
    Key {
        name: "http.drain_deadline",
        default: "15s",
        kind: Kind::Duration,
        help: "How long the requests in flight may then still take.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.http.drain_deadline = v),
    },
    Key {
        name: "graphql.introspection",
        default: "true",
        kind: Kind::Switch,
        help: "Whether clients may ask for the schema (__schema, __type). GraphiQL does. Off: GRAPHQL_VALIDATION_FAILED.",
        set: |c, v| switch(v).map(|v| c.graphql.introspection = v),
    },
    Key {
        name: "graphql.suggestions",
        default: "true",
        kind: Kind::Switch,
        help: "Whether the message for a field that does not exist names fields that do.",
        set: |c, v| switch(v).map(|v| c.graphql.suggestions = v),
    },
    Key {
        name: "graphql.documents_size",
        default: "4MiB",
        kind: Kind::Size,
        help: "How much memory the queries may take that were found valid and are not read again. 0: none is remembered.",
        set: |c, v| size(v, 0).map(|v| c.graphql.documents_size = v),
    },
    Key {
        name: "graphiql.enabled",
        default: "true",
        kind: Kind::Switch,
        help: "Whether GraphiQL is served at /. Off: 404.",
        set: |c, v| switch(v).map(|v| c.graphiql = v),
    },
    Key {
        name: "metrics.enabled",
        default: "true",
        kind: Kind::Switch,
        help: "Whether /metrics is served beside /graphql. Off: 404.",
        set: |c, v| switch(v).map(|v| c.metrics.enabled = v),
    },
    Key {
        name: "metrics.listen",
        default: "",
        kind: Kind::Address,
        help: "An address of its own at which /metrics is served as well, and nothing else: one that only your scraper reaches.",
        set: |c, v| optional(v, address).map(|v| c.metrics.listen = v),
    },
    Key {
        name: "log.level",
        default: "info",
        kind: Kind::Choice(LEVELS),
        help: "How much is logged to standard error: off, error, warn, info, debug (each request) or trace.",
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
    Key {
        name: "log.format",
        default: "human",
        kind: Kind::Choice(FORMATS),
        help: "How a log line looks: human or json.",
        set: |c, v| {
            c.log.format = match v {
                "human" => LogFormat::Human,
                "json" => LogFormat::Json,
                _ => return Err(one_of(FORMATS)),
            };
            Ok(())
        },
    },
    Key {
        name: "log.buffer",
        default: "1MiB",
        kind: Kind::Size,
        help: "How many bytes of log lines wait while the reader of standard error is slow, beside as many that are being \
               written. Lines beyond are dropped and counted.",
        set: |c, v| size(v, 4096).map(|v| c.log.buffer = v),
    },
    Key {
        name: "sandbox.enabled",
        default: "false",
        kind: Kind::Switch,
        help: "Serve the built-in sandbox (made-up data) even on an address that others can reach. Without \
               upstream.url, a gateway on a loopback address serves it anyway.",
        set: |c, v| switch(v).map(|v| c.sandbox.enabled = v),
    },
    Key {
        name: "sandbox.latency",
        default: "0",
        kind: Kind::Duration,
        help: "What the sandbox waits before each answer.",
        set: |c, v| duration(v, Duration::ZERO).map(|v| c.sandbox.faults.latency = v),
    },
    Key {
        name: "sandbox.error_percent",
        default: "0",
        kind: Kind::Count,
        help: "How many in a hundred of the sandbox's answers are 500, 502 or 503.",
        set: |c, v| count(v, 0..=100).map(|v| c.sandbox.faults.error_percent = v as u8),
    },
    Key {
        name: "sandbox.garbage_percent",
        default: "0",
        kind: Kind::Count,
        help: "How many in a hundred are no JSON.",
        set: |c, v| count(v, 0..=100).map(|v| c.sandbox.faults.garbage_percent = v as u8),
    },
    Key {
        name: "sandbox.cut_percent",
        default: "0",
        kind: Kind::Count,
        help: "How many in a hundred break off in the middle.",
        set: |c, v| count(v, 0..=100).map(|v| c.sandbox.faults.cut_percent = v as u8),
    },
    Key {
        name: "sandbox.rate_limit",
        default: "0",
        kind: Kind::Count,
        help: "How many requests a minute the sandbox takes from one token before it answers 429. 0: any number.",
        set: |c, v| count(v, 0..=1_000_000).map(|v| c.sandbox.faults.rate_limit = v as u32),
    },
];
