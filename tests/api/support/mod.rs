//! What the tests share: a gateway as a process, and far sides under control.

mod gateway;

pub use gateway::{Gateway, Reply};
