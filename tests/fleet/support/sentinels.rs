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
        for sentinel in &sentinels.sentinels {
            eventually("the sentinels know the replica and each other", async || {
                let master = sentinel.run(&["SENTINEL", "MASTER", MASTER]).await;
                let number = |name: &str| {
                    let mut words = master.iter().skip_while(|word| *word != name).skip(1);
                    words.next().and_then(|word| word.parse::<usize>().ok())
                };
                number("num-slaves") == Some(1) && number("num-other-sentinels") == Some(count - 1)
            })
            .await;
        }
        sentinels
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

    /// The present master, by the word of the first sentinel.
    pub async fn master(&mut self) -> &mut Redis {
        let port = self.master_port().await;
        self.servers.iter_mut().find(|server| server.port() == port).expect("one of the servers")
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
        let words = async {
            let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let (name, arguments) = command.split_first().unwrap();
            let value = redis::cmd(name).arg(arguments).query_async::<redis::Value>(&mut connection).await?;
            match &value {
                redis::Value::Okay => Ok(vec!["OK".to_owned()]),
                _ => redis::from_redis_value::<Vec<String>>(value).map_err(redis::RedisError::from),
            }
        };
        let words = words.await.unwrap_or_default();
        if words.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
        words
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
