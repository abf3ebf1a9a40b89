//! An appointment's status in the upstream, which a test changes behind the gateway's back.

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::{Call, UpstreamResponse};

/// The status that the upstream reports for every appointment.
#[derive(Clone)]
pub struct UpstreamState(Arc<Mutex<String>>);

impl UpstreamState {
    pub fn of(status: &str) -> Self {
        Self(Arc::new(Mutex::new(status.to_owned())))
    }

    pub fn set(&self, status: &str) {
        status.clone_into(&mut self.0.lock().unwrap());
    }

    pub fn get(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// The requested appointment in the current state.
    pub fn answer(&self, call: &Call) -> UpstreamResponse {
        UpstreamResponse::json(
            200,
            &json!({ "data": { "id": call.id, "reference": call.token(), "status": self.get() } }),
        )
    }
}
