//! A client for GraphQL over WebSocket.

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

use super::{Gateway, TIMEOUT, canary};

/// A WebSocket of the protocol `graphql-transport-ws`.
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Opens a WebSocket with additional `headers`. Fails with the status of a rejection.
    pub async fn try_open(gateway: &Gateway, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://{}/graphql", gateway.address()).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        request.headers_mut().extend(canary::client_headers());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        // A small buffer, so that the gateway soon notices a client that stops reading.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let stream = socket.connect(gateway.address().parse().unwrap()).await.unwrap();
        match timeout(TIMEOUT, client_async(request, stream)).await.expect("a response in time") {
            Ok((socket, response)) => {
                assert_eq!(response.headers()["sec-websocket-protocol"], "graphql-transport-ws");
                Ok(Self(socket))
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("no handshake: {error}"),
        }
    }

    /// Opens a WebSocket and sends nothing.
    pub async fn open(gateway: &Gateway) -> Self {
        Self::try_open(gateway, &[]).await.unwrap()
    }

    /// Opens a WebSocket and sends `connection_init` as `token`.
    pub async fn connect(gateway: &Gateway, token: &str) -> Self {
        let mut socket = Self::open(gateway).await;
        let payload = json!({ "Authorization": format!("Bearer {}", gateway.secret(token)), "canary": "canary-variable" });
        socket.send_message(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(socket.receive().await, json!({ "type": "connection_ack" }));
        socket
    }

    /// Sends a message.
    pub async fn send_message(&mut self, message: Value) {
        self.send(Message::text(message.to_string())).await;
    }

    /// Sends `subscribe` with `query` as operation `id`.
    pub async fn subscribe(&mut self, id: &str, query: &str) {
        let payload = json!({ "query": query, "variables": canary::with_variable(Value::Null) });
        self.send_message(json!({ "type": "subscribe", "id": id, "payload": payload })).await;
    }

    /// Sends any frame. The gateway may have closed already; its last messages can still be read.
    pub async fn send(&mut self, frame: Message) {
        let _ = timeout(TIMEOUT, self.0.send(frame)).await.expect("the frame is sent in time");
    }

    /// The next message.
    pub async fn receive(&mut self) -> Value {
        loop {
            match self.frame().await {
                Message::Text(text) => {
                    let message = serde_json::from_str(&text).unwrap();
                    canary::assert_no_leak_in(&message);
                    return message;
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    /// The next message, or none if the gateway closes instead.
    pub async fn receive_or_close(&mut self) -> Option<Value> {
        loop {
            match self.frame().await {
                Message::Text(text) => {
                    let message = serde_json::from_str(&text).unwrap();
                    canary::assert_no_leak_in(&message);
                    return Some(message);
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// The next frame of any kind.
    pub async fn frame(&mut self) -> Message {
        timeout(TIMEOUT, self.0.next()).await.expect("a frame in time").expect("a frame").unwrap()
    }

    /// Waits for the gateway to close, skips all messages before, and returns the code and the reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(close) = self.frame().await {
                let close = close.expect("a code");
                return (close.code.into(), close.reason.to_string());
            }
        }
    }

    /// Closes the WebSocket, and waits for the gateway to close it too.
    pub async fn close(mut self) {
        let _ = self.0.close(None).await;
        let end = async { while self.0.next().await.is_some_and(|frame| frame.is_ok()) {} };
        timeout(TIMEOUT, end).await.expect("the gateway closes too");
    }

    /// The bare connection, which does not respond to pings.
    pub fn into_stream(self) -> TcpStream {
        self.0.into_inner()
    }
}

/// The error codes in a `next` or an `error` message.
pub fn codes(message: &Value) -> Vec<&str> {
    let errors = message["payload"].as_array().or_else(|| message["payload"]["errors"].as_array());
    errors.unwrap().iter().map(|error| error["extensions"]["code"].as_str().unwrap()).collect()
}

/// A WebSocket handshake as raw text. `headers` are added to the usual ones, and replace those of the same name.
pub fn handshake(method: &str, headers: &str) -> String {
    let mut text = format!("{method} /graphql HTTP/1.1\r\nHost: gateway\r\n");
    for usual in [
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: graphql-transport-ws",
    ] {
        let (name, _) = usual.split_once(':').unwrap();
        if !headers.contains(&format!("{name}:")) {
            text += &format!("{usual}\r\n");
        }
    }
    format!("{text}{headers}\r\n")
}
