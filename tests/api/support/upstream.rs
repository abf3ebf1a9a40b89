//! A scripted upstream: an HTTP server that responds as its test says, fails on request, and records its calls.
//!
//! It writes its bytes itself, so that a test can cut a response at any byte, declare a wrong length, and notice the
//! moment at which the gateway hangs up.

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
    call::Call,
    gateway::TIMEOUT,
    response::{Then, UpstreamResponse},
};

type Script = Arc<dyn Fn(&Call) -> UpstreamResponse + Send + Sync>;

/// A scripted upstream. Dropping it closes its connections.
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

/// The calls and connections so far.
#[derive(Default)]
pub struct Seen {
    pub calls: Vec<Call>,
    pub connections: usize,
    /// Calls received, and neither responded to nor abandoned.
    pub in_flight: usize,
    /// The maximum of `in_flight`.
    pub max_in_flight: usize,
    /// Calls abandoned by the gateway before the response.
    pub hung_up: usize,
}

impl Upstream {
    /// An upstream with every appointment, each marked with the token of its call.
    pub async fn start() -> Self {
        Self::answering(Call::appointment).await
    }

    /// An upstream that responds to every call as `script` says.
    pub async fn answering(script: impl Fn(&Call) -> UpstreamResponse + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // Held by the accepting task, so that aborting it closes the connections too.
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

    /// Responds to calls for `id` as `script` says from now on.
    pub fn on(&self, id: &str, script: impl Fn(&Call) -> UpstreamResponse + Send + Sync + 'static) {
        self.shared.by_id.lock().unwrap().insert(id.to_owned(), Arc::new(script));
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads the records.
    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.shared.seen.borrow())
    }

    /// The number of calls.
    pub fn calls(&self) -> usize {
        self.seen(|seen| seen.calls.len())
    }

    /// The number of calls for `id`.
    pub fn calls_for(&self, id: &str) -> usize {
        self.seen(|seen| seen.calls.iter().filter(|call| call.id == id).count())
    }

    /// Waits until the records satisfy a condition.
    pub async fn until(&self, is_so: impl FnMut(&Seen) -> bool) {
        let mut seen = self.shared.seen.subscribe();
        let result = timeout(TIMEOUT, seen.wait_for(is_so)).await;
        assert!(result.is_ok(), "the upstream reaches the expected state in time");
    }

    /// Waits for a total of `count` calls.
    pub async fn until_called(&self, count: usize) {
        self.until(|seen| seen.calls.len() >= count).await;
    }

    /// Waits for `more` further calls, such as those of a poller.
    pub async fn until_polled(&self, more: usize) {
        self.until_called(self.calls() + more).await;
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
            // Updated before sending: the test must not find this call still in flight after its response.
            self.seen.send_modify(|seen| {
                seen.in_flight -= 1;
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
            seen.in_flight += 1;
            seen.max_in_flight = seen.max_in_flight.max(seen.in_flight);
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

/// The appointment that clients receive if the upstream responds with [`Call::appointment`].
pub fn served(id: &str, token: &str, nth: usize) -> Value {
    json!({ "id": id, "reference": token, "status": format!("call {nth}") })
}
