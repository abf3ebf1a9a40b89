//! What the tests share: a gateway as a process, and far sides under control.

mod gateway;
mod process;
pub mod raw;

pub use gateway::{Gateway, PATIENCE, Reply, client, program};
pub use process::{Ended, TempFile, peak_memory, signal};
pub use raw::{Raw, RawReply};
