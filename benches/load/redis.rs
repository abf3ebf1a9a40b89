//! A Redis for the workloads of a fleet: the `redis-server` of the machine, in a process of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use appointments_gateway::credentials::key_ring::KeyRing;

use crate::{Result, client::RESPONSE_TIMEOUT};

/// The time limit for its start.
const START: Duration = Duration::from_secs(10);

/// A running Redis without persistence. It is killed on drop.
pub struct Redis {
    child: Child,
    port: u16,
    key_file: PathBuf,
    started: Instant,
}

impl Redis {
    /// None if the machine has no `redis-server`.
    pub fn start() -> Result<Option<Self>> {
        // The port is free now. Nothing else on the machine takes it in the meantime.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let Ok(child) = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() else { return Ok(None) };
        let key_file = std::env::temp_dir().join(format!("gateway-bench-{port}.keys"));
        fs::write(&key_file, KeyRing::generate_line())?;
        let redis = Self { child, port, key_file, started: Instant::now() };
        while redis.call(&["PING"]).is_err() {
            if redis.started.elapsed() > START {
                return Err("redis-server did not start".into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(Some(redis))
    }

    /// The settings of a replica that shares this Redis.
    pub fn settings(&self) -> [(&'static str, String); 2] {
        [
            ("SHARED_URL", format!("redis://127.0.0.1:{}", self.port)),
            ("SHARED_KEY_FILE", self.key_file.display().to_string()),
        ]
    }

    /// A figure of `INFO`.
    pub fn figure(&self, name: &str) -> Result<f64> {
        let info = self.call(&["INFO"])?;
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.ok_or_else(|| format!("INFO has no {name}"))?.trim().parse()?)
    }

    /// Its CPU time so far.
    pub fn cpu(&self) -> Result<f64> {
        Ok(self.figure("used_cpu_user")? + self.figure("used_cpu_sys")?)
    }

    /// Sends a command, and returns the text of its response.
    pub fn call(&self, words: &[&str]) -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        write!(stream, "{}\r\n", words.join(" "))?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        reader.read_line(&mut head)?;
        let Some(length) = head.strip_prefix('$') else { return Ok(head) };
        let mut body = vec![0; length.trim().parse()?];
        reader.read_exact(&mut body)?;
        Ok(String::from_utf8(body)?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.key_file);
    }
}
