//! What the tests share: a gateway as a process, and far sides under control.

mod answer;
mod gateway;
mod reading;
mod tls_upstream;
mod upstream;

pub use answer::{Answer, Gate, UPSTREAM_TEXT};
pub use gateway::{Gateway, PATIENCE, Reply};
pub use tls_upstream::TlsUpstream;
pub use upstream::{Call, Upstream, id, ids, served};
