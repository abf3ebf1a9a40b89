//! GraphQL over server-sent events: the protocol of npm `graphql-sse` in its "distinct connections" mode, with one
//! operation per request and each GraphQL response as an event.
//!
//! Events are framed here rather than with axum's `Sse`. axum would copy each event into a buffer of its own, so the
//! [response memory](crate::response_memory) of the original would be freed before the client has read the copy. The
//! next event must also wait until the previous one has been written, which takes an owner that is dropped with its
//! bytes.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{sync::oneshot, time::timeout};
use tracing::Instrument as _;

use super::{accept::MediaType, run::responses};
use crate::{
    graceful_shutdown::ShutdownGuard,
    graphql::{
        api::Operation,
        execute::{response::GraphqlResponse, run::Access},
    },
    http::{concurrency::Permit, gateway::Gateway},
};

/// The last event of every stream. Browsers ignore events without a data line, so it has an empty one.
const COMPLETE: &str = "event: complete\ndata:\n\n";

/// The keep-alive: a comment, which clients ignore.
const KEEP_ALIVE: &str = ":\n\n";

/// Disables response buffering in proxies such as nginx.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The header of the protocol's "single connection" mode, which multiplexes operations on a reserved stream.
const STREAM_TOKEN: HeaderName = HeaderName::from_static("x-graphql-event-stream-token");

/// Whether a request uses the "single connection" mode.
pub(crate) fn is_single_connection(headers: &HeaderMap) -> bool {
    headers.contains_key(STREAM_TOKEN)
}

/// The error message for the "single connection" mode.
pub(crate) const NO_SINGLE_CONNECTION: &str = "The single connection mode of GraphQL over SSE is not supported. Use \
    the distinct connections mode: send each operation with GET or POST, without X-GraphQL-Event-Stream-Token.";

/// A stream with a single response. In this protocol, request errors are events too.
pub(crate) fn single_response(gateway: &Gateway, response: GraphqlResponse) -> Response {
    respond(Body::from([&next_event(gateway, response), COMPLETE.as_bytes()].concat()))
}

/// A stream of the responses of `operation`. A subscription also ends at shutdown. `permit` is the operation's slot of
/// its concurrency limit.
pub(crate) fn stream_response(
    gateway: &Arc<Gateway>,
    operation: Operation,
    access: Access,
    permit: Permit,
) -> Response {
    let events = Events {
        permit: Some(permit),
        // At shutdown, operations with a single response are completed, as any request is.
        shutdown: operation.is_subscription().then(|| gateway.shutdown.guard()),
        responses: Box::pin(responses(gateway, operation, access)),
        gateway: gateway.clone(),
        previous: None,
    };
    // The stream is polled after the handler has returned, but its log events belong to the request.
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
    /// A subscription holds it until the stream ends, any other operation until its response is there.
    permit: Option<Permit>,
    responses: Pin<Box<dyn Stream<Item = GraphqlResponse> + Send>>,
    shutdown: Option<ShutdownGuard>,
    gateway: Arc<Gateway>,
    /// Closes when the previous event has been written to the connection.
    previous: Option<oneshot::Receiver<Infallible>>,
}

/// The bytes of an event, with a sender that is dropped once they have been written.
struct Event {
    text: Bytes,
    _written: oneshot::Sender<Infallible>,
}

impl AsRef<[u8]> for Event {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Events {
    /// The next event or keep-alive, or none at the end of the stream. It waits until the previous event has been
    /// written: this is the back-pressure that keeps slow readers without a queue, and gives each event a full
    /// `http.send_timeout`.
    async fn chunk(&mut self) -> Option<Bytes> {
        let Self { shutdown, responses, previous, .. } = self;
        let shutdown = async {
            match shutdown {
                Some(guard) => guard.signalled().await,
                None => std::future::pending().await,
            }
        };
        let response = async {
            if let Some(event) = previous {
                // Nothing is ever sent: the channel closes when the event is dropped.
                let _ = event.await;
                *previous = None;
            }
            timeout(self.gateway.keep_alive, responses.next()).await
        };
        tokio::select! {
            biased;
            () = shutdown => None,
            response = response => match response {
                Ok(response) => {
                    self.permit = self.permit.take().filter(|_| self.shutdown.is_some());
                    response.map(|response| self.event(response))
                }
                Err(_) => Some(KEEP_ALIVE.into()),
            },
        }
    }

    fn event(&mut self, response: GraphqlResponse) -> Bytes {
        let (written, previous) = oneshot::channel();
        self.previous = Some(previous);
        Bytes::from_owner(Event { text: next_event(&self.gateway, response), _written: written })
    }
}

/// The `next` event of a response. Encoded JSON contains no line breaks, so it is a single data line.
fn next_event(gateway: &Gateway, response: GraphqlResponse) -> Bytes {
    gateway.api.encode_between(b"event: next\ndata: ", response, b"\n\n")
}

fn respond(body: Body) -> Response {
    let content_type =
        [(header::CONTENT_TYPE, HeaderValue::from_static(MediaType::EventStream.content_type()))];
    let unbuffered = [(X_ACCEL_BUFFERING, HeaderValue::from_static("no"))];
    (content_type, unbuffered, body).into_response()
}
