//! A Redis with a replica, and sentinels that fail over between the two.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::sleep,
};

use super::{Redis, eventually, free_port};

/// The name of the master.
const MASTER: &str = "fleet";

/// Two servers and their sentinels. Dropping it kills all of them.
pub struct Sentinels {
    /// In the order of their start: the first one is the master in the beginning.
    pub servers: [Redis; 2],
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: u16,
    directory: PathBuf,
    child: Child,
}

impl Sentinels {
    /// Starts a master, a replica, and `count` sentinels of which most have to agree. Waits until they know each other.
    pub async fn start(count: usize) -> Self {
        let master = Redis::start().await;
        let replica = master.replica().await;
        let quorum = count / 2 + 1;
        let sentinels = (0..count).map(|_| Sentinel::start(master.port(), quorum)).collect();
        let sentinels = Self { servers: [master, replica], sentinels };
        sentinels.until_ready().await;
        sentinels
    }

    /// Waits until all sentinels could fail over: they know each other, and a replica that follows the master.
    pub async fn until_ready(&self) {
        for sentinel in &self.sentinels {
            eventually("the sentinels know each other and a healthy replica", async || {
                let master = sentinel.run(&["SENTINEL", "MASTER", MASTER]).await;
                let replica = sentinel.run_for_first(&["SENTINEL", "REPLICAS", MASTER]).await;
                value(&master, "num-other-sentinels") == Some((self.sentinels.len() - 1).to_string())
                    && value(&master, "flags") == Some("master".to_owned())
                    && value(&replica, "flags") == Some("slave".to_owned())
                    && value(&replica, "master-link-status") == Some("ok".to_owned())
            })
            .await;
        }
    }

    /// `redis-sentinel://…/fleet`
    pub fn url(&self) -> String {
        let nodes = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port));
        format!("redis-sentinel://{}/{MASTER}", nodes.collect::<Vec<_>>().join(","))
    }

    /// The port of the master, by the word of the first sentinel.
    pub async fn master_port(&self) -> u16 {
        let address = self.sentinels[0].run(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await;
        address.get(1).expect("a master").parse().unwrap()
    }

    /// The server at `port`.
    pub fn server(&mut self, port: u16) -> &mut Redis {
        self.servers.iter_mut().find(|server| server.port() == port).expect("one of the servers")
    }

    /// The present master, by the word of the first sentinel.
    pub async fn master(&mut self) -> &mut Redis {
        let port = self.master_port().await;
        self.server(port)
    }

    /// Makes the replica the master, while both servers live. Waits until the sentinels say so.
    pub async fn fail_over(&self) {
        let before = self.master_port().await;
        // Refused while an earlier failover is under way.
        eventually("the sentinels begin a failover", async || {
            self.sentinels[0].run(&["SENTINEL", "FAILOVER", MASTER]).await == ["OK"]
        })
        .await;
        self.until_master_is_not(before).await;
    }

    /// Waits until all sentinels name another master than the one at `port`.
    pub async fn until_master_is_not(&self, port: u16) {
        for sentinel in &self.sentinels {
            eventually("the sentinels name another master", async || {
                let address = sentinel.run(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await;
                address.get(1).is_some_and(|named| *named != port.to_string())
            })
            .await;
        }
    }
}

impl Sentinel {
    fn start(master: u16, quorum: usize) -> Self {
        let port = free_port();
        let directory = std::env::temp_dir().join(format!("fleet-sentinel-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let configuration = directory.join("sentinel.conf");
        // The sentinel rewrites it.
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor {MASTER} 127.0.0.1 {master} {quorum}\n\
             sentinel down-after-milliseconds {MASTER} 500\n\
             sentinel failover-timeout {MASTER} 2000\n",
            directory.display()
        );
        fs::write(&configuration, text).unwrap();
        let child = Command::new("redis-sentinel")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("The sentinel is missing ({error}). tests/run installs redis-sentinel where it can.")
            });
        Self { port, directory, child }
    }

    /// The words of a response; none if there is none.
    async fn run(&self, command: &[&str]) -> Vec<String> {
        let words = match self.try_run(command).await {
            Ok(redis::Value::Okay) => vec!["OK".to_owned()],
            Ok(value) => words(value),
            Err(_) => Vec::new(),
        };
        if words.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
        words
    }

    /// The words of the first of several things in a response.
    async fn run_for_first(&self, command: &[&str]) -> Vec<String> {
        match self.try_run(command).await {
            Ok(redis::Value::Array(things)) => things.into_iter().next().map(words).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    async fn try_run(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut query = redis::Cmd::new();
        query.arg(command);
        query.query_async(&mut connection).await
    }
}

/// The texts in a flat response, which may alternate between names and values.
fn words(value: redis::Value) -> Vec<String> {
    redis::from_redis_value(value).unwrap_or_default()
}

/// The value after a name.
fn value(words: &[String], name: &str) -> Option<String> {
    words.iter().skip_while(|word| *word != name).nth(1).cloned()
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
