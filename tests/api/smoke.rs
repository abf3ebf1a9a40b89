//! The main job, end to end.

use serde_json::json;

use crate::support::Gateway;

#[tokio::test]
async fn an_appointment_comes_from_the_sandbox_through_the_gateway() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let reply = gateway
        .query_with(
            Some("sandbox-all"),
            "query ($id: UUID!) { appointment(id: $id) { id phase } }",
            json!({ "id": id }),
        )
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body, json!({ "data": { "appointment": { "id": id, "phase": "SCHEDULED" } } }));
}
