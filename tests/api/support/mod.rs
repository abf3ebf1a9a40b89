//! What the tests share: a gateway as a process, and far sides under control.

mod answer;
mod gateway;
mod process;
pub mod raw;
mod reading;
mod tls_upstream;
mod upstream;

pub use answer::{Answer, Gate, UPSTREAM_TEXT};
pub use gateway::{Gateway, PATIENCE, Reply, client, program};
pub use process::{Ended, TempFile, peak_memory, signal};
pub use raw::{Raw, RawReply};
pub use tls_upstream::TlsUpstream;
pub use upstream::{Call, Upstream, id, ids, served};
