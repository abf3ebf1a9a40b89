//! A connection that sends one request after the other, and compares each response with the expected one.

use std::ops::Range;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::upstream::{id, reference};

pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Requests the appointments of those numbers as `token`.
    ///
    /// # Panics
    /// If the response differs from the expected one in any byte.
    pub(crate) async fn ask(&mut self, token: &str, numbers: Range<usize>) {
        let ids = numbers.clone().map(|n| format!("\"{}\"", id(n))).collect::<Vec<_>>().join(",");
        let body = format!(
            r#"{{"query":"query($ids:[UUID!]!){{it:appointmentsByIds(ids:$ids){{id reference}}}}","variables":{{"ids":[{ids}]}}}}"#
        );
        let length = body.len();
        let request = format!(
            "POST /graphql HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let answer = self.answer().await;
        let items = numbers
            .map(|n| format!(r#"{{"id":"{}","reference":"{}"}}"#, id(n), reference(token, n)))
            .collect::<Vec<_>>();
        assert_eq!(answer, format!(r#"{{"data":{{"it":[{}]}}}}"#, items.join(",")));
    }

    /// The value of a metric.
    pub(crate) async fn metric(&mut self, name: &str) -> f64 {
        self.stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n").await.unwrap();
        let text = self.answer().await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        value.trim().parse().unwrap()
    }

    async fn answer(&mut self) -> String {
        self.read.clear();
        let mut end = None;
        loop {
            assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0, "the gateway answers");
            if end.is_none() {
                let head = self.read.windows(4).position(|it| it == b"\r\n\r\n");
                end = head.map(|head| {
                    let text = String::from_utf8_lossy(&self.read[..head]).to_ascii_lowercase();
                    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
                    (head + 4, head + 4 + length.trim().parse::<usize>().unwrap())
                });
            }
            if let Some((begin, end)) = end
                && self.read.len() >= end
            {
                return String::from_utf8_lossy(&self.read[begin..end]).into_owned();
            }
        }
    }
}
