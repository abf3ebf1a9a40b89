//! `identity.*` and `callers.*`: with whose token the upstream is asked, and how callers show who they are.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use url::Url;

use super::secret::Secret;
use crate::{
    credentials::{api_keys::ApiKeys, jwks::KeySet},
    sandbox,
};

/// `identity.*`: with whose token the upstream is asked.
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
    /// What is in `identity.client_secret_file`
    pub client_secret_file: Option<Secret>,
    /// `identity.scope`
    pub scope: Option<String>,
    /// `identity.retry_interval`
    pub retry_interval: Duration,
    /// `identity.refresh_interval`
    pub refresh_interval: Duration,
}

/// `callers.*`: how callers show who they are where the upstream is asked with the gateway's own token.
#[derive(Debug, Clone, Default)]
pub struct CallersConfig {
    /// `callers.jwks_url`
    pub jwks_url: Option<Url>,
    /// What is in `callers.jwks_file`
    pub jwks_file: Option<KeySet>,
    /// `callers.jwks_max_age`
    pub jwks_max_age: Duration,
    /// `callers.jwks_refresh_interval`
    pub jwks_refresh_interval: Duration,
    /// `callers.issuer`
    pub issuer: Option<String>,
    /// `callers.audience`
    pub audience: Option<String>,
    /// `callers.algorithms`
    pub algorithms: Vec<Algorithm>,
    /// `callers.leeway`
    pub leeway: Duration,
    /// `callers.max_verified`
    pub max_verified: usize,
    /// `callers.verifications_per_second`; 0 is no limit.
    pub verifications_per_second: u32,
    /// What is in `callers.api_keys_file`
    pub api_keys_file: Option<ApiKeys>,
    /// `callers.share_cache`
    pub share_cache: bool,
}

/// With whose token the upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdentityMode {
    /// Each caller's own.
    #[default]
    PassThrough,
    /// The gateway's own.
    Service,
}

/// What the gateway gets its own tokens with: OAuth 2.0 client credentials (RFC 6749, section 4.4).
#[derive(Debug, Clone)]
pub struct ClientCredentials {
    /// The token endpoint.
    pub token_url: Url,
    /// Who the gateway is.
    pub client_id: String,
    /// What proves it.
    pub client_secret: Secret,
    /// What is asked for, where anything is.
    pub scope: Option<String>,
    /// How long to wait after a first failure.
    pub retry_interval: Duration,
    /// The shortest time between two tokens that are fetched because the upstream refused one.
    pub refresh_interval: Duration,
}

impl IdentityConfig {
    /// With what the gateway gets its own tokens for `upstream`; none where it needs none.
    pub fn client_credentials(&self, upstream: &Url, is_sandbox: bool) -> Option<ClientCredentials> {
        if self.mode == IdentityMode::PassThrough {
            return None;
        }
        let (token_url, client_id, client_secret) = if is_sandbox {
            (
                upstream.join("oauth2/token").ok()?,
                sandbox::access::CLIENT_ID.to_owned(),
                Secret::new(sandbox::access::CLIENT_SECRET),
            )
        } else {
            // `faults` has seen that they are there.
            let secret = self.client_secret.clone().or(self.client_secret_file.clone());
            (self.token_url.clone()?, self.client_id.clone()?, secret?)
        };
        Some(ClientCredentials {
            token_url,
            client_id,
            client_secret,
            scope: self.scope.clone(),
            retry_interval: self.retry_interval,
            refresh_interval: self.refresh_interval,
        })
    }
}

/// What is wrong with the two sections together: each a key, and the problem with it.
pub(crate) fn faults(
    identity: &IdentityConfig,
    callers: &CallersConfig,
    is_sandbox: bool,
) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    let mut fault = |place, problem: &str| faults.push((place, problem.to_owned()));
    let of_the_client = [
        ("identity.token_url", identity.token_url.is_some()),
        ("identity.client_id", identity.client_id.is_some()),
        ("identity.client_secret", identity.client_secret.is_some()),
        ("identity.client_secret_file", identity.client_secret_file.is_some()),
    ];
    let of_tokens = [
        ("callers.jwks_url", callers.jwks_url.is_some()),
        ("callers.jwks_file", callers.jwks_file.is_some()),
        ("callers.issuer", callers.issuer.is_some()),
        ("callers.audience", callers.audience.is_some()),
    ];
    let others = [
        ("identity.scope", identity.scope.is_some()),
        ("callers.api_keys_file", callers.api_keys_file.is_some()),
        ("callers.share_cache", callers.share_cache),
    ];
    let set = |keys: &[(&'static str, bool)]| -> Vec<_> {
        keys.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect()
    };

    if identity.mode == IdentityMode::PassThrough {
        let idle = set(&[of_the_client.as_slice(), &of_tokens, &others].concat());
        if !idle.is_empty() {
            let idle = idle.join(", ");
            fault(
                "identity.mode",
                &format!(
                    "is pass-through, where each caller's own token goes to the upstream; set it to service, or leave \
                     out: {idle}"
                ),
            );
        }
        return faults;
    }

    let client = set(&of_the_client);
    if is_sandbox && !client.is_empty() {
        let client = client.join(", ");
        fault(
            "upstream.url",
            &format!("is not set, and the sandbox has a client of its own; set it, or leave out: {client}"),
        );
    }
    if !is_sandbox {
        if identity.token_url.is_none() {
            fault(
                "identity.token_url",
                "is not set; identity.mode = service needs the address of the token endpoint",
            );
        }
        if identity.client_id.is_none() {
            fault(
                "identity.client_id",
                "is not set; identity.mode = service needs the gateway's own client id",
            );
        }
        match (&identity.client_secret, &identity.client_secret_file) {
            (None, None) => fault(
                "identity.client_secret",
                "is not set; name the file that holds it with identity.client_secret_file, or set \
                 GATEWAY_IDENTITY_CLIENT_SECRET",
            ),
            (Some(_), Some(_)) => {
                fault(
                    "identity.client_secret",
                    "is set, and identity.client_secret_file too; leave out one of them",
                );
            }
            _ => {}
        }
    }
    let has_keys = callers.jwks_url.is_some() || callers.jwks_file.is_some();
    if !has_keys && callers.api_keys_file.is_none() {
        fault(
            "identity.mode",
            "is service, so callers have to show who they are; set callers.jwks_url or callers.jwks_file to verify \
             their JWTs, or callers.api_keys_file to give them API keys",
        );
    }
    if callers.jwks_url.is_some() && callers.jwks_file.is_some() {
        fault("callers.jwks_url", "is set, and callers.jwks_file too; leave out one of them");
    }
    for (name, is_set) in &of_tokens[2..] {
        if has_keys && !is_set {
            fault(name, "is not set; without it, tokens that were made for others would be accepted");
        }
        if !has_keys && *is_set {
            fault(
                name,
                "is set without callers.jwks_url or callers.jwks_file; set one of them, or leave it out",
            );
        }
    }
    faults
}
