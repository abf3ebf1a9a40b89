//! Running the gateway: commands, configuration, logs, metrics, shutdown.

mod commands;
mod configuration;
mod failing_operations;
mod lifecycle;
mod logs;
mod metrics;
mod privacy;
mod profile;
mod slow_log_reader;
mod warnings;
