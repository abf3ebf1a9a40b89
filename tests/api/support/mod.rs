//! What the tests share: a gateway as a process, and far sides under control.

mod answer;
mod call;
pub mod canary;
mod changing;
mod events;
mod gateway;
pub mod issuer;
mod list;
mod output;
mod process;
pub mod raw;
mod reading;
mod service;
mod socket;
mod subscription;
mod tls_upstream;
mod upstream;
mod watching;
mod ways;

pub use answer::{Answer, Gate};
pub use call::Call;
pub use canary::{CLIENT_SECRET, UPSTREAM_TEXT};
pub use changing::CREATED;
pub use events::{Event, Events};
pub use gateway::{Gateway, PATIENCE, Reply, client, decoded, program};
pub use issuer::Issuer;
pub use list::{List, Tells, listed, whole};
pub use process::{Ended, TempFile, memory, peak_memory, signal};
pub use raw::{Raw, RawReply};
pub use service::{KeyFile, service_token};
pub use socket::Socket;
pub use subscription::{Subscription, Transport};
pub use tls_upstream::TlsUpstream;
pub use upstream::{Upstream, id, ids, served};
pub use watching::Told;
pub use ways::Way;
