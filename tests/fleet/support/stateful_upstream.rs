//! An upstream that remembers changes, so that a response shows how old its data is.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{CREATED, Call, Upstream, UpstreamResponse, whole};

/// The status of an appointment that nobody has changed.
pub const UNCHANGED: &str = "unchanged";

/// An upstream with every appointment. Each has the status of its last change, and an entity tag that goes with it. The list
/// shows the changed ones.
pub struct StatefulUpstream {
    upstream: Upstream,
    state: State,
}

/// The present statuses. Cheap to clone.
#[derive(Clone, Default)]
pub struct State(Arc<Mutex<BTreeMap<String, String>>>);

impl StatefulUpstream {
    pub async fn start() -> Self {
        Self::with(|_| None).await
    }

    /// An upstream that responds to some calls as `script` says. Then no change is made.
    pub async fn with(script: impl Fn(&Call) -> Option<UpstreamResponse> + Send + Sync + 'static) -> Self {
        let state = State::default();
        let upstream = Upstream::answering({
            let state = state.clone();
            move |call| script(call).unwrap_or_else(|| state.answer(call))
        });
        Self { upstream: upstream.await, state }
    }

    /// Changes an appointment behind the gateways' backs.
    pub fn set(&self, id: &str, status: &str) {
        self.state.set(id, status);
    }

    /// The state, for scripts.
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// The number of reads so far: of appointments and of the list.
    pub fn gets(&self) -> usize {
        self.count(|call| !call.is_change())
    }

    /// The number of reads of an appointment so far.
    pub fn gets_for(&self, id: &str) -> usize {
        self.count(|call| !call.is_change() && call.id == id)
    }

    /// The number of changes so far.
    pub fn changes(&self) -> usize {
        self.count(Call::is_change)
    }

    /// The number of calls that satisfy a condition so far.
    pub fn count(&self, condition: impl Fn(&Call) -> bool) -> usize {
        self.seen(|seen| seen.calls.iter().filter(|call| condition(call)).count())
    }
}

impl Deref for StatefulUpstream {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.upstream
    }
}

impl State {
    pub fn get(&self, id: &str) -> String {
        self.0.lock().unwrap().get(id).cloned().unwrap_or_else(|| UNCHANGED.to_owned())
    }

    pub fn set(&self, id: &str, status: &str) {
        self.0.lock().unwrap().insert(id.to_owned(), status.to_owned());
    }

    /// The response to a read or a change, which is made.
    pub fn answer(&self, call: &Call) -> UpstreamResponse {
        match (call.is_change(), call.id.as_str()) {
            (false, "appointments") => self.list(call),
            (false, id) => self.appointment(call, id),
            (true, "appointments") => {
                self.set(CREATED, "created");
                UpstreamResponse::json(201, &self.body(call, CREATED))
            }
            (true, "cancel") => {
                let id = call.path.split('/').nth(4).unwrap_or_default();
                self.set(id, "cancelled");
                UpstreamResponse::json(200, &self.body(call, id))
            }
            (true, id) => {
                self.set(id, call.json()["status"].as_str().unwrap_or("updated"));
                UpstreamResponse::json(200, &self.body(call, id))
            }
        }
    }

    fn body(&self, call: &Call, id: &str) -> Value {
        json!({ "data": { "id": id, "reference": call.token(), "status": self.get(id) } })
    }

    /// The appointment, or 304 if the caller has its present state.
    pub fn appointment(&self, call: &Call, id: &str) -> UpstreamResponse {
        let body = self.body(call, id);
        let tag = format!("\"{}-{}\"", call.token(), self.get(id));
        let is_known = call.header("if-none-match") == Some(tag.as_str());
        let response =
            if is_known { UpstreamResponse::not_modified() } else { UpstreamResponse::json(200, &body) };
        response.with("ETag", &tag)
    }

    fn list(&self, call: &Call) -> UpstreamResponse {
        let statuses = self.0.lock().unwrap();
        let items = statuses
            .iter()
            .map(|(id, status)| whole(json!({ "id": id, "reference": call.token(), "status": status })));
        let items = items.collect::<Vec<_>>();
        let meta = json!({ "current_page": 1, "last_page": 1, "per_page": 100, "total": items.len() });
        UpstreamResponse::json(200, &json!({ "data": items, "meta": meta }))
    }
}
