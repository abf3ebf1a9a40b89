//! GraphQL over server-sent events, as npm `graphql-sse` speaks it, in its "distinct connections" mode: one operation a
//! request, each answer an event of the response.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{IntoResponse as _, Response},
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tracing::Instrument as _;

use super::{accept::MediaType, run::answers};
use crate::{
    caller::Caller,
    error::ApiError,
    graceful_shutdown::ShutdownGuard,
    graphql::{api::Operation, execute::response::GraphqlResponse},
    http::{concurrency::Permit, gateway::Gateway},
};

/// The protocol's sign that no more is to come. The empty data line is for browsers, which pass over an event without.
const COMPLETE: &str = "event: complete\ndata:\n\n";

/// A comment: no event, only a sign of life.
const SIGN_OF_LIFE: &str = ":\n\n";

/// Asks the proxies that know it (nginx) to pass events on as they come.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The header that goes with a reservation, in the protocol's other mode: one connection for many operations.
const RESERVATION: HeaderName = HeaderName::from_static("x-graphql-event-stream-token");

/// Whether a request belongs to that mode.
pub(crate) fn is_single_connection(headers: &HeaderMap) -> bool {
    headers.contains_key(RESERVATION)
}

/// What is said of that mode.
pub(crate) const NO_SINGLE_CONNECTION: &str = "GraphQL over SSE is spoken here in its distinct connections mode: there is \
    nothing to reserve. Ask with GET or POST, one operation a request, without a reservation's token.";

/// One answer and the end: the protocol has even what could not be run told in an event.
pub(crate) fn of_one(gateway: &Gateway, answer: GraphqlResponse) -> Response {
    respond(Body::from([&next(gateway, answer), COMPLETE.as_bytes()].concat()))
}

/// The answers of `operation`, which has its `permit`, as they come, until the last or until the gateway ends.
pub(crate) fn of(
    gateway: &Arc<Gateway>,
    operation: Operation,
    caller: Result<Caller, ApiError>,
    deadline: Instant,
    permit: Permit,
) -> Response {
    let events = Events {
        permit: Some(permit),
        // What has one answer is waited for, as any request is.
        open: operation.is_subscription().then(|| gateway.drain.open()),
        answers: Box::pin(answers(gateway, operation, caller, deadline)),
        gateway: gateway.clone(),
        unsent: None,
    };
    // The answers are asked for when the request has been answered: what is logged then is still of the request.
    let span = tracing::Span::current();
    let chunks = stream::unfold(Some(events), move |events| {
        async move {
            let mut events = events?;
            match events.chunk().await {
                Some(chunk) => Some((chunk, Some(events))),
                None => Some((COMPLETE.into(), None)),
            }
        }
        .instrument(span.clone())
    });
    respond(Body::from_stream(chunks.map(Ok::<_, Infallible>)))
}

struct Events {
    /// Among subscriptions for as long as it is open; among operations until there is the answer, however slowly that
    /// is then read.
    permit: Option<Permit>,
    answers: Pin<Box<dyn Stream<Item = GraphqlResponse> + Send>>,
    open: Option<ShutdownGuard>,
    gateway: Arc<Gateway>,
    /// The end of the wait for the connection to have written the event before.
    unsent: Option<oneshot::Receiver<Infallible>>,
}

/// An event, and the sender that is dropped with it.
struct Event {
    text: Bytes,
    _sent: oneshot::Sender<Infallible>,
}

impl AsRef<[u8]> for Event {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Events {
    /// What is sent next; none where nothing more is to come. It is asked for when the event before has been written, so
    /// that a slow reader has no queue, and each event has `http.send_timeout` for itself.
    async fn chunk(&mut self) -> Option<Bytes> {
        let Self { open, answers, unsent, .. } = self;
        let told_to_end = async {
            match open {
                Some(open) => open.told_to_end().await,
                None => std::future::pending().await,
            }
        };
        let answer = async {
            if let Some(event) = unsent {
                // Nothing is sent over it: it ends with the event.
                let _ = event.await;
                *unsent = None;
            }
            timeout(self.gateway.keep_alive, answers.next()).await
        };
        tokio::select! {
            biased;
            () = told_to_end => None,
            answer = answer => match answer {
                Ok(answer) => {
                    self.permit = self.permit.take().filter(|_| self.open.is_some());
                    answer.map(|answer| self.event(answer))
                }
                Err(_) => Some(SIGN_OF_LIFE.into()),
            },
        }
    }

    fn event(&mut self, answer: GraphqlResponse) -> Bytes {
        let (sent, unsent) = oneshot::channel();
        self.unsent = Some(unsent);
        Bytes::from_owner(Event { text: next(&self.gateway, answer), _sent: sent })
    }
}

/// The event of an answer. JSON as it is written here has no line breaks, so it is one line of data.
fn next(gateway: &Gateway, answer: GraphqlResponse) -> Bytes {
    gateway.api.encode_between(b"event: next\ndata: ", answer, b"\n\n")
}

fn respond(body: Body) -> Response {
    let is_not_buffered = [(X_ACCEL_BUFFERING, HeaderValue::from_static("no"))];
    (answer_headers(MediaType::EventStream), is_not_buffered, body).into_response()
}

fn answer_headers(media_type: MediaType) -> HeaderMap {
    HeaderMap::from_iter([(
        axum::http::header::CONTENT_TYPE,
        HeaderValue::from_static(media_type.content_type()),
    )])
}
