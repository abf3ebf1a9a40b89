//! What the tests share: a gateway as a process, and far sides under control.

mod answer;
mod gateway;
mod reading;
mod upstream;

pub use answer::{Answer, Gate, UPSTREAM_TEXT};
pub use gateway::{Gateway, PATIENCE, Reply};
pub use upstream::{Call, Upstream, id, ids, served};
