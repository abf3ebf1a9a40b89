//! HTTP calls other than those to the appointments API, made on behalf of no caller: the token endpoint and the JWK
//! sets of token issuers. They use the timeouts and limits of `upstream.*`, but a connection pool of their own, so that
//! they never compete with appointment calls. The modules serve both.

pub mod body;
pub mod client;
pub mod connections;
pub mod error_chain;
pub mod proxy;
pub mod redirect;
pub mod replay;
pub mod retry_after_header;
pub mod tls;

use std::time::Duration;

use oauth2::{HttpRequest, HttpResponse};
use reqwest::{Client, Request, StatusCode, Url, header::ACCEPT};
use tokio::time::timeout;

use self::{
    body::BodyError,
    error_chain::causes,
    redirect::{MAX_REDIRECTS, is_redirect},
    retry_after_header::retry_after,
};
use crate::{
    config::{Config, upstream::UpstreamConfig},
    refresh::Failure,
};

/// Some servers write it at the beginning of a JSON document.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An HTTP client with a timeout and a response size limit, which does not retry. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    https: Client,
    /// Without `upstream.proxy`: a plain URL is one of this machine, and nobody else may see the secrets of the call.
    http: Client,
    timeout: Duration,
    max_response: usize,
}

impl HttpClient {
    /// A client with the timeouts, limits, proxy and certificate authorities of `upstream.*`.
    ///
    /// # Errors
    /// A text for the operator, if the certificates or the proxy cannot be used.
    pub fn new(config: &Config) -> Result<Self, String> {
        let urls = [&config.identity.token_url, &config.callers.jwks_url];
        let uses_tls = urls.into_iter().flatten().any(client::is_https);
        // The client certificate is for the upstream alone.
        let config =
            UpstreamConfig { client_cert_file: None, client_key_file: None, ..config.upstream.clone() };
        let direct = UpstreamConfig { proxy: None, ..config.clone() };
        Ok(Self {
            https: client::client(&config, config.idle_timeout, uses_tls)?,
            http: client::client(&direct, config.idle_timeout, false)?,
            timeout: config.timeout,
            max_response: config.max_response.as_u64() as usize,
        })
    }

    /// Fetches the JSON document at `url`. Redirects within its origin are followed.
    ///
    /// # Errors
    /// Any outcome other than a complete 200 response. The texts repeat nothing of the body.
    pub async fn get(&self, mut url: Url) -> Result<Vec<u8>, Failure> {
        let follow = async {
            for _ in 0..=MAX_REDIRECTS {
                let request = self.https.get(url.clone()).header(ACCEPT, "application/json");
                let response = self.exchange(request.build().map_err(unreachable)?).await?;
                match redirect::target(response.status(), response.headers(), &url) {
                    Some(target) => url = target,
                    None if response.status() == StatusCode::OK => return Ok(response.into_body()),
                    None => return Err(unexpected_status(&response)),
                }
            }
            Err(Failure::new("it redirects too often"))
        };
        self.in_time(follow).await
    }

    /// Sends a token request, and returns the response whatever its status.
    ///
    /// # Errors
    /// Any outcome other than a complete response.
    pub(crate) async fn post(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        self.in_time(self.exchange(request.try_into().map_err(unreachable)?)).await
    }

    async fn in_time<T>(&self, exchange: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        timeout(self.timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(Failure::new("no complete response within upstream.timeout")))
    }

    async fn exchange(&self, request: Request) -> Result<HttpResponse, Failure> {
        let client = if client::is_https(request.url()) { &self.https } else { &self.http };
        let response = client.execute(request).await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = body::read(response, self.max_response).await.map_err(|error| match error {
            BodyError::TooLarge => Failure::new("response larger than upstream.max_response"),
            BodyError::Encoding => Failure::new("response not encoded as its Content-Encoding states"),
            BodyError::Broken(error) => {
                Failure::new(&format!("incomplete response: {}", causes(&error.without_url())))
            }
        })?;
        let json = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&body);
        let mut response = HttpResponse::new(json.to_vec());
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

/// The failure of a request whose response has an unexpected status.
pub(crate) fn unexpected_status(response: &HttpResponse) -> Failure {
    let status = response.status();
    let hint =
        if is_redirect(status) { ", a redirect that is not followed; set the final address" } else { "" };
    Failure {
        retry_after: retry_after(response.headers()),
        ..Failure::new(&format!("unexpected response status {}{hint}", status.as_u16()))
    }
}

fn unreachable(error: reqwest::Error) -> Failure {
    Failure::new(&format!("unreachable: {}", causes(&error.without_url())))
}
