//! Queries for appointments, and their responses.

use serde_json::{Value, json};

use super::{Gateway, GatewayResponse};

impl Gateway {
    /// Requests one appointment as `token`.
    pub async fn appointment(&self, token: &str, id: &str) -> GatewayResponse {
        let query = "query ($id: UUID!) { appointment(id: $id) { id reference status } }";
        self.query_with(Some(token), query, json!({ "id": id })).await
    }

    /// Requests several appointments as `token`.
    pub async fn appointments(&self, token: &str, ids: &[String]) -> GatewayResponse {
        let query = "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id reference status } }";
        self.query_with(Some(token), query, json!({ "ids": ids })).await
    }

    /// Requests a window of the list as `token`; `variables` may hold `first` and `after`.
    pub async fn list(&self, token: &str, variables: Value) -> GatewayResponse {
        let query = "query ($first: Int, $after: String) { appointments(first: $first, after: $after) {
            edges { cursor node { id reference status } } nodes { id }
            pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount
        } }";
        self.query_with(Some(token), query, variables).await
    }
}

impl GatewayResponse {
    /// The appointment in a response without errors.
    #[track_caller]
    pub fn appointment(&self) -> &Value {
        assert_eq!(self.body.get("errors"), None);
        &self.body["data"]["appointment"]
    }

    /// The connection in a response without errors.
    #[track_caller]
    pub fn list(&self) -> &Value {
        assert_eq!(self.body.get("errors"), None);
        &self.body["data"]["appointments"]
    }

    /// Path and code of every error, sorted by path.
    pub fn paths_and_codes(&self) -> Vec<(String, &str)> {
        let errors = self.body["errors"].as_array().map_or(&[][..], Vec::as_slice);
        let mut faults =
            errors.iter().map(|error| error["path"].to_string()).zip(self.codes()).collect::<Vec<_>>();
        faults.sort();
        faults
    }
}
