//! A WebSocket to the gateway, one message at a time.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use super::{Gateway, PATIENCE, canary};

/// A WebSocket of the protocol `graphql-transport-ws`.
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Opens one, with `headers` besides those that it needs. Fails with the status of a refusal.
    pub async fn try_open(gateway: &Gateway, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://{}/graphql", gateway.address()).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        request.headers_mut().extend(canary::client_headers());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        // With a small buffer, so that a reader that stops is soon noticed.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let stream = socket.connect(gateway.address().parse().unwrap()).await.unwrap();
        match timeout(PATIENCE, client_async(request, stream)).await.expect("an answer in time") {
            Ok((socket, response)) => {
                assert_eq!(response.headers()["sec-websocket-protocol"], "graphql-transport-ws");
                Ok(Self(socket))
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("no handshake: {error}"),
        }
    }

    /// Opens one, and says nothing.
    pub async fn open(gateway: &Gateway) -> Self {
        Self::try_open(gateway, &[]).await.unwrap()
    }

    /// Opens one and begins, as `token`.
    pub async fn begin(gateway: &Gateway, token: &str) -> Self {
        let mut socket = Self::open(gateway).await;
        let payload = json!({ "Authorization": format!("Bearer {}", gateway.secret(token)), "canary": "canary-variable" });
        socket.say(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(socket.hear().await, json!({ "type": "connection_ack" }));
        socket
    }

    /// Sends a message.
    pub async fn say(&mut self, message: Value) {
        self.send(Message::text(message.to_string())).await;
    }

    /// Asks for `query` to be run as `id`.
    pub async fn subscribe(&mut self, id: &str, query: &str) {
        let payload = json!({ "query": query, "variables": canary::with_variable(Value::Null) });
        self.say(json!({ "type": "subscribe", "id": id, "payload": payload })).await;
    }

    /// Sends a frame of any kind. It may find the far side gone already; what that said is there to be read.
    pub async fn send(&mut self, frame: Message) {
        let _ = timeout(PATIENCE, self.0.send(frame)).await.expect("the frame is taken");
    }

    /// The next message.
    pub async fn hear(&mut self) -> Value {
        loop {
            match self.frame().await {
                Message::Text(text) => {
                    let message = serde_json::from_str(&text).unwrap();
                    canary::assert_discreet(&message);
                    return message;
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("a message was expected, not {other:?}"),
            }
        }
    }

    /// The next message; none where the far side closes instead.
    pub async fn hear_or_close(&mut self) -> Option<Value> {
        loop {
            match self.frame().await {
                Message::Text(text) => {
                    let message = serde_json::from_str(&text).unwrap();
                    canary::assert_discreet(&message);
                    return Some(message);
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// The next frame of any kind.
    pub async fn frame(&mut self) -> Message {
        timeout(PATIENCE, self.0.next()).await.expect("a frame in time").expect("a frame").unwrap()
    }

    /// Waits for the far side to close, passing over what it says before, and returns the code and the reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(close) = self.frame().await {
                let close = close.expect("a code");
                return (close.code.into(), close.reason.to_string());
            }
        }
    }

    /// Closes it as one does who is done, and waits for the answer.
    pub async fn leave(mut self) {
        let _ = self.0.close(None).await;
        let end = async { while self.0.next().await.is_some_and(|frame| frame.is_ok()) {} };
        timeout(PATIENCE, end).await.expect("the far side closes too");
    }

    /// The connection below, which answers no pings.
    pub fn silent(self) -> TcpStream {
        self.0.into_inner()
    }
}
