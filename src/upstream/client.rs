//! Calls to the upstream: the address, the headers, the size of the answer, and each status matched by name.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION},
    redirect,
};
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use super::{
    answer::{Answer, Applied, Page},
    attempts::{Attempts, Route, Turn},
    cache_control::keep,
    deadline::Deadline,
    error::UpstreamError,
    retry_after::retry_after,
    wire,
};
use crate::{caller::Caller, config::UpstreamConfig, model::Change};

const USER_AGENT: &str = concat!("appointments-gateway/", env!("CARGO_PKG_VERSION"));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Redirects are followed on the upstream's own origin only, and not more of them than this.
const MAX_REDIRECTS: usize = 3;

/// The longest `ETag` that is remembered.
const LONGEST_ETAG: usize = 256;

/// The upstream. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UpstreamClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: Client,
    /// Ends with `/appointments`.
    appointments: Url,
    timeout: Duration,
    max_response: usize,
    attempts: Attempts,
}

impl UpstreamClient {
    /// A client for the upstream at `url`.
    ///
    /// # Errors
    /// A text for the operator where the TLS library or the extra certificates cannot be loaded.
    pub fn new(config: &UpstreamConfig, url: &Url) -> Result<Self, String> {
        // A second call finds it installed, which is all that is wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Client::builder()
            .user_agent(USER_AGENT)
            // A part of the whole: it never takes longer.
            .connect_timeout(config.connect_timeout.min(config.timeout))
            .pool_max_idle_per_host(config.max_concurrent)
            // A change is sent once. What may be repeated is repeated by us, where we can see it.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
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
        Ok(Self(Arc::new(Inner {
            http,
            appointments: below(url, &["api", "v1", "appointments"]),
            timeout: config.timeout,
            max_response: config.max_response.as_u64() as usize,
            attempts: Attempts::new(config),
        })))
    }

    /// How long an attempt at a call may take.
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// `GET /api/v1/appointments/{id}` with the caller's token; with `etag`, only if it has changed since. Repeated
    /// until `deadline`, where that may help.
    ///
    /// # Errors
    /// Everything but an appointment and a clear "there is none".
    pub async fn appointment(
        &self,
        caller: &Caller,
        id: Uuid,
        etag: Option<&str>,
        deadline: &Deadline,
    ) -> Result<Answer, UpstreamError> {
        let send = || async {
            let mut response = self.get(caller, self.address(id, &[]), etag).await?;
            let keep = keep(response.headers());
            let new = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            let answer = Answer {
                appointment: None,
                is_unchanged: false,
                etag: new.filter(|etag| etag.len() <= LONGEST_ETAG),
                keep,
            };
            match response.status() {
                StatusCode::OK => {
                    let body = self.body(&mut response).await?;
                    let appointment =
                        wire::appointment(&body).map_err(|fault| UpstreamError::Invalid(fault.text()))?;
                    if appointment.id.0 != id {
                        return Err(UpstreamError::Invalid(
                            "it is another appointment than the one asked for",
                        ));
                    }
                    Ok(Answer { appointment: Some(Arc::new(appointment)), ..answer })
                }
                StatusCode::NOT_MODIFIED if etag.is_some() => Ok(Answer { is_unchanged: true, ..answer }),
                StatusCode::NOT_FOUND | StatusCode::GONE => Ok(answer),
                _ => Err(refusal(&response)),
            }
        };
        self.0.attempts.read(Route::Appointment, caller.scope(), deadline, send).await
    }

    /// `GET /api/v1/appointments?page=…&per_page=…` with the caller's token. Pages count from 1. Repeated as
    /// [`Self::appointment`] is.
    ///
    /// # Errors
    /// Everything but a list.
    pub async fn page(
        &self,
        caller: &Caller,
        page: u64,
        per_page: u32,
        deadline: &Deadline,
    ) -> Result<Page, UpstreamError> {
        let send = || async {
            let mut url = self.0.appointments.clone();
            url.query_pairs_mut()
                .append_pair("page", &page.to_string())
                .append_pair("per_page", &per_page.to_string());
            let mut response = self.get(caller, url, None).await?;
            let keep = keep(response.headers());
            match response.status() {
                StatusCode::OK => {
                    let body = self.body(&mut response).await?;
                    let list = wire::list(&body).map_err(|fault| UpstreamError::Invalid(fault.text()))?;
                    Ok(Page {
                        items: list.items.into_iter().map(|item| item.map(Arc::new)).collect(),
                        per_page: list.per_page,
                        total: list.total,
                        has_next: list.has_next,
                        keep,
                    })
                }
                _ => Err(refusal(&response)),
            }
        };
        self.0.attempts.read(Route::List, caller.scope(), deadline, send).await
    }

    /// Waits for the turn of a change, if there is a place left to wait in.
    ///
    /// # Errors
    /// [`UpstreamError::Overloaded`] where there is none, [`UpstreamError::BreakerOpen`] where changes have failed of late.
    pub async fn turn(&self, caller: &Caller) -> Result<Turn, UpstreamError> {
        self.0.attempts.turn_to_change(caller.scope()).await
    }

    /// Sends `change` with the caller's token: once, whatever comes of it. It has waited for its `turn` before.
    ///
    /// # Errors
    /// [`UpstreamError::OutcomeUnknown`] where it was sent, or may have been, and nothing tells what came of it; all
    /// others mean what they say.
    pub async fn change(
        &self,
        turn: Turn,
        caller: &Caller,
        change: &Change,
    ) -> Result<Applied, UpstreamError> {
        let (method, url, id) = match change {
            Change::Create(_) => (Method::POST, self.0.appointments.clone(), None),
            Change::Update(id, _) => (Method::PATCH, self.address(id.0, &[]), Some(id.0)),
            Change::Cancel(id, _) => (Method::POST, self.address(id.0, &["cancel"]), Some(id.0)),
        };
        let request =
            self.request(method, caller, url)?.header(CONTENT_TYPE, JSON).body(wire::encode(change));
        turn.carry_out(self.send_change(request, id)).await.map_err(UpstreamError::of_change)
    }

    /// Of the appointment with this `id`; none where it is to be made. What went wrong is told as of any call.
    async fn send_change(&self, request: RequestBuilder, id: Option<Uuid>) -> Result<Applied, UpstreamError> {
        let mut response = request.send().await.map_err(unreachable)?;
        let keep = keep(response.headers());
        match response.status() {
            StatusCode::NO_CONTENT => Ok(Applied::To { appointment: None, keep }),
            status if status.is_success() => {
                let body = self.body(&mut response).await?;
                if body.trim_ascii().is_empty() {
                    return Ok(Applied::To { appointment: None, keep });
                }
                let appointment =
                    wire::appointment(&body).map_err(|fault| UpstreamError::Invalid(fault.text()))?;
                if id.is_some_and(|id| id != appointment.id.0) {
                    return Err(UpstreamError::Invalid(
                        "it is another appointment than the one that was to be changed",
                    ));
                }
                Ok(Applied::To { appointment: Some(Arc::new(appointment)), keep })
            }
            StatusCode::UNPROCESSABLE_ENTITY => {
                let body = self.body(&mut response).await.unwrap_or_default();
                Ok(Applied::Rejected(wire::faults(&body)))
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(UpstreamError::NotFound),
            StatusCode::CONFLICT => Err(UpstreamError::Conflict),
            _ => Err(refusal(&response)),
        }
    }

    /// Whether something that speaks HTTP answers where the upstream should be: the status of a list asked for
    /// without a token.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn probe(&self) -> Result<u16, UpstreamError> {
        let request = self.0.http.get(self.0.appointments.clone()).header(ACCEPT, JSON).send();
        let response = timeout(self.0.timeout, request)
            .await
            .map_err(|_| UpstreamError::AttemptTimeout)?
            .map_err(unreachable)?;
        Ok(response.status().as_u16())
    }

    fn address(&self, id: Uuid, rest: &[&str]) -> Url {
        let mut text = Uuid::encode_buffer();
        let id: &str = id.hyphenated().encode_lower(&mut text);
        below(&self.0.appointments, &[&[id], rest].concat())
    }

    fn request(&self, method: Method, caller: &Caller, url: Url) -> Result<RequestBuilder, UpstreamError> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", caller.token()))
            .map_err(|_| UpstreamError::Unauthenticated)?;
        bearer.set_sensitive(true);
        Ok(self.0.http.request(method, url).header(ACCEPT, JSON).header(AUTHORIZATION, bearer))
    }

    /// A GET, and those that the upstream sends it on to within its own origin: a token never travels to another host.
    async fn get(
        &self,
        caller: &Caller,
        mut url: Url,
        etag: Option<&str>,
    ) -> Result<Response, UpstreamError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.request(Method::GET, caller, url.clone())?;
            if let Some(etag) = etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            let response = request.send().await.map_err(unreachable)?;
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            match location.and_then(|location| url.join(location).ok()) {
                Some(next) if is_redirect && next.origin() == url.origin() => url = next,
                _ => return Ok(response),
            }
        }
        Err(UpstreamError::Invalid("it redirects in circles"))
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

/// `url` with `segments` added to its path.
fn below(url: &Url, segments: &[&str]) -> Url {
    let mut url = url.clone();
    // `Config` takes no address that cannot be a base.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

fn refusal(response: &Response) -> UpstreamError {
    match response.status() {
        StatusCode::UNAUTHORIZED => UpstreamError::Unauthenticated,
        StatusCode::FORBIDDEN => UpstreamError::Forbidden,
        StatusCode::TOO_MANY_REQUESTS => {
            UpstreamError::RateLimited { retry_after: retry_after(response.headers()) }
        }
        status if status.is_server_error() => {
            UpstreamError::Failed { status: status.as_u16(), retry_after: retry_after(response.headers()) }
        }
        status => UpstreamError::UnexpectedStatus { status: status.as_u16() },
    }
}

fn unreachable(error: reqwest::Error) -> UpstreamError {
    // Without a connection, nothing was sent.
    let is_connect = error.is_connect();
    let causes = causes(&error.without_url()).into();
    if is_connect { UpstreamError::Unreachable(causes) } else { UpstreamError::Broken(causes) }
}

/// An error with all that caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        text.push_str(": ");
        text.push_str(&cause_text);
        // What lies below repeats what the other side gave as its reason, which may be anything.
        source = cause.source().filter(|_| cause_text != "http2 error");
    }
    text
}
