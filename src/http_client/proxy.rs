//! The forward proxy of outgoing calls.

use base64::Engine as _;
use reqwest::{Proxy, header::HeaderValue};

use crate::config::{secret::Secret, upstream::UpstreamConfig};

/// The proxy of `upstream.proxy`, if there is one. It tunnels `https://` with CONNECT, and forwards `http://`.
///
/// # Errors
/// A text for the operator, if the address cannot be used.
pub(crate) fn proxy(config: &UpstreamConfig) -> Result<Option<Proxy>, String> {
    let Some(url) = &config.proxy else { return Ok(None) };
    let proxy = Proxy::all(url.clone()).map_err(|_| format!("upstream.proxy: {url} cannot be used"))?;
    Ok(Some(match config.proxy_auth_file.as_ref().and_then(basic_auth) {
        Some(credentials) => proxy.custom_http_auth(credentials),
        None => proxy,
    }))
}

/// The value of `Proxy-Authorization` for `user:password` (RFC 7617).
fn basic_auth(credentials: &Secret) -> Option<HeaderValue> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(credentials.expose());
    // Base64 is always a valid header value.
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
