//! A request and its expected response, byte by byte, for one id or many.

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::{
    Result,
    client::{Client, Response},
    http::{NOT_MODIFIED, OK},
    ids::{self, DIGITS, id},
    limit,
};

/// The number of requests before the recorded one: the gateway compresses a response only once it is requested again.
const WARM_UPS: usize = 3;

/// A repeatable request with its expected response. Each repetition uses the next id of a sequence.
#[derive(Clone)]
pub struct Exchange {
    pub request: Vec<u8>,
    pub response: Vec<u8>,
    /// The status of the response.
    pub status: u16,
    /// The content coding of the response; none for an uncompressed one.
    pub encoding: Option<String>,
    /// The offsets of the id in request and response; empty if they do not contain it.
    request_offsets: Vec<usize>,
    response_offsets: Vec<usize>,
    ids: IdSequence,
}

/// The numbers of the requested ids, in order.
#[derive(Clone, Copy)]
pub struct IdSequence {
    first: u32,
    count: u32,
    position: u32,
}

impl IdSequence {
    /// Repeats the first `count` ids.
    pub const fn cycle(count: u32) -> Self {
        Self { first: 1, count, position: 0 }
    }

    /// Never repeats an id, starting with the number `first`.
    pub const fn distinct(first: u32) -> Self {
        Self { first, count: u32::MAX, position: 0 }
    }

    /// The number of distinct ids.
    pub fn count(self) -> usize {
        self.count as usize
    }

    fn next(&mut self) -> u32 {
        let position = self.position;
        self.position = if position + 1 == self.count { 0 } else { position + 1 };
        self.first.wrapping_add(position)
    }
}

/// Builds the request for an id, and the JSON of its expected response.
pub struct Call<'a> {
    pub request: &'a dyn Fn(&str) -> Vec<u8>,
    pub expected: &'a dyn Fn(&str) -> Value,
}

impl Exchange {
    /// Calls a server with the first ids, checks the JSON of the responses, and records their bytes. All later responses
    /// must equal these bytes except for the id.
    pub fn record(client: &mut Client, call: &Call<'_>, mut ids: IdSequence) -> Result<Self> {
        let first = ids.next();
        let request = (call.request)(&id(first));
        let expected = (call.expected)(&id(first));
        for _ in 0..WARM_UPS {
            send(client, &request, &expected)?;
        }
        let Response { head, body: response } = send(client, &request, &expected)?;
        let mut exchange = Self {
            request_offsets: offsets(&request, &id(first)),
            response_offsets: offsets(&response, &id(first)),
            status: head.status,
            encoding: head.encoding,
            request,
            response,
            ids,
        };
        let second = exchange.ids.next();
        let (mut request, mut response) = (exchange.request.clone(), exchange.response.clone());
        exchange.write_id(second, &mut request, &mut response);
        if request != (call.request)(&id(second)) {
            return Err("the requests for two ids differ in more than the id".into());
        }
        if response != send(client, &request, &(call.expected)(&id(second)))?.body {
            return Err("the responses for two ids differ in more than the id".into());
        }
        Ok(exchange)
    }

    /// Records the 304 of a server to `request` by a client that has the response already.
    pub fn record_validation(client: &mut Client, request: &[u8], expected: &Value) -> Result<Self> {
        // The first response may be compressed in another way than later ones.
        send(client, request, expected)?;
        let etag = send(client, request, expected)?.head.etag.ok_or("the response has no ETag")?;
        let head = request.strip_suffix(b"\r\n").ok_or("the request has a body")?;
        let request = [head, format!("If-None-Match: {etag}\r\n\r\n").as_bytes()].concat();
        let Response { head, body: response } = client.send(&request)?;
        if head.status != NOT_MODIFIED || !response.is_empty() {
            return Err(format!("wrong response to a validation: {}", head.status).into());
        }
        println!("  304: {} bytes", head.length);
        let (request_offsets, response_offsets) = (Vec::new(), Vec::new());
        let ids = IdSequence::cycle(1);
        let status = head.status;
        Ok(Self { request, response, status, encoding: None, request_offsets, response_offsets, ids })
    }

    /// The same requests, with a [constant response](limit::constant_body) of the same size.
    pub fn with_constant_response(&self) -> Self {
        let response = limit::constant_body(self.response.len());
        Self { response, status: OK, response_offsets: Vec::new(), ..self.clone() }
    }

    /// The same exchange for one id only.
    pub fn for_number(mut self, number: u32) -> Self {
        self.ids = IdSequence { first: number, count: 1, position: 0 };
        self
    }

    /// Writes the next id into a request and its expected response.
    pub fn advance(&mut self, request: &mut [u8], response: &mut [u8]) {
        if !self.request_offsets.is_empty() {
            let number = self.ids.next();
            self.write_id(number, request, response);
        }
    }

    fn write_id(&self, number: u32, request: &mut [u8], response: &mut [u8]) {
        for offset in &self.request_offsets {
            ids::write(number, &mut request[*offset..*offset + DIGITS]);
        }
        for offset in &self.response_offsets {
            ids::write(number, &mut response[*offset..*offset + DIGITS]);
        }
    }
}

fn offsets(bytes: &[u8], id: &str) -> Vec<usize> {
    let found = bytes.windows(id.len()).enumerate().filter(|(_, it)| *it == id.as_bytes());
    found.map(|(offset, _)| offset).collect()
}

/// Sends a request and checks the JSON of its response.
fn send(client: &mut Client, request: &[u8], expected: &Value) -> Result<Response> {
    let response = client.send(request)?;
    let json: Value = match response.head.encoding.as_deref() {
        None => serde_json::from_slice(&response.body)?,
        Some("br") => serde_json::from_reader(brotli::Decompressor::new(response.body.as_slice(), 4096))?,
        Some("gzip") => serde_json::from_reader(GzDecoder::new(response.body.as_slice()))?,
        Some(other) => return Err(format!("unexpected Content-Encoding: {other}").into()),
    };
    if response.head.status != OK || json != *expected {
        let status = response.head.status;
        return Err(format!("wrong response: {status} {json}\nexpected: {expected}").into());
    }
    Ok(response)
}
