//! A bounded buffer in front of the writer thread of the log.
//!
//! Logging never blocks: a line is copied into the buffer, or dropped if the buffer is full (load shedding). A slow reader
//! of standard error therefore costs log lines only.
//!
//! `log.buffer` bounds the buffer in bytes. The batch being written takes as much again at most. When there is room again,
//! a line reports the number of dropped lines.

use std::{
    cell::Cell,
    fmt,
    io::{self, Write},
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::metrics::metrics;

/// Extra room for the report of dropped lines. Only the writer thread uses it.
const REPORT_SIZE: usize = 1024;

/// The pause after a failed write.
const BACKOFF: Duration = Duration::from_millis(100);

thread_local! {
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

/// Lines waiting for the writer thread.
pub(crate) struct LogBuffer {
    state: Mutex<BufferState>,
    filled: Condvar,
    written: Condvar,
    max: usize,
}

#[derive(Default)]
struct BufferState {
    lines: Vec<u8>,
    /// The number of lines.
    count: u64,
    /// The number of lines dropped since the last report.
    dropped: u64,
    /// Whether a batch is being written.
    is_writing: bool,
}

impl LogBuffer {
    pub(crate) fn new(max: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), written: Condvar::new(), max }
    }

    /// Waits until all lines are written, for at most `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let is_pending = |state: &mut BufferState| state.is_writing || !state.lines.is_empty();
        let _ = self.written.wait_timeout_while(self.lock(), timeout, is_pending);
    }

    /// Appends a line, or drops it if the buffer is full.
    fn push(&self, line: &[u8]) {
        let extra = if IS_WRITER.get() { REPORT_SIZE } else { 0 };
        let mut state = self.lock();
        if state.lines.len() + line.len() > self.max + extra {
            state.dropped += 1;
            drop(state);
            metrics().log_lines_dropped.inc();
            return;
        }
        let was_empty = state.lines.is_empty();
        state.lines.extend_from_slice(line);
        state.count += 1;
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Writes batches of lines. Never returns.
    fn write_to(&self, mut writer: impl Write) {
        IS_WRITER.set(true);
        let mut batch = Vec::new();
        loop {
            let count = self.next(&mut batch);
            if writer.write_all(&batch).and_then(|()| writer.flush()).is_err() {
                self.lock().dropped += count;
                metrics().log_lines_dropped.inc_by(count);
                // Prevents a busy loop.
                thread::sleep(BACKOFF);
                continue;
            }
            // Only after a successful write: otherwise the report would be lost as well, and cause another one.
            let dropped = mem::take(&mut self.lock().dropped);
            if dropped > 0 {
                tracing::warn!("{dropped} log lines were dropped");
            }
        }
    }

    /// Waits for lines and moves all of them into `batch`. Returns their number.
    fn next(&self, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        let mut state = self.lock();
        state.is_writing = false;
        self.written.notify_all();
        let is_idle = |state: &mut BufferState| state.lines.is_empty();
        state = self.filled.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut state.lines, batch);
        state.is_writing = true;
        mem::take(&mut state.count)
    }

    fn lock(&self) -> MutexGuard<'_, BufferState> {
        // No code panics while holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the writer thread of `buffer`.
pub(crate) fn spawn(buffer: &'static LogBuffer, writer: impl Write + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("log".to_owned());
    thread.spawn(move || buffer.write_to(writer)).map(drop)
}

impl Write for &LogBuffer {
    /// Each call passes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for LogBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogBuffer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Reports each batch, and reads it only on demand.
    struct SlowReader {
        batches: mpsc::Sender<Vec<u8>>,
        may_read: mpsc::Receiver<()>,
    }

    impl Write for SlowReader {
        fn write(&mut self, batch: &[u8]) -> io::Result<usize> {
            self.batches.send(batch.to_vec()).unwrap();
            let _ = self.may_read.recv();
            Ok(batch.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_beyond_the_bound_are_dropped_and_counted() {
        let log: &'static LogBuffer = Box::leak(Box::new(LogBuffer::new(10)));
        let ((batches, taken), (may_read, permits)) = (mpsc::channel(), mpsc::channel());
        spawn(log, SlowReader { batches, may_read: permits }).unwrap();
        log.push(b"first\n");
        assert_eq!(taken.recv().unwrap(), b"first\n", "the reader has stalled");
        for line in [&b"12345\n"[..], b"too long\n", b"123\n", b"\n"] {
            log.push(line);
        }
        assert_eq!(log.lock().dropped, 2);
        log.flush(Duration::from_millis(1));
        assert!(log.lock().is_writing, "flush times out");
        may_read.send(()).unwrap();
        assert_eq!(taken.recv().unwrap(), b"12345\n123\n");
        may_read.send(()).unwrap();
        log.flush(Duration::from_secs(30));
        log.push(b"resumed\n");
        assert_eq!(taken.recv().unwrap(), b"resumed\n");
    }
}
