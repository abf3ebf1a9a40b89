//! What is asked beside the appointments API, and without a caller: the token endpoint, and the keys of who issues the
//! callers' tokens. Under the same clocks and bounds, and with a client of its own, so that neither keeps the other
//! waiting.

pub mod client;
pub mod retry_after;

use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use oauth2::{HttpRequest, HttpResponse};
use reqwest::{Body, Client, Request, StatusCode, Url, header::ACCEPT};
use tokio::time::timeout;

use self::{client::causes, retry_after::retry_after};
use crate::{config::upstream::UpstreamConfig, refresh::Failure};

/// Asks once, follows nothing, and reads no more than is allowed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    http: Client,
    timeout: Duration,
    max_response: usize,
}

impl HttpClient {
    /// A client with the clocks, bounds and certificates of `config`.
    ///
    /// # Errors
    /// A text for the operator where the TLS library or the extra certificates cannot be loaded.
    pub fn new(config: &UpstreamConfig) -> Result<Self, String> {
        Ok(Self {
            http: client::client(config)?,
            timeout: config.timeout,
            max_response: config.max_response.as_u64() as usize,
        })
    }

    /// What is at `url`.
    ///
    /// # Errors
    /// Everything but a 200 that can be read whole. The texts say nothing of the body.
    pub async fn get(&self, url: Url) -> Result<Vec<u8>, Failure> {
        let request = self.http.get(url).header(ACCEPT, "application/json").build().map_err(unreachable)?;
        let response = self.ask(request).await?;
        if response.status() == StatusCode::OK { Ok(response.into_body()) } else { Err(refused(&response)) }
    }

    /// The answer to a request for a token, whatever its status.
    ///
    /// # Errors
    /// Where there is none, or it cannot be read whole.
    pub(crate) async fn post(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        self.ask(request.try_into().map_err(unreachable)?).await
    }

    async fn ask(&self, request: Request) -> Result<HttpResponse, Failure> {
        let answer = async {
            let mut response = self.http.execute(request).await.map_err(unreachable)?;
            let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
            let body = Limited::new(Body::from(response), self.max_response).collect().await;
            let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => Failure::new("its answer is larger than upstream.max_response"),
                None => Failure::new(&format!("its answer broke off: {}", causes(error.as_ref()))),
            })?;
            let mut answer = HttpResponse::new(body.to_bytes().into());
            (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
            Ok(answer)
        };
        timeout(self.timeout, answer)
            .await
            .unwrap_or_else(|_| Err(Failure::new("it took longer than upstream.timeout")))
    }
}

/// An answer that is not what was asked for, by its status.
pub(crate) fn refused(response: &HttpResponse) -> Failure {
    Failure {
        retry_after: retry_after(response.headers()),
        ..Failure::new(&format!("it answered with {}", response.status().as_u16()))
    }
}

fn unreachable(error: reqwest::Error) -> Failure {
    Failure::new(&format!("it cannot be reached: {}", causes(&error.without_url())))
}
