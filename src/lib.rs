//! A GraphQL gateway in front of the appointments REST API. WIP docs
pub mod cli;
pub mod config;
pub mod server;
pub mod telemetry;

pub mod appointments;
pub mod caller;
pub mod graphql;
pub mod http;
pub mod model;
pub mod upstream;

pub mod sandbox;
