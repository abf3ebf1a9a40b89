//! The stub of the upstream: it knows an appointment for every id, and counts what it is asked for.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    service::service_fn,
};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    Result,
    client::Client,
    ids::{self, SLOW},
    serving,
};

/// What the upstream sends for an id, in full: the shape of the API with made-up data.
const APPOINTMENT: &str = include_str!("data/appointment.json");

/// Where it says how many appointments it was asked for.
const CALLS: &str = "/calls";

/// How long it takes for the ids from [`SLOW`] on: long enough for many to ask for one while it is under way.
const SLOWLY: Duration = Duration::from_millis(50);

/// Serves. It never returns.
pub fn serve() {
    let appointment: Value =
        serde_json::from_str(APPOINTMENT).expect("JSON, since it is part of this program");
    let pieces: Arc<[String]> = appointment.to_string().split("{id}").map(str::to_owned).collect();
    let calls = Arc::<AtomicUsize>::default();
    serving::run(move |connection| {
        let (pieces, calls) = (pieces.clone(), calls.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (pieces, calls) = (pieces.clone(), calls.clone());
            async move { Ok::<_, Infallible>(answer(request.uri().path(), &pieces, &calls).await) }
        });
        serving::converse(connection, service)
    });
}

async fn answer(path: &str, pieces: &[String], calls: &AtomicUsize) -> Response<Full<Bytes>> {
    let Some(id) = path.strip_prefix("/api/v1/appointments/") else {
        let is_known = path == CALLS;
        let body = if is_known { calls.load(Ordering::Relaxed).to_string() } else { String::new() };
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = if is_known { StatusCode::OK } else { StatusCode::NOT_FOUND };
        return response;
    };
    calls.fetch_add(1, Ordering::Relaxed);
    if ids::number(id).is_some_and(|number| number >= SLOW) {
        sleep(SLOWLY).await;
    }
    let mut response = Response::new(Full::new(pieces.join(id).into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// How many appointments the stub at the other end of `client` was asked for so far.
pub fn calls(client: &mut Client) -> Result<usize> {
    let answer = client.ask(format!("GET {CALLS} HTTP/1.1\r\nHost: upstream\r\n\r\n").as_bytes())?;
    Ok(String::from_utf8(answer.body)?.parse()?)
}
