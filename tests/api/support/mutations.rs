//! Mutations, and the upstream's responses to them.

use serde_json::{Value, json};

use super::{Call, Gateway, GatewayResponse, UpstreamResponse, id};

/// The selection of every mutation.
const PAYLOAD: &str = "{ appointment { id reference status } userErrors { field message } }";

/// The document and the variables of a creation.
pub fn creation(input: Value) -> (String, Value) {
    let query = format!(
        "mutation ($input: CreateAppointmentInput!) {{ createAppointment(input: $input) {PAYLOAD} }}"
    );
    (query, json!({ "input": input }))
}

/// The document and the variables of an update.
pub fn update(id: &str, input: Value) -> (String, Value) {
    let query = format!(
        "mutation ($id: UUID!, $input: UpdateAppointmentInput!) {{
            updateAppointment(id: $id, input: $input) {PAYLOAD}
        }}"
    );
    (query, json!({ "id": id, "input": input }))
}

fn cancellation(id: &str) -> (String, Value) {
    (format!("mutation ($id: UUID!) {{ cancelAppointment(id: $id) {PAYLOAD} }}"), json!({ "id": id }))
}

impl Gateway {
    /// Creates an appointment as `token`.
    pub async fn create(&self, token: &str, input: Value) -> GatewayResponse {
        let (query, variables) = creation(input);
        self.query_with(Some(token), &query, variables).await
    }

    /// Updates an appointment as `token`.
    pub async fn update(&self, token: &str, id: &str, input: Value) -> GatewayResponse {
        let (query, variables) = update(id, input);
        self.query_with(Some(token), &query, variables).await
    }

    /// Cancels an appointment as `token`.
    pub async fn cancel(&self, token: &str, id: &str) -> GatewayResponse {
        let (query, variables) = cancellation(id);
        self.query_with(Some(token), &query, variables).await
    }
}

/// A kind of change, each of which can be made with fixed values.
#[derive(Debug, Clone, Copy)]
pub enum ChangeKind {
    Create,
    Update,
    Cancel,
}

/// The time of the appointments that [`ChangeKind::Create`] creates.
pub const APPOINTMENT_AT: &str = "2031-03-01T09:00:00Z";

impl ChangeKind {
    pub const EACH: [Self; 3] = [Self::Create, Self::Update, Self::Cancel];

    /// The field of `Mutation`.
    pub fn field(self) -> &'static str {
        match self {
            Self::Create => "createAppointment",
            Self::Update => "updateAppointment",
            Self::Cancel => "cancelAppointment",
        }
    }

    /// The document and the variables; updates and cancellations are of `id(1)`.
    pub fn operation(self) -> (String, Value) {
        match self {
            Self::Create => creation(json!({ "appointmentAt": APPOINTMENT_AT })),
            Self::Update => update(&id(1), json!({ "status": "waiting" })),
            Self::Cancel => cancellation(&id(1)),
        }
    }

    /// Sends a change of this kind as `token`.
    pub async fn make(self, gateway: &Gateway) -> GatewayResponse {
        let (query, variables) = self.operation();
        gateway.query_with(Some("token"), &query, variables).await
    }
}

impl GatewayResponse {
    /// The payload of a mutation without errors.
    #[track_caller]
    pub fn payload(&self) -> &Value {
        assert_eq!(self.body.get("errors"), None);
        self.body["data"].as_object().and_then(|data| data.values().next()).expect("a payload")
    }

    /// The appointment after a successful mutation.
    #[track_caller]
    pub fn changed(&self) -> &Value {
        let payload = self.payload();
        assert_eq!(payload["userErrors"], json!([]));
        &payload["appointment"]
    }
}

impl Call {
    /// Whether the call is a change rather than a read.
    pub fn is_change(&self) -> bool {
        self.method != "GET"
    }

    /// The response to a change: the appointment with the status that was sent, or one that names the change.
    pub fn changed(&self) -> UpstreamResponse {
        let id = self.path.split('/').nth(4).unwrap_or(CREATED);
        let status = match (self.id.as_str(), self.json()["status"].as_str()) {
            ("cancel", _) => "cancelled".to_owned(),
            ("appointments", _) => "created".to_owned(),
            (_, Some(status)) => status.to_owned(),
            (_, None) => "updated".to_owned(),
        };
        UpstreamResponse::json(
            200,
            &json!({ "data": { "id": id, "reference": self.token(), "status": status } }),
        )
    }
}

/// The id of every created appointment.
pub const CREATED: &str = "0000c4ea-0000-4000-8000-00000000cafe";
