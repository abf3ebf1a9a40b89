//! Client libraries as their users have them, against a gateway on its sandbox.

use crate::{clients::run, support::Gateway};

#[tokio::test]
async fn graphql_ws_subscribes() {
    run("graphql-ws.mjs", &Gateway::on_sandbox(&[]).await).await;
}

#[tokio::test]
async fn graphql_sse_subscribes() {
    run("graphql-sse.mjs", &Gateway::on_sandbox(&[]).await).await;
}

/// Also the list, with `relayStylePagination`, and a mutation that updates the client's cache.
#[tokio::test]
async fn apollo_client_does_all_of_it() {
    run("apollo.mjs", &Gateway::on_sandbox(&[]).await).await;
}
