//! The check of a shared Redis for the operator, with the result that a replica would get at its start.

use std::time::{Duration, Instant};

use redis::{RedisResult, Script};
use tokio::{sync::mpsc, time::timeout};

use super::{
    connection::{Connected, Connector, reason},
    names::Names,
    session::BUS,
};
use crate::{
    config::shared::{SharedConfig, SharedUrl},
    credentials::key_ring::KeyRing,
};

/// The longest time for the check once there is a connection.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The commands of all scripts. A test compares them.
const COMMANDS: &[&str] = &[
    "DEL",
    "EXISTS",
    "GET",
    "HDEL",
    "HGET",
    "HGETALL",
    "HLEN",
    "HMGET",
    "HSET",
    "INCR",
    "PEXPIRE",
    "PEXPIREAT",
    "PTTL",
    "PUBLISH",
    "SET",
    "TIME",
    "UNLINK",
    "ZADD",
    "ZCARD",
    "ZPOPMIN",
    "ZRANGE",
    "ZRANGEBYSCORE",
    "ZREM",
    "ZREMRANGEBYSCORE",
    "ZSCORE",
];

/// Connects as a replica does, and checks the server, the rights of the user and that the server takes writes. Returns a
/// description of the server, with a line for each warning.
///
/// # Errors
/// The reason why a replica could not join, as it would log it.
pub async fn check(config: &SharedConfig, url: &SharedUrl) -> Result<String, String> {
    let found = inspect(config, url).await;
    found.map_err(|reason| format!("the shared Redis ({url}) is not available: {reason}"))
}

async fn inspect(config: &SharedConfig, url: &SharedUrl) -> Result<String, String> {
    let (pushes, _received) = mpsc::channel(16);
    let Connected { mut connection, server, address } =
        Connector::new(config, url.clone())?.connect(pushes).await?;
    let names = Names::new(&config.prefix, config.key_file.clone().unwrap_or_else(KeyRing::random));
    let (script, channel) = (Script::new(include_str!("scripts/check.lua")), names.plain(BUS));
    let mut invocation = script.key(names.plain("check"));
    invocation.arg(&channel).arg(COMMANDS);
    let steps = async {
        connection.subscribe(&channel).await?;
        let denied: Vec<String> = invocation.invoke_async(&mut connection).await?;
        // Once more, for the time of a single call.
        let start = Instant::now();
        invocation.invoke_async::<()>(&mut connection).await?;
        RedisResult::Ok((denied, start.elapsed()))
    };
    let (denied, duration) = timeout(TIMEOUT, steps)
        .await
        .map_err(|_| format!("{address} did not respond within {TIMEOUT:?}"))?
        .map_err(|error| format!("{address}: {}", reason(&error)))?;
    if !denied.is_empty() {
        return Err(format!(
            "{address}: the user may not run {} on {}:*; grant the user the rights that docs/operations.md lists (Fleet)",
            denied.join(", "),
            config.prefix
        ));
    }
    let mut text = format!(
        "the shared Redis at {address} is available (version {}, maxmemory-policy {})",
        server.version, server.eviction
    );
    let is_slow = (duration >= config.timeout).then(|| {
        format!("the shared Redis responded in {duration:.0?}: calls beyond shared.timeout fail; raise shared.timeout")
    });
    for warning in server.warning().into_iter().chain(is_slow) {
        text += "\nwarning: ";
        text += &warning;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_commands_of_all_scripts_are_checked() {
        let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/src/fleet/scripts");
        let mut found = BTreeSet::new();
        for script in std::fs::read_dir(scripts).unwrap() {
            let text = std::fs::read_to_string(script.unwrap().path()).unwrap();
            // `redis.call('GET', …)` and `redis.pcall('GET', …)`.
            for call in text.split("call('").skip(1) {
                found.extend(call.split_once('\'').map(|(command, _)| command.to_owned()));
            }
        }
        let checked = COMMANDS.iter().map(|command| (*command).to_owned()).collect();
        assert_eq!(found, checked, "COMMANDS in src/fleet/check.rs");
    }
}
