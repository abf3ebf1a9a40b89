//! The upstream stub: it has an appointment for every id, and counts the requests.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use appointments_gateway::sandbox::SAMPLE;
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
    queries::SAMPLE_ID,
    serving,
};

/// The path that returns the number of requested appointments.
const CALLS: &str = "/calls";

/// The delay for ids from [`SLOW`] on: long enough for many concurrent requests.
const DELAY: Duration = Duration::from_millis(50);

/// Serves appointments. Never returns.
pub fn serve() {
    let sample: Value = serde_json::from_str(SAMPLE).expect("valid JSON in this program");
    let pieces: Arc<[String]> = sample.to_string().split(SAMPLE_ID).map(str::to_owned).collect();
    let calls = Arc::<AtomicUsize>::default();
    serving::serve(move |connection| {
        let (pieces, calls) = (pieces.clone(), calls.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (pieces, calls) = (pieces.clone(), calls.clone());
            async move { Ok::<_, Infallible>(respond(request.uri().path(), &pieces, &calls).await) }
        });
        serving::serve_connection(connection, service)
    });
}

async fn respond(path: &str, pieces: &[String], calls: &AtomicUsize) -> Response<Full<Bytes>> {
    let Some(id) = path.strip_prefix("/api/v1/appointments/") else {
        let is_known = path == CALLS;
        let body = if is_known { calls.load(Ordering::Relaxed).to_string() } else { String::new() };
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = if is_known { StatusCode::OK } else { StatusCode::NOT_FOUND };
        return response;
    };
    calls.fetch_add(1, Ordering::Relaxed);
    if ids::number(id).is_some_and(|number| number >= SLOW) {
        sleep(DELAY).await;
    }
    let mut response = Response::new(Full::new(pieces.join(id).into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns the number of appointments that were requested so far from the stub behind `client`.
pub fn calls(client: &mut Client) -> Result<usize> {
    let response = client.send(format!("GET {CALLS} HTTP/1.1\r\nHost: upstream\r\n\r\n").as_bytes())?;
    Ok(String::from_utf8(response.body)?.parse()?)
}
