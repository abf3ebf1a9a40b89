//! The router, and the checks of every request in their order: request id, content negotiation, unread body, form of a
//! refusal, security headers, CORS, panic isolation, header limits and `Host`; then the GraphQL endpoint or one of the
//! other routes.

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
    gateway::{Gateway, Request, RequestContext},
    graphiql,
    graphql::{self, accept, client_cache, status::ResponseForm},
    header_limits, health, host, metrics,
    refusal::Refusal,
    request_id::{self, AccessLogEntry, RequestId, SpanStart},
    security_headers, unread_body,
};
use crate::{config::http::ClientCache, error::ApiError};

/// The service behind each connection: responds to every request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    gateway: Arc<Gateway>,
    /// Whether the GraphQL endpoint is served. It bypasses `routes`, since axum's router boxes and clones per request.
    has_graphql: bool,
    routes: Router,
    cors: Option<CorsLayer>,
}

impl Service {
    /// All routes at `listen`.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let mut routes = health_routes();
        if gateway.serves_metrics {
            routes = routes.route("/metrics", get(metrics::metrics_text));
        }
        if gateway.graphiql.is_some() {
            routes = routes
                .route("/", get(graphiql::page))
                .route("/graphiql.json", get(graphiql::settings))
                .route("/assets/{name}", get(graphiql::asset))
                .route("/THIRD-PARTY-LICENSES.txt", get(graphiql::licences));
        }
        Self::with_routes(gateway, true, routes)
    }

    /// The routes at `admin.listen`: health checks and metrics.
    pub fn for_admin(gateway: Arc<Gateway>) -> Self {
        let routes = health_routes().route("/metrics", get(metrics::metrics_text));
        Self::with_routes(gateway, false, routes)
    }

    /// The only route at `metrics.listen`: the metrics.
    pub fn for_metrics(gateway: Arc<Gateway>) -> Self {
        Self::with_routes(gateway, false, Router::new().route("/metrics", get(metrics::metrics_text)))
    }

    fn with_routes(gateway: Arc<Gateway>, has_graphql: bool, routes: Router<Arc<Gateway>>) -> Self {
        let graphql = has_graphql.then(|| gateway.http.path.clone());
        let routes = routes
            .fallback(async move || Refusal::not_found(graphql.as_ref()))
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn(request_id::expose_route))
            .with_state(gateway.clone());
        let cors = cors::cors(&gateway.http);
        Self(Arc::new(Inner { gateway, has_graphql, routes, cors }))
    }

    /// Whether `path` is the GraphQL endpoint of this service, or a persisted document below it.
    fn is_graphql(&self, path: &str) -> bool {
        self.0.has_graphql && self.0.gateway.http.path.matches(path)
    }

    /// Responds to a request, which passes [`Self::apply_cors`], [`Self::catch_panic`] and [`Self::dispatch`] in this
    /// order.
    pub async fn respond(&self, request: http::Request<Incoming>) -> Response {
        let (head, mut body) = request.into_parts();
        let expects_continue = head.headers.contains_key(header::EXPECT);
        // Every request has an id and an access log entry, and counts in the metrics.
        let id = RequestId::from_headers(&head.headers);
        let path = self.0.has_graphql.then_some(&self.0.gateway.http.path);
        let log_entry = AccessLogEntry::start(&head, path.and_then(|path| path.route(head.uri.path())));
        let negotiation = accept::negotiate(&head.headers);
        let context = RequestContext { id: &id, body: &mut body, negotiation };
        let handled = self.apply_cors(Request::from_parts(head, context));
        let mut response = match id.span(SpanStart::Arrival) {
            Some(span) => Box::pin(handled).instrument(span).await,
            None => handled.await,
        };
        let limit = self.0.gateway.limits.body.as_u64() as usize;
        unread_body::discard_or_close(&mut response, body, expects_continue, limit).await;
        let edition = self.0.gateway.http.statuses;
        ResponseForm { media_type: negotiation.errors, edition }.apply_to(&mut response);
        security_headers::apply(&mut response);
        log_entry.finish(&response, &id);
        id.add_to(&mut response);
        response
    }

    /// Adds CORS headers for the configured origins, also to error responses.
    async fn apply_cors(&self, request: Request<'_>) -> Response {
        let Some(cors) = &self.0.cors else { return self.catch_panic(request).await };
        // The layer responds to preflights itself, before `dispatch` would check the head.
        if *request.method() == Method::OPTIONS
            && let Err(refusal) = self.check_head(&request)
        {
            return refusal.into_response();
        }
        let (head, context) = request.into_parts();
        let mut context = Some(context);
        let inner = service_fn(|request: http::Request<()>| {
            let request = context.take().map(|context| request.map(|()| context));
            async {
                match request {
                    Some(request) => Ok::<_, Infallible>(self.catch_panic(request).await),
                    // The layer calls its inner service once.
                    None => Ok(Refusal::from(ApiError::Internal).into_response()),
                }
            }
        });
        let Ok(mut response) = cors.layer(inner).oneshot(http::Request::from_parts(head, ())).await;
        cors::merge_vary(response.headers_mut());
        response
    }

    /// Responds to a panic with `INTERNAL`, so that it fails one request and not the process.
    async fn catch_panic(&self, request: Request<'_>) -> Response {
        let id = request.body().id;
        // The panic message may contain personal data, so it is dropped. The panic hook has logged the location (see
        // [`crate::logging`]), perhaps without the request's span, so this line has it.
        let refuse = |_| {
            let span = id.span(SpanStart::Execution).unwrap_or_else(Span::none);
            span.in_scope(|| tracing::error!("request handler panicked; responded with INTERNAL"));
            Refusal::from(ApiError::Internal).into_response()
        };
        AssertUnwindSafe(self.dispatch(request)).catch_unwind().await.unwrap_or_else(refuse)
    }

    fn check_head(&self, request: &Request<'_>) -> Result<(), Refusal> {
        header_limits::check(request, &self.0.gateway.limits)?;
        host::check(request)
    }

    /// Checks the head, and calls the handler.
    async fn dispatch(&self, request: Request<'_>) -> Response {
        let Inner { gateway, routes, .. } = &*self.0;
        if let Err(refusal) = self.check_head(&request) {
            return refusal.into_response();
        }
        if self.is_graphql(request.uri().path()) {
            let is_storable = gateway.http.client_cache != ClientCache::Off
                && graphql::handler::is_get_or_head(request.method());
            let mut response = graphql::handler::handle(gateway, request).await.into_response();
            if is_storable {
                response.headers_mut().insert(header::VARY, client_cache::VARY);
            }
            return response;
        }
        // The other routes read no body.
        let request = request.map(|_| Body::empty());
        // Boxed to keep the future of GraphQL requests small.
        let Ok(response) = Box::pin(routes.clone().oneshot(request)).await;
        response
    }
}

fn health_routes() -> Router<Arc<Gateway>> {
    Router::new().route("/livez", get(health::live)).route("/readyz", get(health::ready))
}

async fn method_not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed. Use GET or HEAD.")
        .with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD"))
}
