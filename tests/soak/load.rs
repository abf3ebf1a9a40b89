//! HTTP clients, each with a token, a persistent connection and a random generator.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use crate::{
    connection::{Connection, Lost, Reply, Request},
    documents::{self, CANCEL, Document, Documents, LIST, SWAPPED, UPDATE},
    entrance::{Entrance, Life},
    judge::{Asked, Judge, Outcome, Selection},
    malformed::Malformed,
    world::{APPOINTMENTS, Access, TOKENS, access, id, listed, token},
};

/// The pause of clients that were turned away.
pub const TURNED_AWAY: Duration = Duration::from_millis(150);

/// The shared state of all clients.
pub struct Load {
    pub entrance: Arc<Entrance>,
    pub judge: Arc<Judge>,
    pub documents: Arc<Documents>,
    /// Whether the load has ended.
    pub over: watch::Receiver<bool>,
}

/// A client that sends one request after the other.
pub struct Client {
    load: Arc<Load>,
    token: usize,
    rng: fastrand::Rng,
    connection: Option<(u32, Connection)>,
}

impl Load {
    pub fn is_over(&self) -> bool {
        *self.over.borrow()
    }
}

impl Client {
    pub fn new(load: Arc<Load>, number: usize, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        Self { load, token: number % TOKENS, rng, connection: None }
    }

    pub async fn run(mut self) {
        while !self.load.is_over() {
            let life = self.load.entrance.serving().await;
            // The load balancer rejects malformed requests itself.
            let kinds = if self.load.entrance.is_balanced() { 92 } else { 100 };
            match self.rng.u8(0..kinds) {
                0..34 => self.one(life).await,
                34..40 => self.swapped(life).await,
                40..60 => self.several(life).await,
                60..70 => self.list(life).await,
                70..84 if self.load.entrance.is_balanced() => self.change_everywhere(life).await,
                70..84 => {
                    let appointment = self.any_appointment();
                    self.change(life, appointment).await;
                }
                84..92 => self.leave(life).await,
                _ => self.malformed(life).await,
            }
            sleep(Duration::from_millis(self.rng.u64(0..20))).await;
        }
    }

    async fn one(&mut self, life: Life) {
        let appointment = self.rng.usize(0..APPOINTMENTS);
        self.read(life, appointment).await;
    }

    async fn read(&mut self, life: Life, appointment: usize) {
        let selection = self.selection();
        let query = documents::one(selection);
        let asked = self.asked();
        let variables = json!({ "id": id(appointment) });
        if let Some(reply) = self.ask("one appointment", life, &query, &variables, 1).await {
            let judge = &self.load.judge;
            let verdict = judge.appointments(&asked, "appointment", &[appointment], selection, &reply);
            judge.settle("one appointment", &reply, verdict);
        }
    }

    /// Requests an appointment by an id whose document is swapped meanwhile.
    async fn swapped(&mut self, life: Life) {
        const KIND: &str = "a swapped document";
        let appointment = self.rng.usize(0..APPOINTMENTS);
        let name = if self.rng.bool() { Document::Id } else { Document::Path };
        let document = name(SWAPPED.to_owned());
        let asked = self.asked();
        let variables = json!({ "id": id(appointment) });
        let request = Request::naming(&document, Some(&token(self.token)), &variables, self.rng.bool());
        self.load.judge.counts.reads_needed.fetch_add(1, Ordering::Relaxed);
        match self.send(life, &request).await {
            Ok(reply) => {
                let verdict = self.load.judge.swapped(&asked, &self.load.documents, appointment, &reply);
                self.load.judge.settle(KIND, &reply, verdict);
            }
            Err(lost) => self.answerless(KIND, life, lost).await,
        }
    }

    async fn several(&mut self, life: Life) {
        let appointments = (0..self.rng.usize(2..30)).map(|_| self.rng.usize(0..APPOINTMENTS));
        let (appointments, selection) = (appointments.collect::<Vec<_>>(), self.selection());
        let query = documents::several(selection);
        let asked = self.asked();
        let variables = json!({ "ids": appointments.iter().map(|it| id(*it)).collect::<Vec<_>>() });
        let needed = appointments.iter().collect::<HashSet<_>>().len() as u64;
        if let Some(reply) = self.ask("several by ids", life, &query, &variables, needed).await {
            let judge = &self.load.judge;
            let verdict = judge.appointments(&asked, "appointmentsByIds", &appointments, selection, &reply);
            judge.settle("several by ids", &reply, verdict);
        }
    }

    /// Requests a window of the list, and sometimes the next ones.
    async fn list(&mut self, mut life: Life) {
        let first = self.rng.usize(1..=40);
        let (mut start, mut after) = (0, None);
        loop {
            let asked = self.asked();
            let variables = json!({ "first": first, "after": after });
            // A window spans two pages at most.
            let Some(reply) = self.ask("a window of the list", life, LIST, &variables, 2).await else {
                return;
            };
            let verdict = self.load.judge.list(&asked, start, first, &reply);
            let next = verdict.as_ref().ok().and_then(|(_, next)| next.clone());
            self.load.judge.settle("a window of the list", &reply, verdict.map(|(outcome, _)| outcome));
            if next.is_none() || self.rng.bool() {
                return;
            }
            (start, after, life) = (start + first, next, self.load.entrance.serving().await);
        }
    }

    /// A change between reads through all replicas of a fleet: they have a copy, which the change ends.
    async fn change_everywhere(&mut self, life: Life) {
        let appointment = self.any_appointment();
        for _ in 0..4 {
            self.read(life, appointment).await;
        }
        self.change(life, appointment).await;
        for _ in 0..4 {
            self.read(life, appointment).await;
        }
    }

    async fn change(&mut self, life: Life, appointment: usize) {
        let number = self.load.judge.world().new_change();
        let (field, query, variables) = match self.rng.u8(0..4) {
            0 => (
                "cancelAppointment",
                CANCEL,
                json!({ "id": id(appointment), "reason": format!("change-{number}") }),
            ),
            _ => {
                let input = json!({ "status": format!("change-{number}"), "durationInMinutes": 30 });
                ("updateAppointment", UPDATE, json!({ "id": id(appointment), "input": input }))
            }
        };
        let asked = self.asked();
        self.load.judge.counts.changes_needed.fetch_add(1, Ordering::Relaxed);
        let request = self.request(query, &variables);
        match self.send(life, &request).await {
            Ok(reply) => {
                let verdict = self.load.judge.change(&asked, field, appointment, number, &reply);
                self.load.judge.settle("a change", &reply, verdict);
            }
            Err(mut lost) => {
                // The gateway has certainly read a request that reached the upstream.
                lost.was_taken_on |= self.load.judge.world().change(number).asked > 0;
                self.answerless("a change", life, lost).await;
            }
        }
    }

    /// Begins a request and disconnects in the middle of it.
    async fn leave(&mut self, life: Life) {
        let appointment = self.any_appointment();
        let request = self.request(&documents::one(Selection::Full), &json!({ "id": id(appointment) }));
        self.load.judge.counts.reads_needed.fetch_add(1, Ordering::Relaxed);
        let opened = self.load.entrance.connect(life).await.and_then(Connection::over);
        let Ok(mut connection) = opened else { return };
        let bytes = format!("{}{}", request.head(), request.body);
        let part = match self.rng.u8(0..3) {
            0 => self.rng.usize(0..bytes.len()),
            _ => bytes.len(),
        };
        if connection.send(&bytes.as_bytes()[..part]).await.is_ok() {
            sleep(Duration::from_millis(self.rng.u64(0..100))).await;
        }
        self.load.judge.count("left in the middle", Outcome::Left);
    }

    /// Sends an invalid request, and checks its rejection.
    async fn malformed(&mut self, life: Life) {
        let malformed = Malformed::any(&mut self.rng, &token(self.token));
        match self.send(life, &malformed.request).await {
            Ok(reply) => {
                let verdict = malformed.judge(&reply);
                self.load.judge.settle("malformed", &reply, verdict);
            }
            Err(lost) => self.answerless("malformed", life, lost).await,
        }
    }

    async fn ask(
        &mut self,
        kind: &'static str,
        life: Life,
        query: &str,
        variables: &Value,
        needed: u64,
    ) -> Option<Reply> {
        self.load.judge.counts.reads_needed.fetch_add(needed, Ordering::Relaxed);
        let request = self.request(query, variables);
        match self.send(life, &request).await {
            Ok(reply) => Some(reply),
            Err(lost) => {
                self.answerless(kind, life, lost).await;
                None
            }
        }
    }

    /// Sends `request` on the open connection, or on a new one.
    async fn send(&mut self, life: Life, request: &Request) -> Result<Reply, Lost> {
        let kept = self.connection.take().filter(|(number, _)| *number == life.number);
        let mut connection = match kept {
            Some((_, connection)) => connection,
            None => {
                let opened = self.load.entrance.connect(life).await.and_then(Connection::over);
                let why = |error| format!("no connection: {error}");
                opened.map_err(|error| Lost { written: None, was_taken_on: false, why: why(error) })?
            }
        };
        let began = Instant::now();
        let reply = connection.exchange(request).await?;
        if self.load.entrance.is_of_load_balancer(&reply) {
            let why = format!("{} of the load balancer", reply.status);
            return Err(Lost { written: Some(began), was_taken_on: false, why });
        }
        if reply.keeps_alive() && self.rng.u8(0..20) > 0 {
            self.connection = Some((life.number, connection));
        }
        Ok(reply)
    }

    /// Counts a request without a response: as lost, unless the gateway was shutting down and had not read it.
    async fn answerless(&self, kind: &'static str, life: Life, lost: Lost) {
        if self.load.entrance.excuses(life, &lost) {
            self.load.judge.count(kind, Outcome::TurnedAway);
            sleep(TURNED_AWAY).await;
        } else {
            self.load.judge.lost(format!("{kind} in {life:?}: {} after {:?}", lost.why, lost.written));
        }
    }

    fn request(&mut self, query: &str, variables: &Value) -> Request {
        let document = Document::of(query, &mut self.rng);
        Request::naming(&document, Some(&token(self.token)), variables, self.rng.u8(0..4) == 0)
    }

    fn asked(&self) -> Asked {
        Asked::now(self.load.judge.world(), self.token)
    }

    fn selection(&mut self) -> Selection {
        if self.rng.bool() { Selection::Brief } else { Selection::Full }
    }

    /// Mostly one that the client may read.
    fn any_appointment(&mut self) -> usize {
        let appointment = self.rng.usize(0..APPOINTMENTS);
        if access(self.token, appointment) == Access::Visible || self.rng.u8(0..4) == 0 {
            return appointment;
        }
        let all = listed(self.token);
        all[self.rng.usize(0..all.len())]
    }
}
