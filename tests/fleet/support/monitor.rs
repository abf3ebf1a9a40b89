//! `MONITOR`: all commands that a Redis carries out, as raw bytes.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use super::{Redis, eventually};

/// Records commands until it is dropped. Redis escapes bytes that are not printable.
pub struct Monitor {
    recorded: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Monitor {
    /// Records the commands of `redis`, which demands no password.
    pub(super) async fn of(redis: &Redis) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let recorded = Arc::<Mutex<Vec<u8>>>::default();
        let reading = tokio::spawn({
            let recorded = recorded.clone();
            async move {
                let mut bytes = [0; 16 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                    recorded.lock().unwrap().extend(&bytes[..count]);
                }
            }
        });
        let monitor = Self { recorded, reading };
        eventually("MONITOR has begun", async || monitor.bytes().starts_with(b"+OK\r\n")).await;
        monitor
    }

    /// Everything recorded so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.recorded.lock().unwrap().clone()
    }

    /// The recorded commands, one a line.
    pub fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.bytes()).lines().skip(1).map(str::to_owned).collect()
    }

    /// How many commands with this name were recorded; those in scripts are marked `lua` and count as well.
    pub fn count(&self, command: &str) -> usize {
        let quoted = format!("] \"{}\"", command.to_uppercase());
        self.lines().iter().filter(|line| line.to_uppercase().contains(&quoted)).count()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
