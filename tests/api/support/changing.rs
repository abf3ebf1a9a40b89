//! Changing appointments through the gateway.

use serde_json::{Value, json};

use super::{Answer, Call, Gateway, Reply};

/// What every change asks for.
const PAYLOAD: &str = "{ appointment { id reference status } userErrors { field message } }";

impl Gateway {
    /// Creates an appointment as `token`.
    pub async fn create(&self, token: &str, input: Value) -> Reply {
        let query = format!(
            "mutation ($input: CreateAppointmentInput!) {{ createAppointment(input: $input) {PAYLOAD} }}"
        );
        self.query_with(Some(token), &query, json!({ "input": input })).await
    }

    /// Changes an appointment as `token`.
    pub async fn update(&self, token: &str, id: &str, input: Value) -> Reply {
        let query = format!(
            "mutation ($id: UUID!, $input: UpdateAppointmentInput!) {{
                updateAppointment(id: $id, input: $input) {PAYLOAD}
            }}"
        );
        self.query_with(Some(token), &query, json!({ "id": id, "input": input })).await
    }

    /// Cancels an appointment as `token`.
    pub async fn cancel(&self, token: &str, id: &str) -> Reply {
        let query = format!("mutation ($id: UUID!) {{ cancelAppointment(id: $id) {PAYLOAD} }}");
        self.query_with(Some(token), &query, json!({ "id": id })).await
    }
}

impl Reply {
    /// What a change of any kind was answered with, if nothing went wrong.
    #[track_caller]
    pub fn payload(&self) -> &Value {
        assert_eq!(self.body.get("errors"), None);
        self.body["data"].as_object().and_then(|data| data.values().next()).expect("an answer")
    }

    /// The appointment as a change that was made left it.
    #[track_caller]
    pub fn changed(&self) -> &Value {
        let payload = self.payload();
        assert_eq!(payload["userErrors"], json!([]));
        &payload["appointment"]
    }
}

impl Call {
    /// Whether it is to change something.
    pub fn is_change(&self) -> bool {
        self.method != "GET"
    }

    /// The appointment as a change through [`Gateway::update`] and the like leaves it: with the status that was sent, or
    /// that tells what was done.
    pub fn changed(&self) -> Answer {
        let id = self.path.split('/').nth(4).unwrap_or(CREATED);
        let status = match (self.id.as_str(), self.json()["status"].as_str()) {
            ("cancel", _) => "cancelled".to_owned(),
            ("appointments", _) => "created".to_owned(),
            (_, Some(status)) => status.to_owned(),
            (_, None) => "updated".to_owned(),
        };
        Answer::json(200, &json!({ "data": { "id": id, "reference": self.token(), "status": status } }))
    }
}

/// The id of what is created.
pub const CREATED: &str = "0000c4ea-0000-4000-8000-00000000cafe";
