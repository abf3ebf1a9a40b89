//! Settings that can be served under, although an operator should know of them.

use url::Url;

use super::named_file::NamedFile;
use super::{Config, profile::Profile, value::is_loopback};

type Check = fn(&Config) -> Vec<String>;

/// Checks for every profile.
const ALWAYS: &[Check] = &[slow_attempts, short_answers];

/// Checks for production, where others share the network and the machine.
const IN_PRODUCTION: &[Check] = &[plain_upstream, plain_origins, exposed_files];

impl Config {
    /// Each setting that is hardly meant: its key, the risk, and the fix. No secret is ever repeated.
    pub fn warnings(&self) -> Vec<String> {
        let of_profile = if self.profile == Profile::Production { IN_PRODUCTION } else { &[] };
        ALWAYS.iter().chain(of_profile).flat_map(|check| check(self)).collect()
    }
}

fn slow_attempts(config: &Config) -> Vec<String> {
    let warning = "upstream.timeout is not below http.deadline: a call that hangs ends with its request, so it is not \
                   repeated and opens no breaker";
    let is_slow = config.upstream.timeout >= config.http.deadline;
    is_slow.then(|| warning.to_owned()).into_iter().collect()
}

fn short_answers(config: &Config) -> Vec<String> {
    let warning = "limits.answer is below upstream.max_response: the upstream may send an appointment that is too large to \
                   be served; raise limits.answer";
    (config.limits.answer < config.upstream.max_response).then(|| warning.to_owned()).into_iter().collect()
}

fn is_exposed(url: &Url) -> bool {
    url.scheme() == "http" && !is_loopback(url)
}

/// `identity.token_url` and `callers.jwks_url` need no warning: such URLs are refused there.
fn plain_upstream(config: &Config) -> Vec<String> {
    let url = config.upstream.url.iter().filter(|url| is_exposed(url));
    let warning = |url| {
        format!(
            "upstream.url is {url}: tokens and personal data cross the network unencrypted; use https://, with \
             upstream.ca_file for a private authority"
        )
    };
    url.map(warning).collect()
}

fn plain_origins(config: &Config) -> Vec<String> {
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

/// A secret may be readable by its group, as secrets that an orchestrator mounts for a process of another user are.
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
                "{name} names {path}, which holds a secret and is readable by every user of this machine (mode \
                 {mode:04o}); restrict it: chmod o-rwx"
            ));
        }
        if mode & GROUP_OR_OTHERS_WRITE != 0 {
            warnings.push(format!(
                "{name} names {path}, which users other than its owner can replace the contents of (mode {mode:04o}); \
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
