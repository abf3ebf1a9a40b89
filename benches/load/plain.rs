//! The plain server: async-graphql, axum, reqwest and moka, composed as their documentation suggests, with the
//! gateway's types and none of its features. It shows the effect of the gateway's own code on the same libraries.
//!
//! Its cache has neither single flight nor stale entries, and it has no limits, metrics or logs.

mod appointment;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_graphql::{Context, EmptyMutation, EmptySubscription, Error, Object, Schema};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, header::AUTHORIZATION},
    routing::post,
    serve::ListenerExt as _,
};
use futures_util::future::try_join_all;
use moka::sync::Cache;
use serde::Deserialize;

use self::appointment::{Appointment, AppointmentId};
use crate::{Result, serving};

/// The capacity and the TTL of its cache.
const CACHE_ENTRIES: u64 = 30_000;
const TTL: Duration = Duration::from_secs(30);

type PlainSchema = Schema<Query, EmptyMutation, EmptySubscription>;

/// Serves appointments of `upstream`. Never returns.
pub fn serve(upstream: SocketAddr) -> Result<()> {
    // reqwest needs a provider even for plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let loader = Loader {
        client: reqwest::Client::builder().no_proxy().build()?,
        url: format!("http://{upstream}/api/v1/appointments"),
        cache: Cache::builder().max_capacity(CACHE_ENTRIES).time_to_live(TTL).build(),
    };
    let schema = Schema::build(Query, EmptyMutation, EmptySubscription).data(loader).finish();
    let router = Router::new().route("/graphql", post(graphql)).with_state(schema);
    serving::run(async {
        let listener = serving::listen().await.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        axum::serve(listener, router).await.expect("a server without an end");
    });
    Ok(())
}

async fn graphql(
    State(schema): State<PlainSchema>,
    headers: HeaderMap,
    Json(request): Json<async_graphql::Request>,
) -> Json<async_graphql::Response> {
    let token = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok()?.strip_prefix("Bearer "));
    let token = Token(token.unwrap_or_default().to_owned());
    Json(schema.execute(request.data(token)).await)
}

/// The caller's bearer token.
struct Token(String);

struct Query;

#[Object]
impl Query {
    async fn appointment(
        &self,
        context: &Context<'_>,
        id: AppointmentId,
    ) -> async_graphql::Result<Arc<Appointment>> {
        load(context, id).await
    }

    async fn appointments_by_ids(
        &self,
        context: &Context<'_>,
        ids: Vec<AppointmentId>,
    ) -> async_graphql::Result<Vec<Arc<Appointment>>> {
        try_join_all(ids.into_iter().map(|id| load(context, id))).await
    }
}

async fn load(context: &Context<'_>, id: AppointmentId) -> async_graphql::Result<Arc<Appointment>> {
    let (loader, Token(token)) = (context.data::<Loader>()?, context.data::<Token>()?);
    loader.load(token, id).await.map_err(|error| Error::new(error.to_string()))
}

/// A read-through cache in front of the upstream, by token and id.
struct Loader {
    client: reqwest::Client,
    url: String,
    cache: Cache<(String, AppointmentId), Arc<Appointment>>,
}

/// The envelope of the upstream's JSON.
#[derive(Deserialize)]
struct Envelope {
    data: Appointment,
}

impl Loader {
    async fn load(
        &self,
        token: &str,
        id: AppointmentId,
    ) -> Result<Arc<Appointment>, Box<dyn std::error::Error + Send + Sync>> {
        let key = (token.to_owned(), id);
        if let Some(appointment) = self.cache.get(&key) {
            return Ok(appointment);
        }
        let request = self.client.get(format!("{}/{}", self.url, id.0)).bearer_auth(token);
        let body = request.send().await?.error_for_status()?.bytes().await?;
        let Envelope { data } = serde_json::from_slice(&body)?;
        let appointment = Arc::new(data);
        self.cache.insert(key, appointment.clone());
        Ok(appointment)
    }
}
