//! A TCP proxy that disturbs the way between a gateway and its Redis: it delays, holds and cuts connections.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// A proxy in front of a port of 127.0.0.1. Dropping it closes all connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    target: AtomicU64,
    state: watch::Sender<State>,
    accepted: AtomicUsize,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Whether connections are closed at once.
    is_cut: bool,
    /// How often connections were closed: those from before end.
    cuts: u64,
    /// Whether bytes are held back, in the direction to the server, and to the client.
    held: [bool; 2],
    /// How much later bytes arrive in each direction.
    delay: [Duration; 2],
}

/// The directions.
const TO_SERVER: usize = 0;
const TO_CLIENT: usize = 1;

impl Proxy {
    /// Starts a proxy in front of `port`.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: AtomicU64::new(port.into()),
            state: watch::Sender::new(State::default()),
            accepted: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    shared.accepted.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(serve(stream, shared.clone()));
                }
            }
        });
        Self { port: own_port, shared, accepting }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many connections clients have opened.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Leads new connections to another port.
    pub fn lead_to(&self, port: u16) {
        self.shared.target.store(port.into(), Ordering::SeqCst);
    }

    /// Closes all connections, and further ones at once, until [`mend`](Self::mend).
    pub fn cut(&self) {
        self.change(|state| {
            state.is_cut = true;
            state.cuts += 1;
        });
    }

    /// Closes all connections. New ones work.
    pub fn interrupt(&self) {
        self.change(|state| state.cuts += 1);
    }

    /// Holds back all bytes in both directions, as a network that loses all packets, until [`mend`](Self::mend).
    pub fn hold(&self) {
        self.change(|state| state.held = [true; 2]);
    }

    /// Holds back the bytes to the gateway only.
    pub fn hold_replies(&self) {
        self.change(|state| state.held[TO_CLIENT] = true);
    }

    /// Has bytes arrive later by `delay`, in the direction to Redis.
    pub fn delay_requests(&self, delay: Duration) {
        self.change(|state| state.delay[TO_SERVER] = delay);
    }

    /// Has bytes arrive later by `delay`, in the direction to the gateway.
    pub fn delay_replies(&self, delay: Duration) {
        self.change(|state| state.delay[TO_CLIENT] = delay);
    }

    /// Removes all disturbances. Held bytes arrive.
    pub fn mend(&self) {
        self.change(|state| *state = State { cuts: state.cuts, ..State::default() });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.shared.state.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let state = shared.state.subscribe();
    let begin = *state.borrow();
    if begin.is_cut {
        return;
    }
    let port = shared.target.load(Ordering::SeqCst) as u16;
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = state.clone();
    tokio::select! {
        () = forward(from_client, to_server, state.clone(), TO_SERVER) => {}
        () = forward(from_server, to_client, state.clone(), TO_CLIENT) => {}
        _ = cut.wait_for(|state| state.cuts != begin.cuts) => {}
    }
}

/// Forwards bytes until either side closes.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    direction: usize,
) {
    let (sender, mut pieces) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let delays = state.clone();
    let read = async move {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            let due = Instant::now() + delays.borrow().delay[direction];
            let _ = sender.send((due, bytes[..count].to_vec()));
        }
    };
    let write = async {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            let _ = state.wait_for(|state| !state.held[direction]).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    // The sender is dropped at the end of the stream, so the writer sends the rest first.
    tokio::join!(read, write);
}
