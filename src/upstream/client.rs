//! One call to the upstream: the address, the headers, the deadline, the bounds, and the status matched by name.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderValue, RETRY_AFTER},
    redirect,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;
use uuid::Uuid;

use super::{
    cache_control::{Keep, keep},
    error::UpstreamError,
    wire,
};
use crate::{caller::Caller, config::UpstreamConfig, model::SharedAppointment};

const USER_AGENT: &str = concat!("appointments-gateway/", env!("CARGO_PKG_VERSION"));

/// Redirects are followed on the upstream's own origin only, and not further than this.
const MAX_REDIRECTS: usize = 3;

/// An upstream answer that says something: an appointment, or that there is none (404).
#[derive(Debug, Clone)]
pub struct Answer {
    /// The appointment, none where the upstream knows none by that id.
    pub appointment: Option<SharedAppointment>,
    /// How long the upstream lets it be kept.
    pub keep: Keep,
}

/// The upstream, behind a bound on how many calls are under way and how many wait. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UpstreamClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: Client,
    /// Ends with `/appointments`.
    appointments: Url,
    timeout: Duration,
    max_response: usize,
    /// One permit for each call that may be under way.
    slots: Semaphore,
    /// One permit for each call that may be under way or wait.
    places: Semaphore,
}

impl UpstreamClient {
    /// A client for the upstream at `config.url`.
    ///
    /// # Errors
    /// A text for the operator where the TLS library or the extra certificates cannot be loaded.
    pub fn new(config: &UpstreamConfig, url: &Url) -> Result<Self, String> {
        // A second call finds it installed, which is all that is wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(config.connect_timeout)
            .pool_max_idle_per_host(config.max_concurrent)
            .redirect(redirect::Policy::custom(within_origin))
            .referer(false)
            .no_proxy();
        if let Some(path) = &config.ca_file {
            let fault =
                |what: &dyn std::fmt::Display| format!("upstream.ca_file: {}: {what}", path.display());
            let pem = std::fs::read(path).map_err(|error| fault(&error))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| fault(&"no PEM certificates"))?;
            if certificates.is_empty() {
                return Err(fault(&"holds no PEM certificate"));
            }
            http = http.tls_certs_merge(certificates);
        }
        let http =
            http.build().map_err(|error| format!("upstream: TLS cannot be set up: {}", causes(&error)))?;
        let mut appointments = url.clone();
        // `Config` takes no address that cannot be a base.
        if let Ok(mut path) = appointments.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1", "appointments"]);
        }
        Ok(Self(Arc::new(Inner {
            http,
            appointments,
            timeout: config.timeout,
            max_response: config.max_response.as_u64() as usize,
            slots: Semaphore::new(config.max_concurrent),
            places: Semaphore::new(config.max_concurrent + config.max_waiting),
        })))
    }

    /// `GET /api/v1/appointments/{id}` with the caller's token.
    ///
    /// # Errors
    /// Everything but an appointment and a clear "there is none".
    pub async fn appointment(&self, caller: &Caller, id: Uuid) -> Result<Answer, UpstreamError> {
        let _bulkhead = self.enter().await?;
        tokio::time::timeout(self.0.timeout, self.fetch(caller, id))
            .await
            .unwrap_or(Err(UpstreamError::AttemptTimeout))
    }

    /// Whether something that speaks HTTP answers where the upstream should be: the status of a list asked for
    /// without a token.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn probe(&self) -> Result<u16, UpstreamError> {
        let request = self.0.http.get(self.0.appointments.clone()).header(ACCEPT, "application/json").send();
        let response = tokio::time::timeout(self.0.timeout, request)
            .await
            .map_err(|_| UpstreamError::AttemptTimeout)?
            .map_err(unreachable)?;
        Ok(response.status().as_u16())
    }

    /// Waits for a slot, if there is a place left to wait in.
    async fn enter(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), UpstreamError> {
        let place = self.0.places.try_acquire().map_err(|_| UpstreamError::Overloaded)?;
        let slot = self.0.slots.acquire().await.map_err(|_| UpstreamError::Lost)?;
        Ok((place, slot))
    }

    async fn fetch(&self, caller: &Caller, id: Uuid) -> Result<Answer, UpstreamError> {
        let mut url = self.0.appointments.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        }
        let mut response = self
            .0
            .http
            .get(url)
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, bearer(caller)?)
            .send()
            .await
            .map_err(unreachable)?;
        let keep = keep(response.headers());
        match response.status() {
            StatusCode::OK => {
                let body = self.body(&mut response).await?;
                let appointment =
                    wire::appointment(&body).map_err(|fault| UpstreamError::Invalid(fault.text()))?;
                if appointment.id.0 != id {
                    return Err(UpstreamError::Invalid("it is another appointment than the one asked for"));
                }
                Ok(Answer { appointment: Some(Arc::new(appointment)), keep })
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(Answer { appointment: None, keep }),
            _ => Err(refusal(&response)),
        }
    }

    /// The whole body, unless it is larger than allowed; the size that the answer states is believed only where it
    /// saves reading.
    async fn body(&self, response: &mut Response) -> Result<Vec<u8>, UpstreamError> {
        let stated = response.content_length().unwrap_or(0);
        if stated > self.0.max_response as u64 {
            return Err(UpstreamError::TooLarge);
        }
        let mut body = Vec::with_capacity(stated as usize);
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > self.0.max_response {
                return Err(UpstreamError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn bearer(caller: &Caller) -> Result<HeaderValue, UpstreamError> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", caller.token()))
        .map_err(|_| UpstreamError::Unauthenticated)?;
    value.set_sensitive(true);
    Ok(value)
}

fn refusal(response: &Response) -> UpstreamError {
    match response.status() {
        StatusCode::UNAUTHORIZED => UpstreamError::Unauthenticated,
        StatusCode::FORBIDDEN => UpstreamError::Forbidden,
        StatusCode::TOO_MANY_REQUESTS => UpstreamError::RateLimited { retry_after: retry_after(response) },
        status if status.is_server_error() => UpstreamError::Failed { status: status.as_u16() },
        status => UpstreamError::UnexpectedStatus { status: status.as_u16() },
    }
}

/// `Retry-After` in seconds, RFC 9110 section 10.2.3.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Follows a redirect only where it stays on the origin, so that a token never travels to another host.
fn within_origin(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let stays = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    if stays && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
}

fn unreachable(error: reqwest::Error) -> UpstreamError {
    UpstreamError::Unreachable(causes(&error.without_url()).into())
}

/// An error with all that caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
