//! The misbehaving upstream: hand-written HTTP/1.1, so that it can break every rule of it.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    misbehaviour::Misbehaviour,
    mode::Mode,
    world::{Access, GrantedCall, Provenance, World, appointment_number, is_revocable, listed, token_number},
};

/// How many of ten calls misbehave; the others succeed.
const AS_THE_MODE_SAYS: u8 = 8;

/// Calls in flight in this many samples in a row, a tenth of a second apart, count as concurrent.
const LOOKS: usize = 4;

/// The upstream: a listener that starts and stops, and its counters.
pub struct Upstream {
    world: Arc<World>,
    port: u16,
    /// An address that must never be called: redirects point there.
    decoy: u16,
    mode: AtomicU8,
    listening: Mutex<Option<AbortHandle>>,
    rng: Mutex<fastrand::Rng>,
    next_call: AtomicU64,
    in_flight: Mutex<HashSet<u64>>,
    pub counts: Counts,
}

/// The counters of the upstream.
#[derive(Default)]
pub struct Counts {
    /// Calls by mode.
    pub calls: [AtomicU64; Mode::COUNT],
    /// Direct reads.
    pub reads: AtomicU64,
    /// Reads after a redirect.
    pub hops: AtomicU64,
    /// Changes.
    pub changes: AtomicU64,
    /// Calls of unknown endpoints.
    pub unknown: AtomicU64,
    /// The maximum of certainly concurrent calls.
    pub most_in_flight: AtomicUsize,
    /// Connections to the forbidden address.
    pub strayed: AtomicU64,
}

/// A parsed call.
struct Call {
    method: String,
    path: String,
    query: String,
    token: Option<usize>,
    body: Value,
}

/// The correct response to a call.
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

struct InFlight<'a>(&'a Upstream, u64);

impl Upstream {
    /// Starts a healthy upstream on a fixed port.
    pub async fn start(world: Arc<World>, seed: u64) -> Arc<Self> {
        let (listener, port) = listen_somewhere().await;
        let (decoy, decoy_port) = listen_somewhere().await;
        let upstream = Arc::new(Self {
            world,
            port,
            decoy: decoy_port,
            mode: AtomicU8::new(Mode::Healthy as u8),
            listening: Mutex::new(None),
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            next_call: AtomicU64::new(0),
            in_flight: Mutex::default(),
            counts: Counts::default(),
        });
        upstream.serve(listener);
        let strayed = upstream.clone();
        tokio::spawn(async move {
            while decoy.accept().await.is_ok() {
                strayed.counts.strayed.fetch_add(1, Ordering::Relaxed);
            }
        });
        tokio::spawn(upstream.clone().watch_in_flight());
        upstream
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn decoy_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.decoy)
    }

    pub fn mode(&self) -> Mode {
        let mode = self.mode.load(Ordering::Relaxed);
        Mode::BAD.into_iter().find(|bad| *bad as u8 == mode).unwrap_or(Mode::Healthy)
    }

    /// Switches to another mode.
    pub async fn behave(self: &Arc<Self>, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
        if mode == Mode::Killed {
            self.die();
        } else {
            self.live().await;
        }
    }

    /// Cuts all connections, and listens again at once unless it is dead.
    pub async fn hang_up(self: &Arc<Self>) {
        if self.die() {
            self.live().await;
        }
    }

    /// Ends the accepting task, which closes the listener and all connections. Returns whether it was alive.
    fn die(&self) -> bool {
        let listening = self.listening.lock().unwrap().take();
        listening.inspect(AbortHandle::abort).is_some()
    }

    async fn live(self: &Arc<Self>) {
        if self.listening.lock().unwrap().is_some() {
            return;
        }
        // The old listener closes with its task, after a moment.
        let listener = timeout(Duration::from_secs(10), async {
            loop {
                match TcpListener::bind(("127.0.0.1", self.port)).await {
                    Ok(listener) => return listener,
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
        });
        self.serve(listener.await.expect("the port is free again"));
    }

    fn serve(self: &Arc<Self>, listener: TcpListener) {
        let upstream = self.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    let upstream = upstream.clone();
                    connections.spawn(async move {
                        let _ = upstream.converse(stream).await;
                    });
                }
                while connections.try_join_next().is_some() {}
            }
        });
        *self.listening.lock().unwrap() = Some(accepting.abort_handle());
    }

    async fn converse(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        while let Some(call) = read(&mut reader).await? {
            let _in_flight = self.begin();
            let misbehaviour = self.misbehaviour();
            tokio::select! {
                answered = self.answer(&call, misbehaviour, &mut writer) => answered?,
                // The gateway sends nothing before the response, unless it disconnects.
                left = reader.fill_buf() => return left.map(drop),
            }
        }
        Ok(())
    }

    fn begin(&self) -> InFlight<'_> {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        self.in_flight.lock().unwrap().insert(call);
        InFlight(self, call)
    }

    /// The misbehaviour for the next call, or none.
    fn misbehaviour(&self) -> Option<Misbehaviour> {
        let mode = self.mode();
        self.counts.calls[mode as usize].fetch_add(1, Ordering::Relaxed);
        let mut rng = self.rng.lock().unwrap();
        let well = mode == Mode::Healthy || rng.u8(0..10) >= AS_THE_MODE_SAYS;
        (!well).then(|| Misbehaviour { mode, rng: rng.fork() })
    }

    async fn answer(
        &self,
        call: &Call,
        misbehaviour: Option<Misbehaviour>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let _granted = self.granted(call);
        let answer = self.right_answer(call, misbehaviour.as_ref());
        match misbehaviour {
            None => answer.send(writer).await,
            Some(misbehaviour) => {
                let target = format!("{}?{}", call.path, call.query);
                misbehaviour.send(answer, &target, &self.decoy_url(), writer).await
            }
        }
    }

    /// The grant of the caller, if its access changes over time.
    fn granted(&self, call: &Call) -> Option<GrantedCall<'_>> {
        let id = call.path.strip_prefix("/api/v1/appointments/")?.split('/').next()?;
        let (token, appointment) = (call.token?, appointment_number(id)?);
        is_revocable(token, appointment).then(|| self.world.call(token, appointment))
    }

    /// The response of the API. A change is applied here, unless the misbehaviour prevents it.
    fn right_answer(&self, call: &Call, misbehaviour: Option<&Misbehaviour>) -> Answer {
        let counts = &self.counts;
        let Some(token) = call.token else {
            return Answer::refusal(401, "Unauthenticated.");
        };
        let rest = call.path.strip_prefix("/api/v1/appointments");
        let path = rest.map(|rest| rest.split('/').skip(1).collect::<Vec<_>>());
        let appointment = |id: &&str| appointment_number(id);
        match (call.method.as_str(), path.as_deref()) {
            ("GET", Some([])) => {
                self.count_read(call);
                self.list(token, &call.query)
            }
            ("GET", Some([id])) => {
                self.count_read(call);
                appointment(id).map_or(Answer::not_found(), |appointment| self.one(token, appointment))
            }
            ("PATCH", Some([id])) | ("POST", Some([id, "cancel"])) => {
                counts.changes.fetch_add(1, Ordering::Relaxed);
                let number = ["status", "cancellation_reason"]
                    .iter()
                    .find_map(|name| call.body[name].as_str()?.strip_prefix("change-")?.parse::<u64>().ok());
                let (Some(number), Some(appointment)) = (number, appointment(id)) else {
                    return Answer::refusal(422, "The given data was invalid.");
                };
                self.world.asked_for(number);
                let epoch = self.world.epoch(token, appointment);
                if World::access(token, appointment, epoch) == Access::Visible
                    && misbehaviour.is_none_or(Misbehaviour::makes_changes)
                {
                    self.world.make(number, appointment);
                }
                self.one_in(epoch, token, appointment)
            }
            _ => {
                counts.unknown.fetch_add(1, Ordering::Relaxed);
                Answer::not_found()
            }
        }
    }

    fn count_read(&self, call: &Call) {
        let hopped = call.query.contains("hop=");
        let count = if hopped { &self.counts.hops } else { &self.counts.reads };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn one(&self, token: usize, appointment: usize) -> Answer {
        self.one_in(self.world.epoch(token, appointment), token, appointment)
    }

    fn one_in(&self, epoch: u64, token: usize, appointment: usize) -> Answer {
        match World::access(token, appointment, epoch) {
            Access::Forbidden => Answer::refusal(403, "This action is unauthorized."),
            Access::Absent => Answer::not_found(),
            Access::Visible => {
                let version = self.world.version(appointment);
                let provenance = Provenance { token, appointment, version, epoch };
                Answer { status: 200, body: json!({ "data": provenance.upstream() }) }
            }
        }
    }

    fn list(&self, token: usize, query: &str) -> Answer {
        let number = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<usize>().ok())
        };
        let (page, per_page) = (number("page").unwrap_or(1), number("per_page").unwrap_or(25).max(1));
        let all = listed(token);
        let items = all.iter().skip(page.saturating_sub(1) * per_page).take(per_page);
        let items = items.map(|appointment| {
            let version = self.world.version(*appointment);
            let epoch = self.world.epoch(token, *appointment);
            Provenance { token, appointment: *appointment, version, epoch }.upstream()
        });
        let meta = json!({
            "current_page": page, "per_page": per_page, "total": all.len(), "last_page": all.len().div_ceil(per_page),
        });
        Answer { status: 200, body: json!({ "data": items.collect::<Vec<_>>(), "meta": meta }) }
    }

    /// Counts concurrent calls. An abandoned call may be visible for a moment, so only lasting ones count.
    async fn watch_in_flight(self: Arc<Self>) {
        let mut looks = Vec::<HashSet<u64>>::new();
        loop {
            sleep(Duration::from_millis(100)).await;
            looks.push(self.in_flight.lock().unwrap().clone());
            if looks.len() >= LOOKS {
                let staying = looks[0].iter().filter(|call| looks.iter().all(|look| look.contains(call)));
                self.counts.most_in_flight.fetch_max(staying.count(), Ordering::Relaxed);
                looks.remove(0);
            }
        }
    }
}

impl Answer {
    fn refusal(status: u16, message: &str) -> Self {
        Self { status, body: json!({ "message": message }) }
    }

    fn not_found() -> Self {
        Self::refusal(404, "No query results for model [Appointment]")
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.lock().unwrap().remove(&self.1);
    }
}

/// Reads a call, or none if the connection ends.
async fn read(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Call>> {
    let mut line = String::new();
    if reader.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (mut token, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => token = value.trim().strip_prefix("Bearer ").and_then(token_number),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(Call { method, path: path.to_owned(), query: query.to_owned(), token, body }))
}

/// A listener on a port below the ephemeral range, so that the system gives it to nobody else.
async fn listen_somewhere() -> (TcpListener, u16) {
    loop {
        let port = free_port();
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return (listener, port);
        }
    }
}

/// A free port outside the ephemeral range.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(20_000..32_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
