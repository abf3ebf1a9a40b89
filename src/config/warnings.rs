//! Warnings about valid but risky settings.

use url::Url;

use super::named_file::NamedFile;
use super::{Config, documents::DocumentsMode, profile::Profile, value::is_loopback};

type Check = fn(&Config) -> Vec<String>;

/// Checks for every profile.
const ALWAYS: &[Check] = &[
    long_upstream_timeout,
    small_response_limit,
    small_burst,
    long_publish_timeout,
    refused_texts,
    service_links,
    proxy_variables,
];

/// Checks for production, where other users share the network and the machine.
const IN_PRODUCTION: &[Check] =
    &[unencrypted_upstream, unencrypted_origins, unencrypted_redis, exposed_files];

impl Config {
    /// Returns a warning for each risky setting: its key, the risk and the fix. No warning contains a secret.
    pub fn warnings(&self) -> Vec<String> {
        let for_profile = if self.profile == Profile::Production { IN_PRODUCTION } else { &[] };
        ALWAYS.iter().chain(for_profile).flat_map(|check| check(self)).collect()
    }
}

fn long_upstream_timeout(config: &Config) -> Vec<String> {
    let warning = "upstream.timeout is not below http.deadline: a call that hangs is cancelled with its request, so it is \
                   not retried and does not open a circuit breaker; lower upstream.timeout";
    let is_long = config.upstream.timeout >= config.http.deadline;
    is_long.then(|| warning.to_owned()).into_iter().collect()
}

fn small_response_limit(config: &Config) -> Vec<String> {
    let warning = "limits.answer is below upstream.max_response: an appointment within upstream.max_response may be too \
                   large to serve; raise limits.answer";
    (config.limits.answer < config.upstream.max_response).then(|| warning.to_owned()).into_iter().collect()
}

fn small_burst(config: &Config) -> Vec<String> {
    let warning = "rate_limit.burst is below limits.batch: an array of limits.batch operations is always refused; raise \
                   rate_limit.burst or lower limits.batch";
    let is_limited = config.rate_limit.per_second > 0;
    let is_small = (config.rate_limit.burst as usize) < config.limits.batch;
    (is_limited && is_small).then(|| warning.to_owned()).into_iter().collect()
}

fn long_publish_timeout(config: &Config) -> Vec<String> {
    let warning = "shared.publish_timeout is not below http.deadline: while a replica does not respond, changes that were \
                   made fail with OUTCOME_UNKNOWN; lower shared.publish_timeout";
    let is_long = config.shared.url.is_some() && config.shared.publish_timeout >= config.http.deadline;
    is_long.then(|| warning.to_owned()).into_iter().collect()
}

/// Tools that send texts of their own, while only trusted documents run.
fn refused_texts(config: &Config) -> Vec<String> {
    if config.documents.mode != DocumentsMode::Require {
        return Vec::new();
    }
    let warning = |(key, _): &(&str, bool)| {
        format!(
            "documents.mode is require, which refuses the documents of {key}; set {key} to false, or documents.mode to log"
        )
    };
    [("graphiql.enabled", config.graphiql), ("graphql.federation", config.graphql.federation)]
        .iter()
        .filter(|(_, is_enabled)| *is_enabled)
        .map(warning)
        .collect()
}

fn service_links(config: &Config) -> Vec<String> {
    let names = &config.ignored_variables.service_links;
    let Some((first, others)) = names.split_first() else { return Vec::new() };
    let names = match others.len() {
        0 => first.clone(),
        count => format!("{first} and {count} more"),
    };
    vec![format!(
        "the environment has variables of a Kubernetes Service whose name begins with gateway, which are ignored ({names}); \
         set enableServiceLinks: false in the pod's specification, and Kubernetes will not inject them"
    )]
}

fn proxy_variables(config: &Config) -> Vec<String> {
    let names = &config.ignored_variables.proxies;
    if names.is_empty() {
        return Vec::new();
    }
    let names = names.join(", ");
    vec![match &config.upstream.proxy {
        Some(proxy) => format!(
            "the environment sets {names}, which the gateway ignores: it uses upstream.proxy ({proxy})"
        ),
        None => format!(
            "the environment sets {names}, which the gateway ignores: it calls the upstream directly; set upstream.proxy if \
             a proxy is needed"
        ),
    }]
}

fn is_exposed(url: &Url) -> bool {
    url.scheme() == "http" && !is_loopback(url)
}

/// `identity.token_url` and `callers.jwks_url` need no warning: they reject such URLs.
fn unencrypted_upstream(config: &Config) -> Vec<String> {
    let url = config.upstream.url.iter().filter(|url| is_exposed(url));
    let warning = |url| {
        format!(
            "upstream.url is {url}: tokens and personal data cross the network unencrypted; use https://, with \
             upstream.ca_file for a private CA"
        )
    };
    url.map(warning).collect()
}

fn unencrypted_origins(config: &Config) -> Vec<String> {
    let origins = config.http.origins.iter();
    let exposed = origins.filter(|origin| Url::parse(origin).is_ok_and(|url| is_exposed(&url)));
    let warning = |origin| {
        format!(
            "http.origins allows {origin}: anyone on the network path can change its pages and call the API through \
             them; serve them over https:// and allow that origin"
        )
    };
    exposed.map(warning).collect()
}

fn unencrypted_redis(config: &Config) -> Vec<String> {
    let Some(url) = config.shared.url.as_ref().filter(|url| url.is_exposed()) else { return Vec::new() };
    let risk = match config.shared.password_file {
        Some(_) => "the password of shared.password_file crosses the network in plain text",
        None => "anyone on the network path can delete it or hold it up",
    };
    vec![format!(
        "shared.url is {url}: what replicas share is encrypted (shared.key_file), but {risk}; use rediss://, with \
         shared.ca_file for a private CA"
    )]
}

/// A secret may be readable by its group: orchestrators mount secrets this way for processes of other users.
#[cfg(unix)]
fn exposed_files(config: &Config) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt as _;

    const OTHERS_READ: u32 = 0o004;
    const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

    let mut warnings = Vec::new();
    for NamedFile { name, path, is_secret } in &config.files {
        let Ok(file) = std::fs::metadata(path) else { continue };
        let (mode, path) = (file.permissions().mode() & 0o777, path.display());
        // Pipes and devices have no contents to protect.
        if !file.is_file() {
            continue;
        }
        if *is_secret && mode & OTHERS_READ != 0 {
            warnings.push(format!(
                "{name} names {path}, which contains a secret and is readable by every user of this machine (mode \
                 {mode:04o}); restrict it: chmod o-rwx"
            ));
        }
        if mode & GROUP_OR_OTHERS_WRITE != 0 {
            warnings.push(format!(
                "{name} names {path}, which users other than its owner can modify (mode {mode:04o}); \
                 restrict it: chmod go-w"
            ));
        }
    }
    warnings
}

#[cfg(not(unix))]
fn exposed_files(_: &Config) -> Vec<String> {
    Vec::new()
}
