//! A request and the answer that it has to get, byte by byte, for one id or for many.

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::{
    Result,
    client::{Answer, Client},
    ids::{self, DIGITS, id},
    limit,
};

/// How often a request is made first: an answer may be compressed only when it is asked for again.
const WARM_UPS: usize = 3;

/// What is asked again and again. Each time that it is asked for is the next number's turn.
#[derive(Clone)]
pub struct Exchange {
    pub request: Vec<u8>,
    pub answer: Vec<u8>,
    /// How the answer is compressed; none where it is plain.
    pub encoding: Option<String>,
    /// Where the numbers of the ids are, in the request and in the answer; nowhere where it is always the same.
    in_request: Vec<usize>,
    in_answer: Vec<usize>,
    numbers: Numbers,
}

/// Which ids are asked for, in turn.
#[derive(Clone, Copy)]
pub struct Numbers {
    first: u32,
    count: u32,
    turn: u32,
}

impl Numbers {
    /// So many, over and over.
    pub const fn cycle(count: u32) -> Self {
        Self { first: 1, count, turn: 0 }
    }

    /// One after the other, none twice, from `first` on.
    pub const fn fresh(first: u32) -> Self {
        Self { first, count: u32::MAX, turn: 0 }
    }

    /// How many there are. Of fresh ones, more than anybody asks for.
    pub fn count(self) -> usize {
        self.count as usize
    }

    fn next(&mut self) -> u32 {
        let turn = self.turn;
        self.turn = if turn + 1 == self.count { 0 } else { turn + 1 };
        self.first.wrapping_add(turn)
    }
}

/// What is asked: the request for an id, and what its answer has to say.
pub struct Asked<'a> {
    pub request: &'a dyn Fn(&str) -> Vec<u8>,
    pub data: &'a dyn Fn(&str) -> Value,
}

impl Exchange {
    /// Asks for the first ids, looks at what the answers say, and remembers them: each one after has to be the same bytes,
    /// but for the id.
    pub fn learn(client: &mut Client, asked: &Asked<'_>, mut numbers: Numbers) -> Result<Self> {
        let first = numbers.next();
        let request = (asked.request)(&id(first));
        let data = (asked.data)(&id(first));
        for _ in 0..WARM_UPS {
            expect(client, &request, &data)?;
        }
        let Answer { head, body: answer } = expect(client, &request, &data)?;
        let mut exchange = Self {
            in_request: places(&request, &id(first)),
            in_answer: places(&answer, &id(first)),
            encoding: head.encoding,
            request,
            answer,
            numbers,
        };
        let second = exchange.numbers.next();
        let (mut request, mut answer) = (exchange.request.clone(), exchange.answer.clone());
        exchange.write(second, &mut request, &mut answer);
        if request != (asked.request)(&id(second)) {
            return Err("the requests for two ids differ in more than the id".into());
        }
        if answer != expect(client, &request, &(asked.data)(&id(second)))?.body {
            return Err("the answers for two ids differ in more than the id".into());
        }
        Ok(exchange)
    }

    /// The same requests to a limit server: its constant answer is as long.
    pub fn to_limit(&self) -> Self {
        Self { answer: limit::answer(self.answer.len()), in_answer: Vec::new(), ..self.clone() }
    }

    /// The same for that one number alone.
    pub fn only(mut self, number: u32) -> Self {
        self.numbers = Numbers { first: number, count: 1, turn: 0 };
        self
    }

    /// Makes a request and its answer those for the next id.
    pub fn turn(&mut self, request: &mut [u8], answer: &mut [u8]) {
        if !self.in_request.is_empty() {
            let number = self.numbers.next();
            self.write(number, request, answer);
        }
    }

    fn write(&self, number: u32, request: &mut [u8], answer: &mut [u8]) {
        for place in &self.in_request {
            ids::write(number, &mut request[*place..*place + DIGITS]);
        }
        for place in &self.in_answer {
            ids::write(number, &mut answer[*place..*place + DIGITS]);
        }
    }
}

fn places(bytes: &[u8], id: &str) -> Vec<usize> {
    let found = bytes.windows(id.len()).enumerate().filter(|(_, it)| *it == id.as_bytes());
    found.map(|(place, _)| place).collect()
}

/// The answer, which has to say `data`.
fn expect(client: &mut Client, request: &[u8], data: &Value) -> Result<Answer> {
    let answer = client.ask(request)?;
    let said: Value = match answer.head.encoding.as_deref() {
        None => serde_json::from_slice(&answer.body)?,
        Some("br") => serde_json::from_reader(brotli::Decompressor::new(answer.body.as_slice(), 4096))?,
        Some("gzip") => serde_json::from_reader(GzDecoder::new(answer.body.as_slice()))?,
        Some(other) => return Err(format!("an answer in {other}, for which nobody asked").into()),
    };
    if answer.head.status != 200 || said != *data {
        let status = answer.head.status;
        return Err(format!("a wrong answer: {status} {said}\nwhere this was expected: {data}").into());
    }
    Ok(answer)
}
