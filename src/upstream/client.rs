//! Calls to the upstream: URL, headers, maximum response size, and the meaning of each status.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;
use uuid::Uuid;

use super::{
    authorisation::Authorisation,
    cache_control::{self, CacheDirectives},
    deadline::Deadline,
    error::UpstreamError,
    resilience::call_policy::{CallPermit, CallPolicy, Route},
    response::{ChangeResponse, Page, PageItem, ReadResponse},
    service_token::ServiceToken,
    validators::Validators,
    wire,
};
use crate::{
    caller::Caller,
    config::upstream::UpstreamConfig,
    http_client::{
        body::{self, BodyError},
        connections::Connections,
        error_chain::{causes, is_exhausted},
        redirect::{self, MAX_REDIRECTS},
        replay::is_unprocessed,
        retry_after_header::retry_after,
    },
    metrics::metrics,
    model::{SharedAppointment, change::Change},
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The maximum idle time of a connection before a change is sent on it. If the server closes the connection at the same
/// moment, the outcome is unknown.
const CHANGE_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The share of `upstream.timeout` after which the body of a response that decides the outcome by its status is given up.
const BODY_SHARE: f64 = 0.9;

/// A client for the upstream. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UpstreamClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reads: Connections,
    changes: Connections,
    service: Option<ServiceToken>,
    /// The encoding that is requested for pages of the list.
    list_encoding: Option<(HeaderName, &'static str)>,
    /// Ends with `/appointments`.
    appointments_url: Url,
    timeout: Duration,
    max_response: usize,
    forwards_request_id: bool,
    policy: CallPolicy,
}

impl UpstreamClient {
    /// Creates a client for the upstream at `url`, within a runtime. `service` is the gateway's own token in service mode.
    ///
    /// # Errors
    /// A text for the operator if the certificates or the proxy cannot be used.
    pub fn new(config: &UpstreamConfig, url: &Url, service: Option<ServiceToken>) -> Result<Self, String> {
        Ok(Self(Arc::new(Inner {
            reads: Connections::open(config, config.idle_timeout)?,
            changes: Connections::open(config, config.idle_timeout.min(CHANGE_IDLE_TIMEOUT))?,
            service,
            // A page shrinks to a tenth. It comes over a network if it is encrypted. A single appointment gains nothing.
            list_encoding: (url.scheme() == "https").then_some((ACCEPT_ENCODING, "gzip")),
            appointments_url: with_segments(url, &["api", "v1", "appointments"]),
            timeout: config.timeout,
            max_response: config.max_response.as_u64() as usize,
            forwards_request_id: config.forward_request_id,
            policy: CallPolicy::new(config),
        })))
    }

    /// The timeout of one attempt.
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Reads an appointment, or revalidates `last`: `GET /api/v1/appointments/{id}`. Transient failures are retried until
    /// `deadline`.
    ///
    /// # Errors
    /// Any result other than an appointment or its definite absence.
    pub async fn appointment(
        &self,
        caller: &Caller,
        id: Uuid,
        last: Option<&Validators>,
        deadline: &Deadline,
    ) -> Result<ReadResponse<Option<SharedAppointment>>, UpstreamError> {
        let read = |headers| async {
            let answer = match self.get(headers, self.appointment_url(id, &[]), None, last).await? {
                Fetched::NotModified(validators) => return Ok(validators.into()),
                Fetched::Response(response) => response,
            };
            let directives = cache_control::parse(answer.headers());
            match answer.status() {
                StatusCode::OK => {
                    let validators = Validators::of(answer.headers(), directives);
                    let body = self.body(answer).await?;
                    let appointment =
                        wire::appointment(&body).map_err(|error| UpstreamError::Invalid(error.message()))?;
                    if appointment.id.0 != id {
                        return Err(UpstreamError::Invalid("it has the id of another appointment"));
                    }
                    Ok(ReadResponse { value: Some(Some(Arc::new(appointment))), validators, directives })
                }
                status @ (StatusCode::NOT_FOUND | StatusCode::GONE) => {
                    // A proxy, or another application at a wrong base path, says nothing about the appointment.
                    if !wire::is_object(&self.body(answer).await?) {
                        return Err(UpstreamError::UnexpectedStatus { status: status.as_u16() });
                    }
                    // The API documents only 404.
                    let is_documented = status == StatusCode::NOT_FOUND;
                    let directives = if is_documented { directives } else { CacheDirectives::NO_STORE };
                    Ok(ReadResponse { value: Some(None), validators: None, directives })
                }
                _ => Err(status_error(&answer)),
            }
        };
        let send = || self.authorised(caller, read);
        self.0.policy.read(Route::Appointment, caller, deadline, send).await
    }

    /// Reads a page of the list, or revalidates `last`: `GET /api/v1/appointments?page=…&per_page=…`. Pages count from 1.
    /// Retried like [`Self::appointment`].
    ///
    /// # Errors
    /// Any result other than a list.
    pub async fn page(
        &self,
        caller: &Caller,
        page: u64,
        per_page: u32,
        last: Option<&Validators>,
        deadline: &Deadline,
    ) -> Result<ReadResponse<Page>, UpstreamError> {
        let read = |headers| async {
            let mut url = self.0.appointments_url.clone();
            url.query_pairs_mut()
                .append_pair("page", &page.to_string())
                .append_pair("per_page", &per_page.to_string());
            let response = match self.get(headers, url, self.0.list_encoding.clone(), last).await? {
                Fetched::NotModified(validators) => return Ok(validators.into()),
                Fetched::Response(response) => response,
            };
            match response.status() {
                StatusCode::OK => {
                    let directives = cache_control::parse(response.headers());
                    let validators = Validators::of(response.headers(), directives);
                    let body = self.body(response).await?;
                    let list = wire::list(&body).map_err(|error| UpstreamError::Invalid(error.message()))?;
                    let page = Page {
                        items: list.items.into_iter().map(|item| item.map(page_item)).collect(),
                        per_page: list.per_page,
                        total: list.total,
                        has_next: list.has_next,
                    };
                    Ok(ReadResponse { value: Some(page), validators, directives })
                }
                _ => Err(status_error(&response)),
            }
        };
        let send = || self.authorised(caller, read);
        self.0.policy.read(Route::List, caller, deadline, send).await
    }

    /// Waits in the fair queue for a permit to send a change.
    ///
    /// # Errors
    /// [`UpstreamError::Overloaded`] if the queue is full, [`UpstreamError::BreakerOpen`] if the circuit breaker of
    /// changes is open.
    pub async fn change_permit(&self, caller: &Caller) -> Result<CallPermit, UpstreamError> {
        self.0.policy.change_permit(caller).await
    }

    /// Sends `change` exactly once. A change is repeated only if the server has certainly not processed it.
    ///
    /// # Errors
    /// [`UpstreamError::OutcomeUnknown`] if the change may have been made. Other errors are definite.
    pub async fn change(
        &self,
        permit: CallPermit,
        caller: &Caller,
        change: &Change,
    ) -> Result<ChangeResponse, UpstreamError> {
        let (method, url, id) = match change {
            Change::Create(_) => (Method::POST, self.0.appointments_url.clone(), None),
            Change::Update(id, _) => (Method::PATCH, self.appointment_url(id.0, &[]), Some(id.0)),
            Change::Cancel(id, _) => (Method::POST, self.appointment_url(id.0, &["cancel"]), Some(id.0)),
        };
        let body = wire::change::encode(change);
        let send = self.authorised(caller, |headers| {
            let request = api_request(&self.0.changes, method.clone(), headers, url.clone());
            self.send_change(request.header(CONTENT_TYPE, JSON).body(body.clone()), id)
        });
        permit.execute(send).await.map_err(UpstreamError::into_change_error)
    }

    /// Sends a change of the appointment `id`, or the creation of one. The caller converts errors with
    /// [`UpstreamError::into_change_error`].
    async fn send_change(
        &self,
        request: RequestBuilder,
        id: Option<Uuid>,
    ) -> Result<ChangeResponse, UpstreamError> {
        let body_deadline = Instant::now() + self.0.timeout.mul_f64(BODY_SHARE);
        let response = self.0.changes.send(request).await.map_err(send_error)?;
        let directives = cache_control::parse(response.headers());
        // If the status decides the outcome, an incomplete body counts as an empty one.
        let complete_body = |response| async move {
            timeout_at(body_deadline, self.body(response)).await.ok().and_then(Result::ok).unwrap_or_default()
        };
        match response.status() {
            StatusCode::NO_CONTENT => Ok(ChangeResponse::Applied { appointment: None, directives }),
            status if status.is_success() => {
                let appointment = wire::change::applied(&self.body(response).await?)
                    .map_err(|error| UpstreamError::Invalid(error.message()))?;
                if id.zip(appointment.as_ref()).is_some_and(|(id, appointment)| id != appointment.id.0) {
                    return Err(UpstreamError::Invalid("it has the id of another appointment"));
                }
                Ok(ChangeResponse::Applied { appointment: appointment.map(Arc::new), directives })
            }
            StatusCode::UNPROCESSABLE_ENTITY => {
                Ok(ChangeResponse::Rejected(wire::change::faults(&complete_body(response).await)))
            }
            // A create names no resource, so a 404 is not an absence.
            StatusCode::NOT_FOUND | StatusCode::GONE if id.is_some() => {
                let error = status_error(&response);
                let is_absent = wire::is_object(&complete_body(response).await);
                Err(if is_absent { UpstreamError::NotFound } else { error })
            }
            StatusCode::CONFLICT => Err(UpstreamError::Conflict),
            _ => Err(status_error(&response)),
        }
    }

    /// Checks that an HTTP server responds at the upstream's URL. Returns the status of a list request without a token.
    ///
    /// # Errors
    /// A timeout or an error of the connection.
    pub async fn probe(&self) -> Result<u16, UpstreamError> {
        let request = self.0.reads.request(Method::GET, self.0.appointments_url.clone()).header(ACCEPT, JSON);
        let response = timeout(self.0.timeout, self.0.reads.send(request))
            .await
            .map_err(|_| UpstreamError::AttemptTimeout)?
            .map_err(send_error)?;
        Ok(response.status().as_u16())
    }

    fn appointment_url(&self, id: Uuid, rest: &[&str]) -> Url {
        let mut text = Uuid::encode_buffer();
        let id: &str = id.hyphenated().encode_lower(&mut text);
        with_segments(&self.0.appointments_url, &[&[id], rest].concat())
    }

    /// The headers of every call of `caller`.
    fn headers(&self, caller: &Caller, bearer: HeaderValue) -> HeaderMap {
        let id = caller.request_id().filter(|_| self.0.forwards_request_id);
        let id = id.and_then(|id| HeaderValue::from_str(id).ok()).map(|id| (X_REQUEST_ID, id));
        [(ACCEPT, JSON), (AUTHORIZATION, bearer)].into_iter().chain(id).collect()
    }

    /// Sends a GET, conditional on the validators of the `last` response. A 304 that selects another response is
    /// disregarded, and the request is repeated without the condition. A 304 to an unconditional request is returned as
    /// a response.
    async fn get(
        &self,
        headers: HeaderMap,
        url: Url,
        header: Option<(HeaderName, &str)>,
        last: Option<&Validators>,
    ) -> Result<Fetched, UpstreamError> {
        let response = self.follow(headers.clone(), url.clone(), header.clone(), last).await?;
        if last.is_some() && response.status() == StatusCode::OK {
            metrics().revalidations.count("changed");
        }
        match last.filter(|_| response.status() == StatusCode::NOT_MODIFIED) {
            None => Ok(Fetched::Response(response)),
            Some(last) if last.are_confirmed_by(response.headers()) => {
                metrics().revalidations.count("unchanged");
                Ok(Fetched::NotModified(last.renewed(response.headers())))
            }
            Some(_) => self.follow(headers, url, header, None).await.map(Fetched::Response),
        }
    }

    /// Sends a GET and follows redirects within the upstream's origin. A token is never sent to another host.
    async fn follow(
        &self,
        headers: HeaderMap,
        mut url: Url,
        header: Option<(HeaderName, &str)>,
        last: Option<&Validators>,
    ) -> Result<Response, UpstreamError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request = api_request(&self.0.reads, Method::GET, headers.clone(), url.clone());
            if let Some((name, value)) = &header {
                request = request.header(name, *value);
            }
            if let Some(last) = last {
                request = last.apply_to(request);
            }
            let response = self.0.reads.send(request).await.map_err(send_error)?;
            match redirect::target(response.status(), response.headers(), &url) {
                Some(target) => url = target,
                None => return Ok(response),
            }
        }
        Err(UpstreamError::Invalid("it redirects too often"))
    }

    /// Sends `call` with the caller's token, or with the gateway's own. After a 401 to a service token, `call` is sent
    /// once more with a renewed token. That is safe for changes too, since a 401 means that nothing was done. Each
    /// attempt has its own timeout, which excludes the wait for a token.
    async fn authorised<T, F>(
        &self,
        caller: &Caller,
        call: impl Fn(HeaderMap) -> F,
    ) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let authorisation = Authorisation::of(caller, self.0.service.as_ref()).await?;
        let call = async |bearer| {
            let call = call(self.headers(caller, bearer));
            timeout(self.0.timeout, call).await.unwrap_or(Err(UpstreamError::AttemptTimeout))
        };
        let outcome = call(authorisation.bearer()).await;
        if !matches!(outcome, Err(UpstreamError::Unauthenticated)) {
            return outcome;
        }
        let Some(renewed) = authorisation.renewed().await else { return Err(authorisation.rejected()) };
        match call(renewed.bearer()).await {
            Err(UpstreamError::Unauthenticated) => Err(renewed.rejected()),
            outcome => outcome,
        }
    }

    /// Reads the body up to `upstream.max_response`.
    async fn body(&self, response: Response) -> Result<Vec<u8>, UpstreamError> {
        body::read(response, self.0.max_response).await.map_err(|error| match error {
            BodyError::TooLarge => UpstreamError::TooLarge,
            BodyError::Encoding => UpstreamError::Invalid("it is not encoded as its Content-Encoding states"),
            BodyError::Broken(error) => transport_error(error),
        })
    }
}

/// The result of a GET.
enum Fetched {
    Response(Response),
    /// The last response is still current, with these validators.
    NotModified(Validators),
}

impl<T> From<Validators> for ReadResponse<T> {
    fn from(validators: Validators) -> Self {
        let directives = validators.directives();
        // A 304 can forbid storing, too.
        let validators = (!directives.forbids_storage()).then_some(validators);
        Self { value: None, validators, directives }
    }
}

fn api_request(connections: &Connections, method: Method, headers: HeaderMap, url: Url) -> RequestBuilder {
    connections.request(method, url).headers(headers)
}

fn page_item(item: wire::ListItem) -> PageItem {
    PageItem { appointment: Arc::new(item.appointment), is_complete: item.is_complete }
}

/// Appends `segments` to the path of `url`.
fn with_segments(url: &Url, segments: &[&str]) -> Url {
    let mut url = url.clone();
    // `Config` rejects URLs that cannot be a base.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// The meaning of a status that is an error for every call.
fn status_error(response: &Response) -> UpstreamError {
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

/// The error of a request without a response.
fn send_error(error: reqwest::Error) -> UpstreamError {
    if is_unprocessed(&error) {
        return UpstreamError::Unprocessed(causes(&error.without_url()).into());
    }
    transport_error(error)
}

fn transport_error(error: reqwest::Error) -> UpstreamError {
    // Nothing is sent without a connection.
    let is_connect = error.is_connect();
    if is_exhausted(&error) {
        return UpstreamError::Exhausted { is_sent: !is_connect };
    }
    let causes = causes(&error.without_url()).into();
    if is_connect { UpstreamError::Unreachable(causes) } else { UpstreamError::Broken(causes) }
}
