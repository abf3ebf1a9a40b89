//! A session: a connection to Redis with a live lease, from joining the fleet to the first failure.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use redis::{FromRedisValue, PushInfo, PushKind, RedisResult, Script, Value, aio::MultiplexedConnection};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use uuid::Uuid;

use super::{
    Inner, Outage,
    connection::{Connected, Connector, reason},
    message::{Acknowledgement, Epoch, Event, Message, Position, ReplicaId, decode, encode},
    outbox::{Outgoing, SharedCopies, TOMBSTONE},
    replay_window::ReplayWindow,
};
use crate::metrics::metrics;

/// How many messages may arrive faster than they take effect. Beyond it the session ends, as if they were lost.
const RECEIVE_BUFFER: usize = 4096;

/// The pause before the second attempt to connect. It doubles with each further attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between two attempts to connect.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// After a session of this length, the pause is short again.
const STABLE: Duration = Duration::from_secs(10);

/// How many waiting messages are published in one round trip.
const BATCH: usize = 64;

/// A lease is renewed so many times while it lasts.
const RENEWALS: u32 = 4;

/// The part of a lease that a replica does not rely on: its clock may be slower than that of Redis.
const LEASE_MARGIN: u32 = 10;

pub(super) const BUS: &str = "bus";

static JOIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/join.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/renew.lua")));
static PUBLISH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/publish.lua")));

static LEAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/leave.lua")));

/// The contexts of encrypted messages.
const MESSAGE: &[u8] = b"message";
const ACKNOWLEDGEMENT: &[u8] = b"acknowledgement";

/// A connection with a lease. It is replaced as a whole.
pub(super) struct Session {
    connection: MultiplexedConnection,
    epoch: Epoch,
    /// The number of the last message that has taken effect.
    received: AtomicU64,
}

/// A published message.
pub(super) struct Published {
    pub(super) position: Position,
    /// The replicas with a live lease, this one included.
    pub(super) replicas: Vec<ReplicaId>,
}

/// Joins again and again, until the gateway is dropped or leaves.
pub(super) async fn run(inner: Weak<Inner>, connector: Connector) {
    let connector = Arc::new(connector);
    // A panic is a bug, but the replica does not stay in a session that nobody serves.
    while tokio::spawn(keep_joined(inner.clone(), connector.clone())).await.is_err() {
        let Some(inner) = inner.upgrade() else { return };
        end(&inner);
        sleep(LAST_PAUSE).await;
    }
}

async fn keep_joined(inner: Weak<Inner>, connector: Arc<Connector>) {
    let (mut pause, mut is_outage) = (FIRST_PAUSE, false);
    loop {
        let Some(fleet) = inner.upgrade() else { return };
        let reason = match join(&fleet, &connector).await {
            Ok(joined) => {
                is_outage = false;
                tracing::info!("joined the fleet: the shared Redis is available");
                let (joined_at, address) = (Instant::now(), joined.address.clone());
                let reason = tokio::select! {
                    reason = joined.serve(&fleet) => reason,
                    reason = connector.until_replaced(&address, fleet.lease) => reason,
                };
                if fleet.has_left() {
                    return;
                }
                end(&fleet);
                if joined_at.elapsed() >= STABLE {
                    pause = FIRST_PAUSE;
                }
                reason
            }
            Err(reason) => reason,
        };
        drop(fleet);
        // One line for each change of state, however many attempts fail.
        if !is_outage {
            tracing::warn!(%reason, "the shared Redis is not available: this replica goes on alone (shared.on_outage)");
        }
        is_outage = true;
        sleep(pause.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// A session with the messages that it receives.
struct Joined {
    session: Arc<Session>,
    pushes: mpsc::Receiver<PushInfo>,
    /// The address of the server.
    address: String,
    /// When the lease ends, by this replica's clock.
    lease_end: Instant,
    /// The number of the last message before this replica joined.
    joined_at: u64,
    /// The numbers of the last messages of each origin.
    origins: HashMap<ReplicaId, ReplayWindow>,
}

async fn join(inner: &Arc<Inner>, connector: &Connector) -> Result<Joined, String> {
    let (sender, pushes) = mpsc::channel(RECEIVE_BUFFER);
    let Connected { mut connection, server, address } = connector.connect(sender).await?;
    let limit = inner.lease;
    let joining = async {
        // Before the lease: from the moment at which others wait for this replica, it receives everything.
        connection.subscribe(inner.names.plain(BUS)).await?;
        connection.subscribe(inner.names.acknowledgements_to(inner.replica)).await?;
        let asked = Instant::now();
        let dropped = inner.outbox.dropped();
        let (epoch, sequence): (String, u64) = JOIN
            .prepare_invoke()
            .key(inner.shared_names())
            .key(inner.names.plain("run"))
            .arg(&server.run_id)
            .arg(Uuid::new_v4().to_string())
            .arg(inner.replica.0.to_string())
            .arg(inner.lease.as_millis() as u64)
            .arg(u8::from(dropped > 0))
            .invoke_async(&mut connection)
            .await?;
        inner.outbox.forget_dropped(dropped);
        RedisResult::Ok((asked, epoch, sequence))
    };
    let (asked, epoch, sequence) = timeout(limit, joining)
        .await
        .map_err(|_| format!("no response within {limit:?} (shared.lease)"))?
        .map_err(|error| reason(&error))?;
    let epoch = Epoch(Uuid::parse_str(&epoch).map_err(|_| "the epoch in Redis is not a UUID".to_owned())?);
    if let Some(warning) = server.warning() {
        tracing::warn!("{warning}");
    }
    inner.acknowledgements.begin(epoch);
    inner.breaker.reset();
    let session = Arc::new(Session { connection, epoch, received: AtomicU64::new(sequence) });
    let lease_end = asked + usable(inner.lease);
    // First this replica's own changes, then its trust in later reads.
    session.flush(inner, lease_end).await?;
    if let Some(receiver) = inner.receiver.get() {
        receiver.distrust(Outage::None);
        receiver.trust_until(lease_end);
    }
    inner.session.send_replace(Some(session.clone()));
    metrics().shared_joined.set(1);
    Ok(Joined { session, pushes, address, lease_end, joined_at: sequence, origins: HashMap::new() })
}

/// Goes on without the fleet.
fn end(inner: &Inner) {
    inner.session.send_replace(None);
    *inner.lock_alone_since() = Instant::now();
    inner.outbox.drop_observations();
    metrics().shared_joined.set(0);
    if let Some(receiver) = inner.receiver.get() {
        receiver.distrust(Outage::Until(inner.outage_ttl));
    }
}

fn usable(lease: Duration) -> Duration {
    lease - lease / LEASE_MARGIN
}

impl Joined {
    /// Receives, renews and publishes until something fails. Returns the reason.
    async fn serve(mut self, inner: &Inner) -> String {
        let mut renewals = interval(inner.lease / RENEWALS);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        renewals.tick().await;
        let mut own_session = inner.session.subscribe();
        loop {
            if inner.session.borrow().is_none() {
                return "too many changes wait to be published".to_owned();
            }
            let step = tokio::select! {
                biased;
                // Before the messages, of which there may always be another one. A renewal takes them in, too.
                _ = renewals.tick() => self.renew(inner).await,
                _ = own_session.changed() => Ok(()),
                push = self.pushes.recv() => match push {
                    Some(push) => self.receive(inner, push).await,
                    None => Err("the connection was closed".to_owned()),
                },
                () = inner.outbox.arrival() => self.session.flush(inner, self.lease_end).await,
            };
            if let Err(reason) = step {
                return reason;
            }
        }
    }

    /// Takes in `push` and all others that have arrived, and acknowledges them together.
    async fn receive(&mut self, inner: &Inner, push: PushInfo) -> Result<(), String> {
        let mut origins = Vec::new();
        let mut next = Some(push);
        while let Some(push) = next {
            if let Some(origin) = self.take_in(inner, push)?
                && !origins.contains(&origin)
            {
                origins.push(origin);
            }
            next = self.pushes.try_recv().ok();
        }
        let acknowledgement = Acknowledgement { replica: inner.replica, position: self.session.position() };
        for origin in origins {
            let sealed = inner.sealer.seal(ACKNOWLEDGEMENT, &encode(&acknowledgement));
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(inner.names.acknowledgements_to(origin)).arg(sealed);
            // Without waiting for the response: the lease shows whether the connection works.
            publish.set_no_response(true);
            let mut connection = self.session.connection.clone();
            let sent = timeout_at(self.lease_end, publish.exec_async(&mut connection)).await;
            sent.map_err(|_| "an acknowledgement could not be sent".to_owned())?
                .map_err(|error| reason(&error))?;
        }
        Ok(())
    }

    /// Takes in a message. Returns its origin if that waits for an acknowledgement.
    fn take_in(
        &mut self,
        inner: &Inner,
        PushInfo { kind, data }: PushInfo,
    ) -> Result<Option<ReplicaId>, String> {
        match kind {
            PushKind::Message => {}
            PushKind::Disconnection => return Err("the connection was lost".to_owned()),
            _ => return Ok(None),
        }
        let [Value::BulkString(channel), Value::BulkString(payload)] = &data[..] else { return Ok(None) };
        if *channel == inner.names.acknowledgements_to(inner.replica) {
            let acknowledgement =
                inner.sealer.open(ACKNOWLEDGEMENT, payload).and_then(|plain| decode(&plain));
            if let Some(acknowledgement) = acknowledgement {
                inner.acknowledgements.receive(acknowledgement);
            }
            return Ok(None);
        }
        let (sequence, sealed) = numbered(payload).ok_or("a message without a number")?;
        let message = inner.sealer.open(MESSAGE, sealed).and_then(|plain| decode::<Message>(&plain));
        let Some(Message { origin, number, epoch, event }) = message else {
            return Err("a message is not encrypted with a key of shared.key_file".to_owned());
        };
        if epoch != self.session.epoch {
            return Err("Redis has lost its data".to_owned());
        }
        let last = self.session.received.load(Ordering::SeqCst);
        if sequence <= last && sequence <= self.joined_at {
            // From before this replica joined.
            return Ok(None);
        }
        if sequence != last + 1 {
            return Err("messages were lost".to_owned());
        }
        // A writer to Redis can repeat a message, and so hide another one.
        if !self.origins.entry(origin).or_default().insert(number) {
            return Err("a message was repeated".to_owned());
        }
        let position = Position { epoch, sequence };
        let is_own = origin == inner.replica;
        // This replica does not know the changes from before it joined, so it cannot tell whether such an observation lacks one.
        let is_useless = matches!(&event, Event::Observed(observation)
            if observation.as_of.epoch != epoch || observation.as_of.sequence < self.joined_at);
        if let Some(receiver) = inner.receiver.get()
            && !is_useless
        {
            receiver.receive(&event, position, is_own);
        }
        self.session.received.store(sequence, Ordering::SeqCst);
        metrics().shared_messages.count(event.label());
        Ok((!is_own && event.needs_acknowledgement()).then_some(origin))
    }

    async fn renew(&mut self, inner: &Inner) -> Result<(), String> {
        let asked = Instant::now();
        let sequence = timeout_at(self.lease_end, self.session.renew(inner)).await;
        let sequence = sequence
            .map_err(|_| "the lease could not be renewed in time".to_owned())?
            .map_err(|error| error.to_string())?;
        let received = self.session.position().sequence;
        let Some(sequence) = u64::try_from(sequence).ok().filter(|sequence| *sequence >= received) else {
            return Err("the lease was lost, or Redis has lost its data".to_owned());
        };
        // All messages up to that number are in the channel: Redis sends them before this response.
        while self.session.position().sequence < sequence {
            match self.pushes.try_recv() {
                Ok(push) => self.receive(inner, push).await?,
                Err(_) => return Err("messages were lost".to_owned()),
            }
        }
        self.lease_end = asked + usable(inner.lease);
        if let Some(receiver) = inner.receiver.get() {
            receiver.trust_until(self.lease_end);
        }
        self.session.flush(inner, self.lease_end).await
    }
}

impl Session {
    /// The last message that has taken effect.
    pub(super) fn position(&self) -> Position {
        Position { epoch: self.epoch, sequence: self.received.load(Ordering::SeqCst) }
    }

    /// Runs `script`.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        arguments: &[&[u8]],
    ) -> RedisResult<T> {
        let mut invocation = script.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for argument in arguments {
            invocation.arg(argument);
        }
        invocation.invoke_async(&mut self.connection.clone()).await
    }

    /// Publishes a message, and ends the shared copies that it concerns. None if there are none, so that nothing was
    /// published.
    pub(super) async fn publish(
        &self,
        inner: &Inner,
        Outgoing { event, ends, .. }: &Outgoing,
    ) -> Result<Option<Published>, String> {
        let SharedCopies { only_with, deleted, numbered } = ends;
        let (origin, number, epoch) = (inner.replica, inner.next_number(), self.epoch);
        let message = Message { origin, number, epoch, event: event.clone() };
        let sealed = inner.sealer.seal(MESSAGE, &encode(&message));
        let mut publish = PUBLISH.prepare_invoke();
        publish.key(inner.shared_names());
        publish.key(only_with.as_slice()).key(deleted).key(numbered);
        publish.arg(self.epoch.0.to_string()).arg(inner.names.plain(BUS)).arg(sealed);
        publish.arg(usize::from(only_with.is_some())).arg(deleted.len()).arg(numbered.len());
        publish.arg(TOMBSTONE.as_millis() as u64);
        let reply: RedisResult<Vec<String>> = publish.invoke_async(&mut self.connection.clone()).await;
        let reply = reply.map_err(|error| error.to_string())?;
        let Some((sequence, replicas)) = reply.split_first() else {
            return Err("Redis has lost its data".to_owned());
        };
        let sequence = sequence.parse().map_err(|_| "the number of a message is no number".to_owned())?;
        if sequence == 0 {
            return Ok(None);
        }
        let replicas = replicas.iter().filter_map(|id| Uuid::parse_str(id).ok()).map(ReplicaId).collect();
        Ok(Some(Published { position: Position { epoch: self.epoch, sequence }, replicas }))
    }

    /// Publishes the messages of the outbox, a batch in each round trip, by the `deadline`.
    async fn flush(&self, inner: &Inner, deadline: Instant) -> Result<(), String> {
        loop {
            let batch = inner.outbox.take(BATCH);
            if batch.messages.is_empty() {
                break;
            }
            // Sent in order: the first poll of each writes its command.
            let published = join_all(batch.messages.iter().map(|outgoing| self.publish(inner, outgoing)));
            let published = timeout_at(deadline, published).await;
            let published = published.map_err(|_| "a message could not be published in time".to_owned())?;
            for (outgoing, published) in batch.messages.iter().zip(published) {
                inner.take_effect(&outgoing.event, published?.as_ref());
            }
            batch.delivered();
        }
        match inner.outbox.dropped() {
            0 => Ok(()),
            _ => Err("too many changes waited to be published".to_owned()),
        }
    }

    /// Publishes the waiting messages, and ends the lease.
    pub(super) async fn leave(&self, inner: &Inner) -> Result<(), String> {
        self.flush(inner, Instant::now() + inner.publish_timeout).await?;
        let replica = inner.replica.0.to_string();
        let left: RedisResult<i64> =
            self.run(&LEAVE, &[inner.names.plain("members")], &[replica.as_bytes()]).await;
        left.map(|_| ()).map_err(|error| error.to_string())
    }

    /// The number of the last message; negative if the replica has to join again.
    async fn renew(&self, inner: &Inner) -> RedisResult<i64> {
        let (epoch, replica) = (self.epoch.0.to_string(), inner.replica.0.to_string());
        let lease = inner.lease.as_millis().to_string();
        let arguments: [&[u8]; 3] = [epoch.as_bytes(), replica.as_bytes(), lease.as_bytes()];
        self.run(&RENEW, &inner.shared_names(), &arguments).await
    }
}

/// Splits a payload into the number that Redis has given it, and the sealed message.
pub(super) fn numbered(payload: &[u8]) -> Option<(u64, &[u8])> {
    let colon = payload.iter().position(|byte| *byte == b':')?;
    let number = std::str::from_utf8(&payload[..colon]).ok()?.parse().ok()?;
    Some((number, &payload[colon + 1..]))
}
