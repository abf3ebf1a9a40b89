//! A real Redis, the Debian package, on a port and in a directory of its own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{Monitor, TIMEOUT, free_port};

/// A Redis. It stores nothing on disk unless [`Redis::save`] is called. Dropping it kills it.
pub struct Redis {
    port: u16,
    directory: PathBuf,
    /// Arguments of the command line.
    options: Vec<String>,
    child: Option<Child>,
    /// For [`Redis::command`].
    user: Option<(String, String)>,
}

impl Redis {
    /// Starts a Redis.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a Redis with further options, such as `["--maxmemory", "1mb"]`.
    pub async fn with(options: &[&str]) -> Self {
        let mut redis = Self::stopped(options);
        redis.run().await;
        redis
    }

    /// A Redis that is not started yet, but has its address.
    pub fn stopped(options: &[&str]) -> Self {
        let port = free_port();
        let directory = std::env::temp_dir().join(format!("fleet-redis-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Self { port, directory, options, child: None, user: None }
    }

    /// Starts a read-only replica of this Redis.
    pub async fn replica(&self) -> Self {
        let port = self.port.to_string();
        Self::with(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]).await
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The directory of its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the commands of the test use a name and a password.
    pub fn log_in(&mut self, user: &str, password: &str) {
        self.user = Some((user.to_owned(), password.to_owned()));
    }

    /// Starts the stopped Redis, with the data in its directory, and waits until it serves commands.
    pub async fn run(&mut self) {
        assert!(self.child.is_none(), "Redis runs already");
        let mut command = Command::new("redis-server");
        command
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args(["--rdbcompression", "no", "--enable-debug-command", "local", "--daemonize", "no"])
            // Small, because a test runs many.
            .args(["--repl-backlog-size", "64kb", "--dir"])
            .arg(&self.directory)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("Redis is missing ({error}). tests/run installs redis-server where it can.")
        }));
        timeout(TIMEOUT, self.until_serving()).await.expect("Redis serves in time");
    }

    async fn until_serving(&mut self) {
        loop {
            match self.try_command::<Value>(&["PING"]).await {
                Ok(_) => return,
                // It serves, but requires a token.
                Err(error) if error.to_string().contains("NOAUTH") => return,
                Err(_) => {}
            }
            let exited = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(exited.is_none(), "Redis exited with {exited:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Runs a command.
    pub async fn command<T: FromRedisValue>(&self, arguments: &[&str]) -> T {
        let result = timeout(TIMEOUT, self.try_command(arguments)).await;
        result.expect("Redis responds in time").unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Runs a command, which may fail.
    pub async fn try_command<T: FromRedisValue>(&self, arguments: &[impl AsRef<[u8]>]) -> RedisResult<T> {
        let mut command = redis::Cmd::new();
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        command.query_async(&mut self.connect().await?).await
    }

    /// A connection of the test.
    pub async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        Client::open(self.client_url())?.get_multiplexed_async_connection_with_config(&config).await
    }

    fn client_url(&self) -> String {
        match &self.user {
            Some((user, password)) => format!("redis://{user}:{password}@127.0.0.1:{}", self.port),
            None => self.url(),
        }
    }

    /// A client of the test.
    pub(super) fn client(&self) -> Client {
        Client::open(self.client_url()).unwrap()
    }

    /// Kills it at once (SIGKILL).
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("Redis runs");
        child.start_kill().unwrap();
        timeout(TIMEOUT, child.wait()).await.expect("Redis ends").unwrap();
    }

    /// Suspends it (SIGSTOP): connections stay open, and nothing is answered.
    pub fn suspend(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Resumes the suspended process (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(Child::id).expect("Redis runs");
        kill(Pid::from_raw(pid as i32), signal).unwrap();
    }

    /// Whether the process runs, suspended or not.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Writes all data to disk, uncompressed.
    pub async fn save(&self) {
        let () = self.command(&["SAVE"]).await;
    }

    /// The RDB file with all present data, uncompressed.
    pub async fn rdb(&self) -> Vec<u8> {
        self.save().await;
        fs::read(self.rdb_path()).unwrap()
    }

    fn rdb_path(&self) -> PathBuf {
        self.directory.join("dump.rdb")
    }

    /// Kills it, and starts it without data.
    pub async fn restart_empty(&mut self) {
        self.kill().await;
        self.run_empty().await;
    }

    /// Starts the stopped Redis without data.
    pub async fn run_empty(&mut self) {
        let _ = fs::remove_file(self.rdb_path());
        self.run().await;
    }

    /// Kills it, and starts it with all data that it had.
    pub async fn restart_with_data(&mut self) {
        self.save().await;
        self.kill().await;
        self.run().await;
    }

    /// Removes all data.
    pub async fn flush(&self) {
        let () = self.command(&["FLUSHALL"]).await;
    }

    /// Closes all connections of clients.
    pub async fn disconnect_clients(&self) {
        let _: Value = self.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        let _: Value = self.command(&["CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes"]).await;
    }

    /// A number in `INFO`, such as `used_memory`.
    pub async fn info(&self, name: &str) -> f64 {
        let info: String = self.command(&["INFO", "everything"]).await;
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("INFO has no {name}")).trim().parse().unwrap()
    }

    /// All commands from now on, as Redis shows them.
    pub async fn monitor(&self) -> Monitor {
        Monitor::of(self).await
    }

    /// The names of all keys.
    pub async fn keys(&self) -> Vec<Vec<u8>> {
        self.command(&["KEYS", "*"]).await
    }

    /// All keys, each with its values (members, fields and scores included) one after the other.
    pub async fn dump(&self) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
        let mut dump = BTreeMap::new();
        for key in self.keys().await {
            let run = |words: &[&[u8]]| {
                let words = words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
                async move { self.try_command::<Value>(&words).await.unwrap() }
            };
            let kind: String = self.try_command(&[b"TYPE".as_slice(), &key]).await.unwrap();
            let value = match kind.as_str() {
                "string" => run(&[b"GET", &key]).await,
                "hash" => run(&[b"HGETALL", &key]).await,
                "list" => run(&[b"LRANGE", &key, b"0", b"-1"]).await,
                "set" => run(&[b"SMEMBERS", &key]).await,
                "zset" => run(&[b"ZRANGE", &key, b"0", b"-1", b"WITHSCORES"]).await,
                "stream" => run(&[b"XRANGE", &key, b"-", b"+"]).await,
                // It has expired since.
                "none" => continue,
                other => panic!("a key of type {other}"),
            };
            let mut values = Vec::new();
            flatten(value, &mut values);
            dump.insert(key, values);
        }
        dump
    }

    /// The remaining life of each key; none for keys that stay forever.
    pub async fn lifetimes(&self) -> BTreeMap<Vec<u8>, Option<Duration>> {
        let mut lifetimes = BTreeMap::new();
        for key in self.keys().await {
            let left: i64 = self.try_command(&[b"PTTL".as_slice(), &key]).await.unwrap();
            match left {
                -1 => drop(lifetimes.insert(key, None)),
                -2 => {}
                left => drop(lifetimes.insert(key, Some(Duration::from_millis(left as u64)))),
            }
        }
        lifetimes
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn flatten(value: Value, into: &mut Vec<Vec<u8>>) {
    match value {
        Value::BulkString(bytes) => into.push(bytes),
        Value::SimpleString(text) => into.push(text.into_bytes()),
        Value::Int(number) => into.push(number.to_string().into_bytes()),
        Value::Double(number) => into.push(number.to_string().into_bytes()),
        Value::Array(values) | Value::Set(values) => {
            values.into_iter().for_each(|value| flatten(value, into));
        }
        Value::Map(pairs) => {
            for (key, value) in pairs {
                flatten(key, into);
                flatten(value, into);
            }
        }
        Value::Nil => {}
        other => panic!("a value of another type: {other:?}"),
    }
}
