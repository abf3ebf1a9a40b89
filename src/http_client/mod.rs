//! HTTP calls other than those to the appointments API, made on behalf of no caller: the token endpoint and the JWK
//! sets of token issuers. They use the timeouts and limits of `upstream.*`, but a connection pool of their own, so that
//! they never compete with appointment calls. [`client`] and [`retry_after_header`] serve both.

pub mod client;
pub mod proxy;
pub mod retry_after_header;
pub mod tls;

use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use oauth2::{HttpRequest, HttpResponse};
use reqwest::{Body, Client, Request, StatusCode, Url, header::ACCEPT};
use tokio::time::timeout;

use self::{client::causes, retry_after_header::retry_after};
use crate::{
    config::{Config, upstream::UpstreamConfig},
    refresh::Failure,
};

/// An HTTP client with a timeout and a response size limit, which neither retries nor follows redirects. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
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
        Ok(Self {
            http: client::client(&config, uses_tls)?,
            timeout: config.timeout,
            max_response: config.max_response.as_u64() as usize,
        })
    }

    /// Fetches the JSON document at `url`.
    ///
    /// # Errors
    /// Any outcome other than a complete 200 response. The texts repeat nothing of the body.
    pub async fn get(&self, url: Url) -> Result<Vec<u8>, Failure> {
        let request = self.http.get(url).header(ACCEPT, "application/json").build().map_err(unreachable)?;
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body()),
            _ => Err(unexpected_status(&response)),
        }
    }

    /// Sends a token request, and returns the response whatever its status.
    ///
    /// # Errors
    /// Any outcome other than a complete response.
    pub(crate) async fn post(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        self.send(request.try_into().map_err(unreachable)?).await
    }

    async fn send(&self, request: Request) -> Result<HttpResponse, Failure> {
        let exchange = async {
            let mut response = self.http.execute(request).await.map_err(unreachable)?;
            let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
            let body = Limited::new(Body::from(response), self.max_response).collect().await;
            let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => Failure::new("response larger than upstream.max_response"),
                None => Failure::new(&format!("incomplete response: {}", causes(error.as_ref()))),
            })?;
            let mut response = HttpResponse::new(body.to_bytes().into());
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            Ok(response)
        };
        timeout(self.timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(Failure::new("no complete response within upstream.timeout")))
    }
}

/// The failure of a request whose response has an unexpected status.
pub(crate) fn unexpected_status(response: &HttpResponse) -> Failure {
    Failure {
        retry_after: retry_after(response.headers()),
        ..Failure::new(&format!("unexpected response status {}", response.status().as_u16()))
    }
}

fn unreachable(error: reqwest::Error) -> Failure {
    Failure::new(&format!("unreachable: {}", causes(&error.without_url())))
}
