//! The stages from the text of an operation to its plan: limits, parsing, validation, variables, normalisation, cost,
//! planning. The document cache skips them for known documents.

pub mod arguments;
pub mod collect_fields;
pub mod complexity;
pub mod cost;
pub mod document_cache;
pub mod integers;
pub mod introspection;
pub mod limits;
pub mod normalize;
pub mod overlap;
pub mod parse;
pub mod parser;
pub mod plan;
pub mod request_digest;
pub mod selection;
pub mod short_names;
pub mod size;
pub mod strings;
pub mod tokens;
pub mod typename;
pub mod value_path;
pub mod variables;
