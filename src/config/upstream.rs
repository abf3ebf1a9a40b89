//! `upstream.*`: the appointments REST API.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use url::Url;

use super::secret::Secret;

/// `upstream.*`: URL, timeouts, retries and concurrency of upstream calls.
#[derive(Debug, Clone, Default)]
pub struct UpstreamConfig {
    /// `upstream.url`; `None` means the sandbox.
    pub url: Option<Url>,
    /// `upstream.ca_file`
    pub ca_file: Option<PathBuf>,
    /// `upstream.client_cert_file`
    pub client_cert_file: Option<PathBuf>,
    /// `upstream.client_key_file`
    pub client_key_file: Option<PathBuf>,
    /// `upstream.proxy`
    pub proxy: Option<Url>,
    /// The contents of `upstream.proxy_auth_file`: `user:password`
    pub proxy_auth_file: Option<Secret>,
    /// `upstream.forward_request_id`
    pub forward_request_id: bool,
    /// `upstream.connect_timeout`
    pub connect_timeout: Duration,
    /// `upstream.timeout`
    pub timeout: Duration,
    /// `upstream.idle_timeout`
    pub idle_timeout: Duration,
    /// `upstream.max_connection_age`
    pub max_connection_age: Duration,
    /// `upstream.max_response`
    pub max_response: ByteSize,
    /// `upstream.max_concurrent`
    pub max_concurrent: usize,
    /// `upstream.max_waiting`
    pub max_waiting: usize,
    /// `upstream.caller_share`
    pub caller_share: usize,
    /// `upstream.retries`
    pub retries: u32,
    /// `upstream.retry_percent`
    pub retry_percent: u32,
    /// `upstream.max_paused`
    pub max_paused: usize,
    /// `upstream.hedge_percent`
    pub hedge_percent: u32,
    /// `upstream.breaker_*`
    pub breaker: BreakerConfig,
}

/// `upstream.breaker_*`: the circuit breakers.
#[derive(Debug, Clone, Copy, Default)]
pub struct BreakerConfig {
    /// `upstream.breaker_percent`
    pub percent: u64,
    /// `upstream.breaker_calls`
    pub calls: u64,
    /// `upstream.breaker_window`
    pub window: Duration,
    /// `upstream.breaker_pause`
    pub pause: Duration,
}

/// The files of a client certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientCertificate<'a> {
    /// `upstream.client_cert_file`
    pub(crate) certificate: &'a Path,
    /// `upstream.client_key_file`
    pub(crate) key: &'a Path,
}

impl UpstreamConfig {
    /// The files of the client certificate, if it is configured.
    pub(crate) fn client_certificate(&self) -> Option<ClientCertificate<'_>> {
        let (certificate, key) = (self.client_cert_file.as_deref()?, self.client_key_file.as_deref()?);
        Some(ClientCertificate { certificate, key })
    }
}

/// Contradictions between the keys of the section, each as a key and a message.
pub(crate) fn contradictions(upstream: &UpstreamConfig) -> Vec<(&'static str, String)> {
    let has_certificate = upstream.client_cert_file.is_some();
    let is_https = upstream.url.as_ref().is_some_and(|url| url.scheme() == "https");
    let problems = [
        (
            has_certificate && upstream.client_key_file.is_none(),
            "upstream.client_cert_file",
            "is set without upstream.client_key_file; set both",
        ),
        (
            upstream.client_key_file.is_some() && !has_certificate,
            "upstream.client_key_file",
            "is set without upstream.client_cert_file; set both",
        ),
        (
            has_certificate && !is_https,
            "upstream.client_cert_file",
            "is set, but only an https:// upstream can ask for it; set upstream.url to an https:// URL, or remove it",
        ),
        (
            has_certificate && upstream.proxy.as_ref().is_some_and(|url| url.scheme() == "https"),
            "upstream.client_cert_file",
            "is set, and an https:// proxy could request it as well; use an http:// proxy, whose tunnel encrypts the \
             calls to the upstream too, or remove one of them",
        ),
        (
            upstream.proxy.is_some() && upstream.url.is_none(),
            "upstream.proxy",
            "is set without upstream.url, and the built-in sandbox needs no proxy; set upstream.url, or remove it",
        ),
        (
            upstream.proxy_auth_file.is_some() && upstream.proxy.is_none(),
            "upstream.proxy_auth_file",
            "is set without upstream.proxy; set both, or remove it",
        ),
    ];
    let found = problems.into_iter().filter(|(is_problem, ..)| *is_problem);
    found.map(|(_, key, message)| (key, message.to_owned())).collect()
}
