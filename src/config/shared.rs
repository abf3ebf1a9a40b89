//! `shared.*`: the Redis that the replicas of a fleet share.

use std::{fmt, net::Ipv6Addr, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use url::Host;

use super::{
    secret::Secret,
    value::{file, text},
};
use crate::credentials::key_ring::KeyRing;

/// The port of a Redis.
const REDIS_PORT: u16 = 6379;

/// The port of a sentinel.
const SENTINEL_PORT: u16 = 26379;

const MAX_PREFIX: usize = 32;

/// The schemes of `shared.url`: whether connections use TLS, and whether the hosts are sentinels.
const SCHEMES: [(&str, bool, bool); 4] = [
    ("redis", false, false),
    ("rediss", true, false),
    ("redis-sentinel", false, true),
    ("rediss-sentinel", true, true),
];

/// `shared.*`: address, credentials and keys of the shared Redis, and the behaviour while it fails.
#[derive(Debug, Clone, Default)]
pub struct SharedConfig {
    /// `shared.url`; `None` means that the gateway shares nothing.
    pub url: Option<SharedUrl>,
    /// `shared.password_file`
    pub password_file: Option<Secret>,
    /// `shared.ca_file`
    pub ca_file: Option<PathBuf>,
    /// `shared.key_file`
    pub key_file: Option<KeyRing>,
    /// `shared.prefix`
    pub prefix: String,
    /// `shared.timeout`
    pub timeout: Duration,
    /// `shared.lease`
    pub lease: Duration,
    /// `shared.publish_timeout`
    pub publish_timeout: Duration,
    /// `shared.cache`
    pub cache: bool,
    /// `shared.on_outage`
    pub on_outage: OnOutage,
    /// `shared.outage_ttl`
    pub outage_ttl: Duration,
}

/// The address of a Redis, or of the sentinels that know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedUrl {
    /// Host and port of the Redis, or of each sentinel.
    pub nodes: Vec<(String, u16)>,
    /// The name of the master, if the nodes are sentinels.
    pub master: Option<String>,
    /// Whether connections use TLS.
    pub tls: bool,
    /// The name of an ACL user.
    pub user: Option<String>,
    /// The number of the database.
    pub database: i64,
}

/// How long copies are served while the shared Redis fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOutage {
    /// For `cache.ttl`, as without a shared Redis.
    #[default]
    Serve,
    /// For `shared.outage_ttl` at most.
    Shorten,
}

impl SharedConfig {
    /// Contradictions between the keys of the section, each as a key and a message.
    pub(super) fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut report = |key, message: &str| problems.push((key, message.to_owned()));
        let Some(url) = &self.url else {
            let unused: Vec<_> = [
                ("shared.password_file", self.password_file.is_some()),
                ("shared.ca_file", self.ca_file.is_some()),
                ("shared.key_file", self.key_file.is_some()),
                ("shared.cache", self.cache),
                ("shared.on_outage", self.on_outage != OnOutage::default()),
            ]
            .into_iter()
            .filter_map(|(name, is_set)| is_set.then_some(name))
            .collect();
            if !unused.is_empty() {
                let unused = unused.join(", ");
                report(
                    "shared.url",
                    &format!("is not set; set it to the URL of a Redis, or remove: {unused}"),
                );
            }
            return problems;
        };
        if self.key_file.is_none() {
            report(
                "shared.key_file",
                "is not set, and replicas encrypt with its keys all that they share in the Redis of shared.url; create a \
                 key with appointments-gateway key > shared.keys, and give that file to all replicas",
            );
        }
        if url.user.is_some() && self.password_file.is_none() {
            report(
                "shared.password_file",
                "is not set, and shared.url names a user; name a file with the user's password, or remove the user",
            );
        }
        if self.ca_file.is_some() && !url.tls {
            report(
                "shared.ca_file",
                "is set, but shared.url uses no TLS; write rediss:// or rediss-sentinel:// into shared.url, or remove \
                 shared.ca_file",
            );
        }
        for (name, limit) in
            [("shared.timeout", self.timeout), ("shared.publish_timeout", self.publish_timeout)]
        {
            if limit >= self.lease {
                report(name, "is not shorter than shared.lease; shorten it, or lengthen shared.lease");
            }
        }
        problems
    }
}

impl SharedUrl {
    /// Parses the URL of a Redis, or of sentinels with the name of their master. None if it is empty.
    pub(super) fn parse(value: &str) -> Result<Option<Self>, String> {
        let Some(value) = text(value)? else { return Ok(None) };
        let known = |scheme: &str| SCHEMES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(scheme));
        let scheme = value.split_once("://").and_then(|(scheme, rest)| Some((known(scheme)?, rest)));
        let (&(_, tls, is_sentinel), rest) = scheme.ok_or(
            "does not begin with redis://, rediss:// (TLS), redis-sentinel:// or rediss-sentinel://; write \
             redis://HOST[:PORT], or redis-sentinel://HOST[:PORT],HOST[:PORT]/MASTER for the sentinels of a Redis",
        )?;
        // From the right, so that no part of a password is taken for a host.
        let (user, rest) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((user, rest)) => (Some(parse_user(user)?), rest),
        };
        if rest.contains(['?', '#']) {
            return Err("contains a query (?) or fragment (#); remove it".to_owned());
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let default_port = if is_sentinel { SENTINEL_PORT } else { REDIS_PORT };
        let nodes = hosts
            .split(',')
            .map(|host| parse_node(host.trim(), default_port))
            .collect::<Result<Vec<_>, _>>()?;
        if !is_sentinel && nodes.len() > 1 {
            return Err(
                "names several hosts; name one Redis, or its sentinels with redis-sentinel://".to_owned()
            );
        }
        let (master, database) = match (is_sentinel, path.split_once('/')) {
            (false, None) => (None, path),
            (false, Some(_)) => {
                return Err(
                    "contains a path of several parts; write redis://HOST[:PORT][/DATABASE]".to_owned()
                );
            }
            (true, None) => (Some(path), ""),
            (true, Some((master, database))) => (Some(master), database),
        };
        let master = master.map(parse_master).transpose()?;
        Ok(Some(Self { nodes, master, tls, user, database: parse_database(database)? }))
    }

    /// Whether connections leave this machine unencrypted, as far as the URL tells.
    pub(super) fn is_exposed(&self) -> bool {
        let is_local = |(host, _): &(String, u16)| match Host::parse(host) {
            Ok(Host::Domain(name)) => name == "localhost",
            Ok(Host::Ipv4(address)) => address.is_loopback(),
            Ok(Host::Ipv6(address)) => address.is_loopback(),
            // An address without its brackets.
            Err(_) => host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        };
        !self.tls && !self.nodes.iter().all(is_local)
    }
}

impl fmt::Display for SharedUrl {
    /// Writes the URL without its user.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_own = |(_, tls, is_sentinel): &&(&str, bool, bool)| {
            (*tls, *is_sentinel) == (self.tls, self.master.is_some())
        };
        let scheme = SCHEMES.iter().find(is_own).map_or("redis", |(name, ..)| name);
        write!(f, "{scheme}://")?;
        for (index, (host, port)) in self.nodes.iter().enumerate() {
            let separator = if index > 0 { "," } else { "" };
            write!(f, "{separator}{}", address(host, *port))?;
        }
        if let Some(master) = &self.master {
            write!(f, "/{master}")?;
        }
        if self.database != 0 {
            write!(f, "/{}", self.database)?;
        }
        Ok(())
    }
}

/// `HOST:PORT`, with brackets around an IPv6 address.
pub(crate) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn parse_user(user: &str) -> Result<String, String> {
    if user.contains(':') {
        return Err(
            "contains a password; remove it, and name a file with the password in shared.password_file"
                .to_owned(),
        );
    }
    let decoded = percent_decode_str(user).decode_utf8().ok();
    let is_name = |name: &str| {
        let is_bare = !user.contains(['/', '?', '#']);
        is_bare
            && !name.is_empty()
            && !name.contains(|letter: char| letter.is_whitespace() || letter.is_control())
    };
    decoded.filter(|name| is_name(name)).map(|name| name.into_owned()).ok_or_else(|| {
        "contains an @ without a valid user name before it; write redis://USER@HOST, with other characters than letters \
         and digits percent-encoded"
            .to_owned()
    })
}

/// Parses `HOST[:PORT]`. An IPv6 address, in brackets, is returned without them.
fn parse_node(node: &str, default_port: u16) -> Result<(String, u16), String> {
    let fault = || {
        "contains an invalid host or port; write HOST or HOST:PORT, with an IPv6 address in brackets: [::1]:6379"
            .to_owned()
    };
    let (host, port) = match node.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']').ok_or_else(fault)?;
            let address: Ipv6Addr = address.parse().map_err(|_| fault())?;
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(fault)?) };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = node.split_once(':').map_or((node, None), |(host, port)| (host, Some(port)));
            (Host::parse(host).map_err(|_| fault())?.to_string(), port)
        }
    };
    let port = port.map_or(Some(default_port), parse_number).filter(|port| *port > 0);
    Ok((host, port.ok_or_else(fault)?))
}

fn parse_master(name: &str) -> Result<String, String> {
    // The characters that Sentinel accepts.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_plain) {
        return Ok(name.to_owned());
    }
    Err("does not name the master of the sentinels, in letters, digits or ._-; write \
         redis-sentinel://HOST[:PORT],HOST[:PORT]/MASTER"
        .to_owned())
}

/// Without a number, the database is 0.
fn parse_database(database: &str) -> Result<i64, String> {
    if database.is_empty() {
        return Ok(0);
    }
    parse_number::<u16>(database).map(i64::from).ok_or_else(|| {
        "ends with a database that is not a number; write redis://HOST[:PORT]/0, or redis-sentinel://HOST[:PORT]/MASTER/0"
            .to_owned()
    })
}

/// A number of digits alone.
fn parse_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The prefix of all keys and channels.
pub(super) fn prefix(value: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if (1..=MAX_PREFIX).contains(&value.len()) && value.bytes().all(is_plain) {
        return Ok(value.to_owned());
    }
    Err(format!("is not a word of 1 to {MAX_PREFIX} letters, digits or _.-; write one, such as gateway"))
}

/// A PEM file of CA certificates.
pub(super) fn ca_file(path: &str) -> Result<Option<PathBuf>, String> {
    let Some(path) = file(path)? else { return Ok(None) };
    let certificates = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(Some(path)),
        _ => Err("contains no PEM certificate; name a PEM file of CA certificates".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A planted password.
    const SECRET: &str = "hunter2";

    fn url(text: &str) -> SharedUrl {
        SharedUrl::parse(text).unwrap_or_else(|fault| panic!("{text} {fault}")).unwrap()
    }

    fn nodes(nodes: &[(&str, u16)]) -> Vec<(String, u16)> {
        nodes.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect()
    }

    #[test]
    fn urls_name_one_redis_or_its_sentinels() {
        for (text, hosts, rest, printed) in [
            ("redis://cache", &[("cache", 6379)][..], (None, false, None, 0), "redis://cache:6379"),
            ("redis://cache/", &[("cache", 6379)], (None, false, None, 0), "redis://cache:6379"),
            (
                " REDISS://Cache.Example:1/3 ",
                &[("cache.example", 1)],
                (None, true, None, 3),
                "rediss://cache.example:1/3",
            ),
            (
                "redis://gate@10.0.0.1/0",
                &[("10.0.0.1", 6379)],
                (None, false, Some("gate"), 0),
                "redis://10.0.0.1:6379",
            ),
            (
                "redis://a%40b@[2001:DB8::1]",
                &[("2001:db8::1", 6379)],
                (None, false, Some("a@b"), 0),
                "redis://[2001:db8::1]:6379",
            ),
            ("redis://[::1]:7/2", &[("::1", 7)], (None, false, None, 2), "redis://[::1]:7/2"),
            (
                "redis-sentinel://one,two:5, [::1]/main",
                &[("one", 26379), ("two", 5), ("::1", 26379)],
                (Some("main"), false, None, 0),
                "redis-sentinel://one:26379,two:5,[::1]:26379/main",
            ),
            (
                "rediss-sentinel://gate@one:1/my_main.2-x/9",
                &[("one", 1)],
                (Some("my_main.2-x"), true, Some("gate"), 9),
                "rediss-sentinel://one:1/my_main.2-x/9",
            ),
        ] {
            let SharedUrl { nodes: found, master, tls, user, database } = url(text);
            assert_eq!(found, nodes(hosts), "{text}");
            assert_eq!((master.as_deref(), tls, user.as_deref(), database), rest, "{text}");
            assert_eq!(url(text).to_string(), printed);
        }
        assert_eq!(SharedUrl::parse(" "), Ok(None));
    }

    #[test]
    fn malformed_urls_are_refused_with_a_remedy() {
        for (texts, told) in [
            (
                &[
                    "cache:6379",
                    "http://cache",
                    "unix:///run/redis.sock",
                    "redis:cache",
                    "redis+sentinel://a/b",
                    "://",
                    "redis",
                ][..],
                "redis-sentinel://HOST[:PORT],HOST[:PORT]/MASTER",
            ),
            (
                &[
                    "redis://:hunter2@cache",
                    "redis://gate:hunter2@cache:1/2",
                    "redis://:hun/ter2@cache",
                    "redis://gate:hunter2@hunter2@cache",
                    "redis://:hun?ter#2@cache/0",
                    "rediss-sentinel://:hunter2@one,two/main",
                    "redis://a:@b",
                ],
                "shared.password_file",
            ),
            (
                &[
                    "redis://@cache",
                    "redis://a b@cache",
                    "redis://%ff@cache",
                    "redis://a/b@cache",
                    "redis://%00@a",
                ],
                "redis://USER@HOST",
            ),
            (&["redis://cache?db=1", "redis://cache/0#a", "redis://cache/?password=hunter2"], "remove it"),
            (
                &[
                    "redis://",
                    "redis:///0",
                    "redis://:6379",
                    "redis://cache:",
                    "redis://cache:0",
                    "redis://cache:65536",
                    "redis://cache:+1",
                    "redis://cache:6379:1",
                    "redis://::1",
                    "redis://[::1",
                    "redis://[::1]x",
                    "redis://[::1%25eth0]",
                    "redis://[cache]",
                    "redis://a b",
                    "redis-sentinel://one,/main",
                    "redis-sentinel://,one/main",
                ],
                "HOST:PORT",
            ),
            (&["redis://one,two"], "names several hosts"),
            (&["redis://cache/0/1", "redis://cache/0/"], "path of several parts"),
            (
                &[
                    "redis://cache/x",
                    "redis://cache/-1",
                    "redis://cache/99999",
                    "redis-sentinel://one/main/x",
                ],
                "a number",
            ),
            (
                &[
                    "redis-sentinel://one",
                    "redis-sentinel://one/",
                    "redis-sentinel://one//0",
                    "redis-sentinel://one/m%20n",
                ],
                "/MASTER",
            ),
            (&["redis://a\nb"], "single line"),
        ] {
            for text in texts {
                let fault = SharedUrl::parse(text).expect_err(text);
                assert!(fault.contains(told) && !fault.contains(SECRET), "{text} {fault}");
            }
        }
    }

    #[test]
    fn only_plain_urls_of_other_machines_are_exposed() {
        for (text, is_exposed) in [
            ("redis://cache", true),
            ("redis://127.0.0.1.example", true),
            ("redis://10.0.0.1", true),
            ("redis://[::2]", true),
            ("redis-sentinel://localhost,cache/main", true),
            ("rediss://cache", false),
            ("redis://localhost", false),
            ("redis://127.0.0.2", false),
            ("redis://[::1]", false),
            ("redis-sentinel://localhost,[::1]:1/main", false),
        ] {
            assert_eq!(url(text).is_exposed(), is_exposed, "{text}");
        }
    }

    #[test]
    fn contradictions_name_the_key_and_the_remedy() {
        type Change = fn(&mut SharedConfig);
        let valid = || SharedConfig {
            url: Some(url("redis://cache")),
            key_file: Some(KeyRing::random()),
            lease: Duration::from_secs(2),
            timeout: Duration::from_millis(20),
            publish_timeout: Duration::from_millis(50),
            ..SharedConfig::default()
        };
        assert_eq!(valid().contradictions(), []);
        assert_eq!(SharedConfig::default().contradictions(), []);
        let without_url = |config: &mut SharedConfig| (config.url, config.key_file) = (None, None);
        let cases: [(Change, &str, &str); 11] = [
            (|config| config.url = None, "shared.url", "remove: shared.key_file"),
            (|config| config.key_file = None, "shared.key_file", "appointments-gateway key"),
            (|config| config.url = Some(url("redis://gate@cache")), "shared.password_file", "name a file"),
            (|config| config.ca_file = Some("ca.pem".into()), "shared.ca_file", "rediss://"),
            (|config| config.timeout = config.lease, "shared.timeout", "shorten it"),
            (|config| config.publish_timeout = 2 * config.lease, "shared.publish_timeout", "shorten it"),
            (
                |config| config.password_file = Some(Secret::new(SECRET)),
                "shared.url",
                "remove: shared.password_file",
            ),
            (|config| config.ca_file = Some("ca.pem".into()), "shared.url", "remove: shared.ca_file"),
            (|config| config.cache = true, "shared.url", "remove: shared.cache"),
            (|config| config.on_outage = OnOutage::Shorten, "shared.url", "remove: shared.on_outage"),
            (|config| config.key_file = Some(KeyRing::random()), "shared.url", "remove: shared.key_file"),
        ];
        for (index, (change, key, told)) in cases.into_iter().enumerate() {
            let mut config = valid();
            if index >= 6 {
                without_url(&mut config);
            }
            change(&mut config);
            let [(found, message)] = &config.contradictions()[..] else {
                panic!("{index}: {:?}", config.contradictions())
            };
            assert!(
                *found == key && message.contains(told) && !message.contains(SECRET),
                "{index}: {found} {message}"
            );
        }
        let mut secure = valid();
        secure.url = Some(url("rediss://gate@cache"));
        (secure.ca_file, secure.password_file) = (Some("ca.pem".into()), Some(Secret::new(SECRET)));
        assert_eq!(secure.contradictions(), []);
    }

    #[test]
    fn a_prefix_is_a_short_plain_word() {
        assert_eq!(prefix("gateway_2.x-y"), Ok("gateway_2.x-y".to_owned()));
        for bad in ["", "a:b", "a b", "a*", "é", "[a]", &"x".repeat(33)] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_url_is_parsed_without_a_panic(text: String, rest in "(redis|rediss-sentinel)://[a@:/,\\[\\]0-9?#%.]{0,30}") {
            for text in [&text, &format!("redis://{text}"), &rest] {
                if let Ok(Some(url)) = SharedUrl::parse(text) {
                    let printed = SharedUrl::parse(&url.to_string()).unwrap().unwrap();
                    prop_assert_eq!(printed, SharedUrl { user: None, ..url });
                }
            }
        }

        #[test]
        fn a_password_is_in_no_message(user in "[a-z]{0,8}", password in "[!-~]{8,20}", rest in "[a-z0-9/:,?]{1,20}") {
            for scheme in ["redis", "rediss-sentinel"] {
                let fault = SharedUrl::parse(&format!("{scheme}://{user}:{password}@{rest}")).unwrap_err();
                prop_assert!(fault.contains("shared.password_file") && !fault.contains(&password));
            }
        }
    }
}
