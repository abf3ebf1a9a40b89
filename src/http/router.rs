//! The router: every request passes it on the way to its handler.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{self, HeaderValue, Method, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::CorsLayer;
use tracing::{Instrument as _, Span};

use super::{
    cors,
    gateway::{Gateway, Lent, Request},
    graphiql, graphql, header_limits, health, metrics,
    paths::GRAPHQL,
    refusal::Refusal,
    request_id::{self, Answering, RequestId, Since},
    security_headers, unread_body,
};
use crate::error::ApiError;

/// ResponseCache whatever is asked over a connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    gateway: Arc<Gateway>,
    /// Whether GraphQL is served. It is none of the routes, since it is to be fast: a router boxes and clones what it
    /// hands on.
    has_graphql: bool,
    routes: Router,
    cors: Option<CorsLayer>,
}

impl Service {
    /// All that is served at `listen`.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let mut routes =
            Router::new().route("/livez", get(health::live)).route("/readyz", get(health::ready));
        if gateway.serves_metrics {
            routes = routes.route("/metrics", get(metrics::show));
        }
        if gateway.graphiql.is_some() {
            routes = routes
                .route("/", get(graphiql::page))
                .route("/graphiql.json", get(graphiql::settings))
                .route("/assets/{name}", get(graphiql::asset))
                .route("/THIRD-PARTY-LICENSES.txt", get(graphiql::licences));
        }
        Self::of(gateway, true, routes)
    }

    /// What is served at `metrics.listen`: the metrics and nothing else.
    pub fn of_metrics(gateway: Arc<Gateway>) -> Self {
        Self::of(gateway, false, Router::new().route("/metrics", get(metrics::show)))
    }

    fn of(gateway: Arc<Gateway>, has_graphql: bool, routes: Router<Arc<Gateway>>) -> Self {
        let routes = routes
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn(request_id::routed))
            .with_state(gateway.clone());
        let cors = cors::cors(&gateway.http.origins);
        Self(Arc::new(Inner { gateway, has_graphql, routes, cors }))
    }

    /// Whether it is GraphQL that answers what is asked at `path`.
    fn is_graphql(&self, path: &str) -> bool {
        self.0.has_graphql && path == GRAPHQL
    }

    /// The answer to a request, whatever comes of it. On its way it passes [`Self::cross_origin`], [`Self::unbroken`]
    /// and [`Self::bounded`], in this order.
    pub async fn answer(&self, request: http::Request<Incoming>) -> Response {
        let (head, mut body) = request.into_parts();
        let waits = head.headers.contains_key(header::EXPECT);
        // Everything has a name to be asked about by, in the answer and in the log, and is counted.
        let id = RequestId::of(&head.headers);
        let answering = Answering::begin(&head, self.is_graphql(head.uri.path()));
        let lent = Lent { id: &id, body: &mut body };
        let answered = self.cross_origin(Request::from_parts(head, lent));
        let mut response = match id.span(Since::Beginning) {
            Some(span) => Box::pin(answered).instrument(span).await,
            None => answered.await,
        };
        // A client is told when its connection has had its day.
        unread_body::announce(&mut response, body, waits).await;
        // No browser makes of an answer what it is not.
        security_headers::make_safe(&mut response);
        answering.end(&response, &id);
        id.assign(&mut response);
        response
    }

    /// Has pages of other sites read the answer where they may, also if it says why they were refused.
    async fn cross_origin(&self, request: Request<'_>) -> Response {
        let Some(cors) = &self.0.cors else { return self.unbroken(request).await };
        // The layer answers preflights by itself.
        if *request.method() == Method::OPTIONS
            && let Err(refusal) = header_limits::check(&request, &self.0.gateway.limits)
        {
            return refusal.into_response();
        }
        let (head, lent) = request.into_parts();
        let mut lent = Some(lent);
        let inner = service_fn(|request: http::Request<()>| {
            let request = lent.take().map(|lent| request.map(|()| lent));
            async {
                match request {
                    Some(request) => Ok::<_, Infallible>(self.unbroken(request).await),
                    // A layer asks once.
                    None => Ok(Refusal::from(ApiError::Internal).into_response()),
                }
            }
        });
        let Ok(response) = cors.layer(inner).oneshot(http::Request::from_parts(head, ())).await;
        response
    }

    /// ResponseCache a panic with `INTERNAL`: a fault of ours is one request's, not the process's.
    async fn unbroken(&self, request: Request<'_>) -> Response {
        let id = request.body().id;
        // The panic's text may hold anything, so nobody gets to see it; where it happened is in the log (see
        // [`crate::logging`]). If the request had no span there, it has one here.
        let refuse = |_| {
            let span = id.span(Since::CarryingOut).unwrap_or_else(Span::none);
            span.in_scope(|| tracing::error!("panicked; answered with INTERNAL"));
            Refusal::from(ApiError::Internal).into_response()
        };
        AssertUnwindSafe(self.bounded(request)).catch_unwind().await.unwrap_or_else(refuse)
    }

    /// Refuses a request whose head is too large to be looked at closely, and hands any other on to what it asks for.
    async fn bounded(&self, request: Request<'_>) -> Response {
        let Inner { gateway, routes, .. } = &*self.0;
        if let Err(refusal) = header_limits::check(&request, &gateway.limits) {
            return refusal.into_response();
        }
        if self.is_graphql(request.uri().path()) {
            return graphql::handler::serve(gateway, request).await.into_response();
        }
        // What is there to be read takes no body.
        let request = request.map(|_| Body::empty());
        // Boxed, since every request would carry the room that this takes, and hardly any needs it.
        let Ok(response) = Box::pin(routes.clone().oneshot(request)).await;
        response
    }
}

async fn not_found() -> Refusal {
    Refusal::nothing_here()
}

async fn method_not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "This is read with GET.")
        .with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD"))
}
