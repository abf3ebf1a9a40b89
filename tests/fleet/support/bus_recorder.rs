//! Records the messages that the replicas of a fleet publish.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use super::Redis;

/// Records messages on all channels until it is dropped.
pub struct BusRecorder {
    recorded: Arc<Mutex<Vec<Published>>>,
    reading: JoinHandle<()>,
}

/// A message as Redis delivers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub channel: String,
    pub payload: Vec<u8>,
}

impl BusRecorder {
    pub async fn of(redis: &Redis) -> Self {
        let mut subscriber = redis.client().get_async_pubsub().await.unwrap();
        subscriber.psubscribe("*").await.unwrap();
        let recorded = Arc::<Mutex<Vec<Published>>>::default();
        let reading = tokio::spawn({
            let recorded = recorded.clone();
            async move {
                let mut messages = subscriber.into_on_message();
                while let Some(message) = messages.next().await {
                    let channel = message.get_channel_name().to_owned();
                    let payload = message.get_payload_bytes().to_vec();
                    recorded.lock().unwrap().push(Published { channel, payload });
                }
            }
        });
        Self { recorded, reading }
    }

    /// All messages so far, in order.
    pub fn all(&self) -> Vec<Published> {
        self.recorded.lock().unwrap().clone()
    }

    /// The messages on the change bus.
    pub fn bus(&self) -> Vec<Published> {
        self.all().into_iter().filter(|message| message.channel.ends_with(":bus")).collect()
    }
}

impl Drop for BusRecorder {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Published {
    /// Publishes the message again, as a recorder of the traffic would.
    pub async fn repeat(&self, redis: &Redis) {
        let words: [&[u8]; 3] = [b"PUBLISH", self.channel.as_bytes(), &self.payload];
        let _: i64 = redis.try_command(&words).await.unwrap();
    }
}
