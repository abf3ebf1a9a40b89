//! Calls to the upstream: the address, the headers, the size of the answer, and each status matched by name.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION},
};
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use super::{
    answer::{Applied, AppointmentAnswer, Page, PageItem},
    authorisation::Authorisation,
    cache_control::{CacheDirectives, keep},
    deadline::Deadline,
    error::UpstreamError,
    resilience::call_policy::{CallPermit, CallPolicy, Route},
    service_token::ServiceToken,
    wire,
};
use crate::{
    caller::Caller,
    config::upstream::UpstreamConfig,
    http_client::{
        client::{self, causes, is_exhausted},
        retry_after::retry_after,
    },
    model::change::Change,
};

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
    service: Option<ServiceToken>,
    /// Ends with `/appointments`.
    appointments: Url,
    timeout: Duration,
    max_response: usize,
    attempts: CallPolicy,
}

impl UpstreamClient {
    /// A client for the upstream at `url`, with the gateway's own token where callers are to be served with it.
    ///
    /// # Errors
    /// A text for the operator where the TLS library or the extra certificates cannot be loaded.
    pub fn new(config: &UpstreamConfig, url: &Url, service: Option<ServiceToken>) -> Result<Self, String> {
        Ok(Self(Arc::new(Inner {
            http: client::client(config)?,
            service,
            appointments: below(url, &["api", "v1", "appointments"]),
            timeout: config.timeout,
            max_response: config.max_response.as_u64() as usize,
            attempts: CallPolicy::new(config),
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
    ) -> Result<AppointmentAnswer, UpstreamError> {
        let read = |bearer| async {
            let mut response = self.get(bearer, self.address(id, &[]), etag).await?;
            let keep = keep(response.headers());
            let new = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            let answer = AppointmentAnswer {
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
                    Ok(AppointmentAnswer { appointment: Some(Arc::new(appointment)), ..answer })
                }
                StatusCode::NOT_MODIFIED if etag.is_some() => {
                    Ok(AppointmentAnswer { is_unchanged: true, ..answer })
                }
                StatusCode::NOT_FOUND => {
                    // A proxy's 404 may say nothing about the appointment, so it is not cached.
                    let body = self.body(&mut response).await?;
                    let keep = if wire::is_object(&body) { keep } else { CacheDirectives::NEVER };
                    Ok(AppointmentAnswer { keep, ..answer })
                }
                StatusCode::GONE => Ok(AppointmentAnswer { keep: CacheDirectives::NEVER, ..answer }),
                _ => Err(refusal(&response)),
            }
        };
        let send = || self.authorised(caller, read);
        self.0.attempts.read(Route::Appointment, caller, deadline, send).await
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
        let read = |bearer| async {
            let mut url = self.0.appointments.clone();
            url.query_pairs_mut()
                .append_pair("page", &page.to_string())
                .append_pair("per_page", &per_page.to_string());
            let mut response = self.get(bearer, url, None).await?;
            let keep = keep(response.headers());
            match response.status() {
                StatusCode::OK => {
                    let body = self.body(&mut response).await?;
                    let list = wire::list(&body).map_err(|fault| UpstreamError::Invalid(fault.text()))?;
                    Ok(Page {
                        items: list.items.into_iter().map(|item| item.map(page_item)).collect(),
                        per_page: list.per_page,
                        total: list.total,
                        has_next: list.has_next,
                        keep,
                    })
                }
                _ => Err(refusal(&response)),
            }
        };
        let send = || self.authorised(caller, read);
        self.0.attempts.read(Route::List, caller, deadline, send).await
    }

    /// Waits for the turn of a change, if there is a place left to wait in.
    ///
    /// # Errors
    /// [`UpstreamError::Overloaded`] where there is none, [`UpstreamError::BreakerOpen`] where changes have failed of late.
    pub async fn turn(&self, caller: &Caller) -> Result<CallPermit, UpstreamError> {
        self.0.attempts.turn_to_change(caller).await
    }

    /// Sends `change` with the caller's token: once, whatever comes of it. It has waited for its `turn` before.
    ///
    /// # Errors
    /// [`UpstreamError::OutcomeUnknown`] where it was sent, or may have been, and nothing tells what came of it; all
    /// others mean what they say.
    pub async fn change(
        &self,
        turn: CallPermit,
        caller: &Caller,
        change: &Change,
    ) -> Result<Applied, UpstreamError> {
        let (method, url, id) = match change {
            Change::Create(_) => (Method::POST, self.0.appointments.clone(), None),
            Change::Update(id, _) => (Method::PATCH, self.address(id.0, &[]), Some(id.0)),
            Change::Cancel(id, _) => (Method::POST, self.address(id.0, &["cancel"]), Some(id.0)),
        };
        let body = wire::change::encode(change);
        let send = self.authorised(caller, |bearer| {
            let request = self.request(method.clone(), bearer, url.clone());
            self.send_change(request.header(CONTENT_TYPE, JSON).body(body.clone()), id)
        });
        turn.carry_out(send).await.map_err(UpstreamError::of_change)
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
                Ok(Applied::Rejected(wire::change::faults(&body)))
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

    fn request(&self, method: Method, bearer: HeaderValue, url: Url) -> RequestBuilder {
        self.0.http.request(method, url).header(ACCEPT, JSON).header(AUTHORIZATION, bearer)
    }

    /// A GET, and those that the upstream sends it on to within its own origin: a token never travels to another host.
    async fn get(
        &self,
        bearer: HeaderValue,
        mut url: Url,
        etag: Option<&str>,
    ) -> Result<Response, UpstreamError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.request(Method::GET, bearer.clone(), url.clone());
            if let Some(etag) = etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            let response = request.send().await.map_err(unreachable)?;
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            match location.and_then(|location| url.join(location).ok()) {
                Some(next) if is_redirect && next.origin() == url.origin() && !has_user_info(&next) => {
                    url = next
                }
                _ => return Ok(response),
            }
        }
        Err(UpstreamError::Invalid("it redirects in circles"))
    }

    /// Has `call` made for `caller`: with the caller's token, or with the gateway's own. A 401 to the latter says that
    /// nothing was done and that the token is worth nothing, so `call`, a change too, is made once more with a fresh one.
    /// Each has its time for itself, and waiting for a token is none of it.
    async fn authorised<T, F>(
        &self,
        caller: &Caller,
        call: impl Fn(HeaderValue) -> F,
    ) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let authorisation = Authorisation::of(caller, self.0.service.as_ref()).await?;
        let call = async |bearer| {
            timeout(self.0.timeout, call(bearer)).await.unwrap_or(Err(UpstreamError::AttemptTimeout))
        };
        let outcome = call(authorisation.bearer()).await;
        if !matches!(outcome, Err(UpstreamError::Unauthenticated)) {
            return outcome;
        }
        let Some(fresh) = authorisation.fresh().await else { return Err(authorisation.refused()) };
        match call(fresh.bearer()).await {
            Err(UpstreamError::Unauthenticated) => Err(fresh.refused()),
            outcome => outcome,
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

fn page_item(item: wire::ListItem) -> PageItem {
    PageItem { appointment: Arc::new(item.appointment), is_whole: item.is_whole }
}

/// Whether `url` has a user name or a password, which the HTTP client would send as a credential.
fn has_user_info(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
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
    if is_exhausted(&error) {
        return UpstreamError::Exhausted { is_sent: !is_connect };
    }
    let causes = causes(&error.without_url()).into();
    if is_connect { UpstreamError::Unreachable(causes) } else { UpstreamError::Broken(causes) }
}
