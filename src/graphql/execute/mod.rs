//! Execution: runs a planned operation and writes its response as JSON.

pub mod draft;
pub mod field;
pub mod json;
pub mod projection;
pub mod response;
pub mod run;
pub mod stale;
pub mod writer;
