//! The change bus: what one replica learns, all replicas show.

use super::support::{Fleet, Upstream, id};

#[tokio::test]
async fn replicas_join() {
    let upstream = Upstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &[]).await;
    for replica in fleet.replicas() {
        assert_eq!(replica.appointment("token", &id(1)).await.appointment()["status"], "call 1");
    }
}
