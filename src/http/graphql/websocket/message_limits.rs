//! Limits on the frames that a client sends over a WebSocket, enforced below the library that assembles messages.
//!
//! tungstenite returns whole messages: it neither counts frames nor reports a message that does not end.
//! [`MeteredStream`] lies between it and the connection. It parses the frame headers with tungstenite's own parser, and
//! passes the bytes on unchanged. It stops reading while the token bucket is empty: back-pressure costs the gateway
//! nothing, and delays a client that sends a burst instead of disconnecting it. All other violations close the
//! WebSocket.

use std::{
    io::{self, Cursor},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

use super::close_code::CloseCode;
use crate::{config::websocket::WebSocketConfig, error::limit::Limit, metrics::metrics};

/// The size of the read buffer of each WebSocket. Unfinished messages up to this size do not count in
/// `websocket.max_partial`.
pub(crate) const READ_BUFFER: usize = 4 * 1024;

/// The length of an empty masked frame. Shorter frames are unmasked, and the first of them ends the session.
const MIN_FRAME: u64 = 6;

/// The length of the longest frame header.
const MAX_HEADER: usize = 14;

/// A violated limit, which closes the WebSocket. The message is the reason in the close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum LimitViolation {
    #[error("Message exceeds the limit (websocket.max_message)")]
    MaxMessage,
    #[error("Message exceeds the limit without a valid token (websocket.init_max_message)")]
    InitMaxMessage,
    #[error("Message not completed in time (websocket.message_timeout)")]
    MessageTimeout,
    #[error("Server overloaded by unfinished messages (websocket.max_partial). Retry later")]
    MaxPartial,
}

impl LimitViolation {
    /// The violation behind a read error, if it was one.
    pub(crate) fn from_error(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// The name of the limit in metrics.
    pub(crate) fn limit(self) -> Limit {
        match self {
            Self::MaxMessage => Limit::WebSocketMessage,
            Self::InitMaxMessage => Limit::WebSocketInitMessage,
            Self::MessageTimeout => Limit::WebSocketMessageTimeout,
            Self::MaxPartial => Limit::WebSocketPartialMessages,
        }
    }

    /// The code in the close frame.
    pub(crate) fn code(self) -> CloseCode {
        match self {
            Self::MaxMessage | Self::InitMaxMessage => CloseCode::MessageTooBig,
            Self::MessageTimeout => CloseCode::Timeout,
            Self::MaxPartial => CloseCode::TryAgainLater,
        }
    }
}

impl From<LimitViolation> for io::Error {
    fn from(violation: LimitViolation) -> Self {
        Self::other(violation)
    }
}

/// A connection that enforces the limits on incoming frames.
#[derive(Debug)]
pub(crate) struct MeteredStream<S> {
    stream: S,
    frames: FrameParser,
    bucket: TokenBucket,
    /// Runs while the bucket is empty.
    pause: Option<Pin<Box<Sleep>>>,
    /// Runs while a message is unfinished.
    message_timer: Option<Pin<Box<Sleep>>>,
    message_timeout: Duration,
    max_message: u64,
    init_max_message: u64,
    is_authenticated: bool,
    unfinished: UnfinishedBytes,
}

impl<S> MeteredStream<S> {
    /// Wraps `stream`, with the limits of `config`.
    pub(crate) fn new(stream: S, config: &WebSocketConfig, partial: Arc<PartialMessages>) -> Self {
        Self {
            stream,
            frames: FrameParser::default(),
            bucket: TokenBucket::new(config.messages_per_second, Instant::now()),
            pause: None,
            message_timer: None,
            message_timeout: config.message_timeout,
            max_message: config.max_message.as_u64(),
            init_max_message: config.init_max_message.as_u64(),
            is_authenticated: false,
            unfinished: UnfinishedBytes { total: partial, bytes: 0 },
        }
    }

    /// Allows messages up to `websocket.max_message` from now on.
    pub(crate) fn raise_message_limit(&mut self) {
        self.is_authenticated = true;
    }

    /// Extends a running `websocket.message_timeout` by `time`, in which nothing was read.
    pub(crate) fn extend_timeout(&mut self, time: Duration) {
        if let Some(timer) = &mut self.message_timer {
            let deadline = timer.deadline() + time;
            timer.as_mut().reset(deadline);
        }
    }

    /// The wrapped connection.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The number of frames allowed now. Pending while it is 0.
    fn poll_allowance(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        loop {
            let allowance = self.bucket.available(Instant::now());
            if allowance > 0 {
                return Poll::Ready(allowance);
            }
            let next = self.bucket.next_token();
            let pause = self.pause.get_or_insert_with(|| {
                metrics().limited.count(Limit::WebSocketMessageRate.as_str());
                Box::pin(sleep_until(next))
            });
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
    }

    /// Checks the bytes just read against the limits.
    fn check(&mut self, mut bytes: &[u8]) -> Result<(), LimitViolation> {
        let now = Instant::now();
        while let Some(message) = self.frames.next_frame(&mut bytes) {
            self.bucket.take(now);
            if message > self.max_message {
                return Err(LimitViolation::MaxMessage);
            }
            if message > self.init_max_message && !self.is_authenticated {
                return Err(LimitViolation::InitMaxMessage);
            }
        }
        let unfinished = self.frames.unfinished();
        if std::mem::take(&mut self.frames.has_finished) || unfinished == 0 {
            self.message_timer = None;
        }
        if unfinished > 0 && self.message_timer.is_none() {
            self.message_timer = Some(Box::pin(sleep(self.message_timeout)));
        }
        self.unfinished.set(unfinished.saturating_sub(READ_BUFFER as u64))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // The rest of the current frame, which has been counted, or else the minimum length of the allowed frames.
        let max_read = match this.frames.rest() {
            0 => ready!(this.poll_allowance(cx)) * MIN_FRAME,
            rest => rest,
        };
        let max_read = usize::try_from(max_read).unwrap_or(usize::MAX).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(max_read));
        let read = Pin::new(&mut this.stream).poll_read(cx, &mut part)?;
        if read.is_ready() {
            this.check(part.filled())?;
        }
        // After the read, which may have completed the message in time.
        if let Some(timer) = &mut this.message_timer
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(LimitViolation::MessageTimeout.into()));
        }
        ready!(read);
        let read = part.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// An incremental parser of frames and messages.
#[derive(Debug, Default)]
struct FrameParser {
    /// The start of an incomplete header.
    header: [u8; MAX_HEADER],
    buffered: usize,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// The payload size of the fragments of an unfinished message.
    fragments: Option<u64>,
    /// Whether a message was completed since this was reset.
    has_finished: bool,
    /// Whether a header was malformed. tungstenite rejects it too, and the session ends.
    is_broken: bool,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    length: u64,
    rest: u64,
    is_control: bool,
    is_final: bool,
}

impl FrameParser {
    /// Parses up to the end of the next frame header, and returns the size of its message including that frame. None at
    /// the end of `bytes`.
    fn next_frame(&mut self, bytes: &mut &[u8]) -> Option<u64> {
        loop {
            match &mut self.frame {
                Some(frame) if frame.rest == 0 => self.finish_frame(),
                _ if bytes.is_empty() || self.is_broken => return None,
                Some(frame) => {
                    let passed = frame.rest.min(bytes.len() as u64);
                    frame.rest -= passed;
                    *bytes = &bytes[passed as usize..];
                }
                None => {
                    let size = self.parse_header(bytes);
                    if size.is_some() {
                        return size;
                    }
                }
            }
        }
    }

    fn parse_header(&mut self, bytes: &mut &[u8]) -> Option<u64> {
        let before = self.buffered;
        let taken = bytes.len().min(MAX_HEADER - before);
        self.buffered += taken;
        self.header[before..self.buffered].copy_from_slice(&bytes[..taken]);
        let mut cursor = Cursor::new(&self.header[..self.buffered]);
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(header)) => header,
            Ok(None) => {
                *bytes = &bytes[taken..];
                return None;
            }
            Err(_) => {
                self.is_broken = true;
                return None;
            }
        };
        *bytes = &bytes[cursor.position() as usize - before..];
        self.buffered = 0;
        let is_control = matches!(header.opcode, OpCode::Control(_));
        self.frame = Some(Frame { length, rest: length, is_control, is_final: header.is_final });
        let before = match header.opcode {
            OpCode::Data(Data::Continue) => self.fragments.unwrap_or(0),
            OpCode::Data(_) | OpCode::Control(_) => 0,
        };
        Some(before.saturating_add(length))
    }

    fn finish_frame(&mut self) {
        let Some(frame) = self.frame.take() else { return };
        if !frame.is_control {
            self.fragments =
                (!frame.is_final).then(|| self.fragments.unwrap_or(0).saturating_add(frame.length));
        }
        self.has_finished |= self.fragments.is_none();
    }

    /// The number of payload bytes left in the current frame.
    fn rest(&self) -> u64 {
        self.frame.map_or(0, |frame| frame.rest)
    }

    /// The size of the unfinished message, including the announced length of its current frame, for which tungstenite
    /// allocates at once. 0 between messages.
    fn unfinished(&self) -> u64 {
        let fragments = self.fragments.map_or(0, |bytes| bytes.saturating_add(1));
        let frame = self.frame.map_or(self.buffered as u64, |frame| frame.length);
        fragments.saturating_add(frame)
    }
}

/// A token bucket whose burst is one second of its rate.
#[derive(Debug)]
struct TokenBucket {
    interval: Duration,
    burst: u32,
    full_at: Instant,
}

impl TokenBucket {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), burst: per_second, full_at: now }
    }

    fn available(&self, now: Instant) -> u64 {
        let missing = self.full_at.saturating_duration_since(now).as_nanos();
        let missing = missing.div_ceil(self.interval.as_nanos().max(1));
        u64::from(self.burst).saturating_sub(u64::try_from(missing).unwrap_or(u64::MAX))
    }

    fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval;
    }

    /// The time of the next token, if there is none now.
    fn next_token(&self) -> Instant {
        self.full_at - self.interval * self.burst.saturating_sub(1)
    }
}

/// The memory of unfinished messages of all WebSockets, bounded by `websocket.max_partial`.
#[derive(Debug)]
pub struct PartialMessages {
    bytes: AtomicU64,
    max_bytes: u64,
}

impl PartialMessages {
    /// A memory limit of `max_bytes`.
    pub fn new(max_bytes: u64) -> Self {
        Self { bytes: AtomicU64::new(0), max_bytes }
    }
}

/// The part of [`PartialMessages`] that one WebSocket uses.
#[derive(Debug)]
struct UnfinishedBytes {
    total: Arc<PartialMessages>,
    bytes: u64,
}

impl UnfinishedBytes {
    fn set(&mut self, bytes: u64) -> Result<(), LimitViolation> {
        let PartialMessages { bytes: total, max_bytes } = &*self.total;
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let grow = |total: u64| total.checked_add(more).filter(|sum| sum <= max_bytes);
            total
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow)
                .map_err(|_| LimitViolation::MaxPartial)?;
        } else if bytes < self.bytes {
            total.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for UnfinishedBytes {
    fn drop(&mut self) {
        self.total.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::config::Config;

    /// A frame as a client sends it.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..=125 => bytes.push(0x80 | length as u8),
            126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.resize(bytes.len() + length, b'x');
        bytes
    }

    fn metered(bytes: &[u8]) -> (MeteredStream<&[u8]>, Arc<PartialMessages>) {
        let mut config = Config::default().websocket;
        config.messages_per_second = 10;
        let partial = Arc::new(PartialMessages::new(1 << 20));
        (MeteredStream::new(bytes, &config, partial.clone()), partial)
    }

    #[test]
    fn the_size_of_a_message_includes_its_fragments() {
        let mut frames = FrameParser::default();
        let bytes = [frame(0x01, 5), frame(0x00, 70_000), frame(0x89, 3), frame(0x80, 1), frame(0x81, 9)];
        let bytes = bytes.concat();
        let mut rest = bytes.as_slice();
        let sizes: Vec<_> = std::iter::from_fn(|| frames.next_frame(&mut rest)).collect();
        assert_eq!(sizes, [5, 70_005, 3, 70_006, 9]);
        assert_eq!((frames.unfinished(), frames.has_finished), (0, true));
    }

    #[test]
    fn an_unfinished_message_counts_with_its_announced_length() {
        for (bytes, unfinished) in [
            (frame(0x81, 1000)[..1].to_vec(), 1),
            (frame(0x81, 1000)[..20].to_vec(), 1000),
            (frame(0x01, 0), 1),
            (frame(0x01, 10), 11),
            ([frame(0x01, 10), frame(0x89, 5)].concat(), 11),
        ] {
            let mut frames = FrameParser::default();
            let mut rest = bytes.as_slice();
            while frames.next_frame(&mut rest).is_some() {}
            assert_eq!((frames.unfinished(), frames.has_finished), (unfinished, false), "{bytes:?}");
        }
    }

    #[test]
    fn a_bucket_holds_one_second_and_refills_evenly() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(4, start);
        (0..4).for_each(|_| bucket.take(start));
        assert_eq!(bucket.available(start), 0);
        assert_eq!(bucket.next_token(), start + Duration::from_millis(250));
        assert_eq!(bucket.available(bucket.next_token()), 1);
        assert_eq!(bucket.available(start + Duration::from_secs(60)), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_beyond_the_rate_are_delayed() {
        for kind in [0x81, 0x89, 0x8a, 0x01] {
            let continued = if kind == 0x01 { 0x00 } else { kind };
            let frames: Vec<_> =
                [kind].into_iter().chain([continued; 29]).flat_map(|first| frame(first, 1)).collect();
            let (mut metered, _) = metered(&frames);
            let (start, mut read) = (Instant::now(), Vec::new());
            metered.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, frames);
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(1900), "{kind:x}: {took:?}");
            assert!(took <= Duration::from_millis(2200), "{kind:x}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_message_timeout_runs_from_the_first_byte_to_the_last() {
        let (end, mut client) = tokio::io::duplex(1024);
        let config = Config::default().websocket;
        let mut metered = MeteredStream::new(end, &config, Arc::new(PartialMessages::new(1 << 20)));
        let sending = async {
            // Each of these messages is completed in time. The one after them is not.
            for _ in 0..4 {
                for half in frame(0x81, 10).chunks(8) {
                    tokio::io::AsyncWriteExt::write_all(&mut client, half).await.unwrap();
                    tokio::time::sleep(config.message_timeout / 2).await;
                }
            }
            for byte in frame(0x81, 100) {
                let sent = tokio::io::AsyncWriteExt::write_all(&mut client, &[byte]).await;
                if sent.is_err() {
                    break;
                }
                tokio::time::sleep(config.message_timeout / 20).await;
            }
        };
        let reading = async {
            let mut read = Vec::new();
            let error = metered.read_to_end(&mut read).await.unwrap_err();
            drop(metered);
            (LimitViolation::from_error(&error), read.len())
        };
        let ((violation, read), ()) = tokio::join!(reading, sending);
        assert_eq!(violation, Some(LimitViolation::MessageTimeout));
        assert!((80..90).contains(&read), "{read}");
    }

    #[tokio::test]
    async fn memory_of_unfinished_messages_is_counted_and_freed() {
        let half = frame(0x01, 10 * 1024);
        let (mut one, partial) = metered(&half);
        let mut read = Vec::new();
        one.read_to_end(&mut read).await.unwrap();
        assert_eq!(partial.bytes.load(Ordering::Relaxed), 6 * 1024 + 1);
        drop(one);
        assert_eq!(partial.bytes.load(Ordering::Relaxed), 0);
    }

    proptest! {
        #[test]
        fn frames_are_found_however_the_bytes_are_split(
            lengths in proptest::collection::vec((0_usize..300, any::<bool>()), 1..20),
            cut in 1_usize..40,
        ) {
            let bytes = lengths.iter().flat_map(|(length, is_ping)| frame(if *is_ping { 0x89 } else { 0x81 }, *length));
            let bytes: Vec<_> = bytes.collect();
            let mut frames = FrameParser::default();
            let mut sizes = Vec::new();
            for mut part in bytes.chunks(cut) {
                while let Some(size) = frames.next_frame(&mut part) {
                    sizes.push(size as usize);
                }
            }
            prop_assert_eq!(sizes, lengths.iter().map(|(length, _)| *length).collect::<Vec<_>>());
            prop_assert_eq!(frames.unfinished(), 0);
        }

        #[test]
        fn parsing_never_panics(bytes: Vec<u8>, cut in 1_usize..20) {
            let mut frames = FrameParser::default();
            for mut part in bytes.chunks(cut) {
                while frames.next_frame(&mut part).is_some() {}
            }
            frames.unfinished();
        }
    }
}
