//! Asking the gateway for appointments, the three ways there are.

use serde_json::{Value, json};

use super::{Gateway, Reply};

impl Gateway {
    /// Asks for one appointment as `token`.
    pub async fn appointment(&self, token: &str, id: &str) -> Reply {
        let query = "query ($id: UUID!) { appointment(id: $id) { id reference status } }";
        self.query_with(Some(token), query, json!({ "id": id })).await
    }

    /// Asks for several as `token`.
    pub async fn appointments(&self, token: &str, ids: &[String]) -> Reply {
        let query = "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id reference status } }";
        self.query_with(Some(token), query, json!({ "ids": ids })).await
    }

    /// Asks for a window of the list as `token`; `variables` may hold `first` and `after`.
    pub async fn list(&self, token: &str, variables: Value) -> Reply {
        let query = "query ($first: Int, $after: String) { appointments(first: $first, after: $after) {
            edges { cursor node { id reference status } } nodes { id }
            pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount
        } }";
        self.query_with(Some(token), query, variables).await
    }
}

impl Reply {
    /// What `appointment` was answered with, if nothing went wrong.
    #[track_caller]
    pub fn appointment(&self) -> &Value {
        assert_eq!(self.body.get("errors"), None);
        &self.body["data"]["appointment"]
    }

    /// What `appointments` was answered with, if nothing went wrong.
    #[track_caller]
    pub fn list(&self) -> &Value {
        assert_eq!(self.body.get("errors"), None);
        &self.body["data"]["appointments"]
    }

    /// Path and code of every error, in the order of the paths.
    pub fn faults(&self) -> Vec<(String, &str)> {
        let errors = self.body["errors"].as_array().map_or(&[][..], Vec::as_slice);
        let mut faults =
            errors.iter().map(|error| error["path"].to_string()).zip(self.codes()).collect::<Vec<_>>();
        faults.sort();
        faults
    }
}
