//! HTTP: the protocol, browsers, GraphiQL, and the limits of a connection or a caller.

mod browser;
mod client_accept;
mod client_cache;
mod compression;
mod concurrency_limit;
mod early_refusals;
mod excess_connections;
mod fair_admission;
mod graphiql;
mod graphql_path;
mod host_header;
mod http1;
mod idle_connections;
mod media_types;
mod open_files;
mod operation_arrays;
mod protocol;
mod rate_limit;
mod request_smuggling;
mod request_timeout;
mod response_memory;
mod statuses;
