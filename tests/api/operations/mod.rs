//! Running the gateway: commands, configuration, logs, metrics, shutdown.

mod admin_listener;
mod commands;
mod configuration;
mod containers;
mod failing_operations;
mod lifecycle;
mod logs;
mod metrics;
mod privacy;
mod profile;
mod slow_log_reader;
mod warnings;
