//! The repository itself: its documents and the licences of its dependencies.

mod documents;
mod licences;
