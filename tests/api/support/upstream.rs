//! A far side under control: an HTTP server on a socket of its own that answers by script, breaks on request, and
//! remembers what it was asked.
//!
//! It writes its bytes itself. That is all it takes for the few requests it gets, and it is what makes it possible to
//! cut an answer at a chosen byte, to lie about a length, and to notice the moment when the client hangs up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::{
    answer::{Answer, Then},
    call::Call,
    gateway::PATIENCE,
};

type Script = Arc<dyn Fn(&Call) -> Answer + Send + Sync>;

/// A scripted upstream. It is gone, with its connections, when dropped.
pub struct Upstream {
    url: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    otherwise: Script,
    by_id: Mutex<HashMap<String, Script>>,
    seen: watch::Sender<Seen>,
    /// Dropped with the upstream, which ends the connections.
    alive: watch::Receiver<()>,
}

/// What the upstream has seen so far.
#[derive(Default)]
pub struct Seen {
    pub calls: Vec<Call>,
    pub connections: usize,
    /// Calls that have been received and neither answered nor given up.
    pub under_way: usize,
    /// The most that were ever under way at once.
    pub most_under_way: usize,
    /// Calls that the client gave up before there was an answer.
    pub hung_up: usize,
}

impl Upstream {
    /// An upstream that knows every appointment, each marked by who asked.
    pub async fn start() -> Self {
        Self::answering(Call::appointment).await
    }

    /// An upstream that answers every call as `script` says.
    pub async fn answering(script: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // Held by the task that accepts, so that aborting it ends the connections too.
        let (life, alive) = watch::channel(());
        let shared = Arc::new(Shared {
            otherwise: Arc::new(script),
            by_id: Mutex::default(),
            seen: watch::Sender::new(Seen::default()),
            alive,
        });
        let accepting = tokio::spawn({
            let shared = shared.clone();
            async move {
                let _life = life;
                while let Ok((stream, _)) = listener.accept().await {
                    let _ = stream.set_nodelay(true);
                    let (shared, mut alive) = (shared.clone(), shared.alive.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = shared.serve(stream) => {}
                            _ = alive.changed() => {}
                        }
                    });
                }
            }
        });
        Self { url, shared, accepting }
    }

    /// Answers calls for `id` as `script` says, from now on.
    pub fn on(&self, id: &str, script: impl Fn(&Call) -> Answer + Send + Sync + 'static) {
        self.shared.by_id.lock().unwrap().insert(id.to_owned(), Arc::new(script));
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Looks at what has been seen.
    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.shared.seen.borrow())
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.seen(|seen| seen.calls.len())
    }

    /// How many calls there were for `id`.
    pub fn calls_for(&self, id: &str) -> usize {
        self.seen(|seen| seen.calls.iter().filter(|call| call.id == id).count())
    }

    /// Waits until what has been seen is so.
    pub async fn until(&self, is_so: impl FnMut(&Seen) -> bool) {
        let mut seen = self.shared.seen.subscribe();
        let result = timeout(PATIENCE, seen.wait_for(is_so)).await;
        assert!(result.is_ok(), "the upstream sees what is waited for");
    }

    /// Waits until there have been `count` calls.
    pub async fn until_called(&self, count: usize) {
        self.until(|seen| seen.calls.len() >= count).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut connection = 0;
        self.seen.send_modify(|seen| {
            seen.connections += 1;
            connection = seen.connections;
        });
        while let Some(call) = Call::read(&mut stream, connection).await {
            let call = self.received(call);
            let script = self.by_id.lock().unwrap().get(&call.id).unwrap_or(&self.otherwise).clone();
            let answer = script(&call);
            let is_given_up = tokio::select! {
                () = answer.is_due() => false,
                () = hung_up(&mut stream) => true,
            };
            // Before anything is sent: what the client does next must not find this call still under way.
            self.seen.send_modify(|seen| {
                seen.under_way -= 1;
                seen.hung_up += usize::from(is_given_up);
            });
            if is_given_up || stream.write_all(&answer.bytes).await.is_err() {
                return;
            }
            match answer.then {
                Then::KeepAlive => {}
                Then::Close => return,
                Then::Silence => return hung_up(&mut stream).await,
            }
        }
    }

    fn received(&self, mut call: Call) -> Call {
        self.seen.send_modify(|seen| {
            let same = |it: &&Call| (&it.method, &it.path) == (&call.method, &call.path);
            call.nth = 1 + seen.calls.iter().filter(same).count();
            seen.calls.push(call.clone());
            seen.under_way += 1;
            seen.most_under_way = seen.most_under_way.max(seen.under_way);
        });
        call
    }
}

async fn hung_up(stream: &mut (impl AsyncRead + Unpin)) {
    while let Ok(1..) = stream.read(&mut [0; 64]).await {}
}

/// A UUID for each number.
pub fn id(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-00000000cafe")
}

/// A UUID for each number of a range.
pub fn ids(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(id).collect()
}

/// What a client is served where the upstream answers with [`Call::appointment`].
pub fn served(id: &str, token: &str, nth: usize) -> Value {
    json!({ "id": id, "reference": token, "status": format!("call {nth}") })
}
