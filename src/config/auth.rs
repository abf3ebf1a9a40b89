//! `identity.*` and `callers.*`: the token sent to the upstream, and the authentication of callers.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use url::Url;

use super::{
    sandbox::{CLIENT_ID, CLIENT_SECRET},
    secret::Secret,
};
use crate::credentials::{api_keys::ApiKeys, jwks::KeySet};

/// `identity.*`: the token sent to the upstream.
#[derive(Debug, Clone, Default)]
pub struct IdentityConfig {
    /// `identity.mode`
    pub mode: IdentityMode,
    /// `identity.token_url`
    pub token_url: Option<Url>,
    /// `identity.client_id`
    pub client_id: Option<String>,
    /// `identity.client_secret`
    pub client_secret: Option<Secret>,
    /// The contents of `identity.client_secret_file`
    pub client_secret_file: Option<Secret>,
    /// `identity.auth_method`
    pub auth_method: AuthMethod,
    /// `identity.scope`
    pub scope: Option<String>,
    /// `identity.parameters`
    pub parameters: Vec<(String, String)>,
    /// `identity.retry_interval`
    pub retry_interval: Duration,
    /// `identity.refresh_interval`
    pub refresh_interval: Duration,
}

/// `callers.*`: authentication of callers in service mode.
#[derive(Debug, Clone, Default)]
pub struct CallersConfig {
    /// `callers.jwks_url`
    pub jwks_url: Option<Url>,
    /// The contents of `callers.jwks_file`
    pub jwks_file: Option<KeySet>,
    /// `callers.jwks_max_age`
    pub jwks_max_age: Duration,
    /// `callers.jwks_refresh_interval`
    pub jwks_refresh_interval: Duration,
    /// `callers.issuer`
    pub issuers: Vec<String>,
    /// `callers.audience`
    pub audience: Option<String>,
    /// `callers.algorithms`
    pub algorithms: Vec<Algorithm>,
    /// `callers.leeway`
    pub leeway: Duration,
    /// `callers.max_verified`
    pub max_verified: usize,
    /// `callers.verifications_per_second`; 0 means no limit.
    pub verifications_per_second: u32,
    /// The contents of `callers.api_keys_file`
    pub api_keys_file: Option<ApiKeys>,
    /// `callers.share_cache`
    pub share_cache: bool,
}

/// The token sent to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdentityMode {
    /// The caller's own token.
    #[default]
    PassThrough,
    /// The gateway's own token.
    Service,
}

/// The place of the client secret in a token request (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMethod {
    /// The `Authorization` header.
    #[default]
    Basic,
    /// The form in the body.
    Post,
}

/// OAuth 2.0 client credentials of the gateway (RFC 6749, section 4.4).
#[derive(Debug, Clone)]
pub struct ClientCredentials {
    /// The token endpoint.
    pub token_url: Url,
    /// The client id.
    pub client_id: String,
    /// The client secret.
    pub client_secret: Secret,
    /// The place of the client secret in the request.
    pub auth_method: AuthMethod,
    /// The scopes to request; without them, the client's default scopes.
    pub scope: Option<String>,
    /// Further parameters of the request.
    pub parameters: Vec<(String, String)>,
    /// The initial backoff after a failed request.
    pub retry_interval: Duration,
    /// The minimum interval between refreshes that a 401 from the upstream triggers.
    pub refresh_interval: Duration,
}

impl IdentityConfig {
    /// Returns the gateway's credentials for `upstream` in service mode, and `None` in pass-through mode.
    pub fn client_credentials(&self, upstream: &Url, is_sandbox: bool) -> Option<ClientCredentials> {
        if self.mode == IdentityMode::PassThrough {
            return None;
        }
        let (token_url, client_id, client_secret) = if is_sandbox {
            (upstream.join("oauth2/token").ok()?, CLIENT_ID.to_owned(), Secret::new(CLIENT_SECRET))
        } else {
            // `contradictions` has reported missing ones.
            let secret = self.client_secret.clone().or(self.client_secret_file.clone());
            (self.token_url.clone()?, self.client_id.clone()?, secret?)
        };
        Some(ClientCredentials {
            token_url,
            client_id,
            client_secret,
            auth_method: self.auth_method,
            scope: self.scope.clone(),
            parameters: self.parameters.clone(),
            retry_interval: self.retry_interval,
            refresh_interval: self.refresh_interval,
        })
    }
}

/// Contradictions between the keys of the two sections, each as a key and a message.
pub(crate) fn contradictions(
    identity: &IdentityConfig,
    callers: &CallersConfig,
    is_sandbox: bool,
) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let mut report = |key, message: &str| problems.push((key, message.to_owned()));
    let client_keys = [
        ("identity.token_url", identity.token_url.is_some()),
        ("identity.client_id", identity.client_id.is_some()),
        ("identity.client_secret", identity.client_secret.is_some()),
        ("identity.client_secret_file", identity.client_secret_file.is_some()),
        ("identity.auth_method", identity.auth_method != AuthMethod::default()),
    ];
    let token_keys = [
        ("callers.jwks_url", callers.jwks_url.is_some()),
        ("callers.jwks_file", callers.jwks_file.is_some()),
        ("callers.issuer", !callers.issuers.is_empty()),
        ("callers.audience", callers.audience.is_some()),
    ];
    let other_keys = [
        ("identity.scope", identity.scope.is_some()),
        ("identity.parameters", !identity.parameters.is_empty()),
        ("callers.api_keys_file", callers.api_keys_file.is_some()),
        ("callers.share_cache", callers.share_cache),
    ];
    let set = |keys: &[(&'static str, bool)]| -> Vec<_> {
        keys.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect()
    };

    if identity.mode == IdentityMode::PassThrough {
        let unused = set(&[client_keys.as_slice(), &token_keys, &other_keys].concat());
        if !unused.is_empty() {
            let unused = unused.join(", ");
            report(
                "identity.mode",
                &format!(
                    "is pass-through, which sends the caller's own token to the upstream; set it to service, or remove: \
                     {unused}"
                ),
            );
        }
        return problems;
    }

    let client = set(&client_keys);
    if is_sandbox && !client.is_empty() {
        let client = client.join(", ");
        report(
            "upstream.url",
            &format!(
                "is not set, and the sandbox has its own client credentials; set it, or remove: {client}"
            ),
        );
    }
    if !is_sandbox {
        if identity.token_url.is_none() {
            report(
                "identity.token_url",
                "is not set; identity.mode = service needs the URL of the token endpoint",
            );
        }
        if identity.client_id.is_none() {
            report("identity.client_id", "is not set; identity.mode = service needs the gateway's client id");
        }
        match (&identity.client_secret, &identity.client_secret_file) {
            (None, None) => report(
                "identity.client_secret",
                "is not set; name a file that contains it with identity.client_secret_file, or set \
                 GATEWAY_IDENTITY_CLIENT_SECRET",
            ),
            (Some(_), Some(_)) => {
                report(
                    "identity.client_secret",
                    "is set, and so is identity.client_secret_file; remove one of them",
                );
            }
            _ => {}
        }
    }
    let has_keys = callers.jwks_url.is_some() || callers.jwks_file.is_some();
    if !has_keys && callers.api_keys_file.is_none() {
        report(
            "identity.mode",
            "is service, which requires authentication of callers; set callers.jwks_url or callers.jwks_file for JWTs, \
             or callers.api_keys_file for API keys",
        );
    }
    if callers.jwks_url.is_some() && callers.jwks_file.is_some() {
        report("callers.jwks_url", "is set, and so is callers.jwks_file; remove one of them");
    }
    for (name, is_set) in &token_keys[2..] {
        if has_keys && !is_set {
            report(name, "is not set; without it, tokens issued for other services would be accepted");
        }
        if !has_keys && *is_set {
            report(
                name,
                "is set without callers.jwks_url or callers.jwks_file; set one of them, or remove it",
            );
        }
    }
    problems
}
