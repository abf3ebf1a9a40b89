//! Invalid requests, each with its expected rejection.

use serde_json::json;

use crate::{
    connection::{Reply, Request},
    judge::{Outcome, Verdict},
    world::id,
};

/// An invalid request, with the expected status and one of the expected codes.
pub struct Malformed {
    pub request: Request,
    status: u16,
    codes: &'static [&'static str],
}

impl Malformed {
    /// A random one, sent as `token`.
    pub fn any(rng: &mut fastrand::Rng, token: &str) -> Self {
        let query = |text: &str| Request::post(Some(token), text, &json!({}), false);
        let with_body = |body: &str| Request { body: body.to_owned(), ..query("") };
        let (request, status, codes): (_, _, &[_]) = match rng.u8(0..12) {
            0 => (with_body("no JSON"), 400, &["BAD_REQUEST"]),
            1 => (with_body("[[[["), 400, &["BAD_REQUEST"]),
            2 => (query("{ appointment(id: "), 400, &["GRAPHQL_PARSE_FAILED"]),
            3 => (query("{ appointment(id: 1) { secret } }"), 422, &["GRAPHQL_VALIDATION_FAILED"]),
            4 => {
                let text = "query ($id: UUID!) { appointment(id: $id) { id } }";
                (Request::post(Some(token), text, &json!({ "id": "no id" }), false), 422, &["BAD_USER_INPUT"])
            }
            5 => (query(&"{ a: appointment ".repeat(60)), 422, &["QUERY_TOO_COMPLEX"]),
            6 => {
                let aliases = (0..60).map(|number| format!("a{number}: __typename ")).collect::<String>();
                (query(&format!("{{ {aliases} }}")), 422, &["QUERY_TOO_COMPLEX"])
            }
            7 => {
                let ids = (0..101).map(id).collect::<Vec<_>>();
                let text = "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id } }";
                (Request::post(Some(token), text, &json!({ "ids": ids }), false), 294, &["BAD_USER_INPUT"])
            }
            8 => {
                let text = format!("{{ appointment(id: \"{}\") {{ id }} }}", id(0));
                (Request::post(None, &text, &json!({}), false), 401, &["UNAUTHENTICATED"])
            }
            9 => {
                let head = query("").head.replace("application/json\r\n", "text/plain\r\n");
                (Request { head, ..query("{ __typename }") }, 415, &["BAD_REQUEST"])
            }
            10 => {
                let head = format!("{}X-Large: {}\r\n", query("").head, "y".repeat(40 * 1024));
                (Request { head, ..query("{ __typename }") }, 431, &["BAD_REQUEST"])
            }
            _ => {
                let head = query("").head.replace("POST /graphql", "GET /graphql?query=mutation%7Ba%7D");
                (Request { head, body: String::new(), asks_first: false }, 405, &["BAD_REQUEST"])
            }
        };
        Self { request, status, codes }
    }

    /// Whether the rejection is as expected.
    pub fn judge(&self, reply: &Reply) -> Verdict<Outcome> {
        let codes = reply.codes();
        if reply.status != self.status
            || codes.is_empty()
            || !codes.iter().all(|code| self.codes.contains(code))
        {
            return Err(format!("{} and {:?} were expected", self.status, self.codes));
        }
        Ok(Outcome::Refused)
    }
}
