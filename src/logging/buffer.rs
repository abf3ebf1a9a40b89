//! A bounded buffer between those who log and a writer thread, so that a reader that stalls costs lines of the log and
//! nothing else: whoever logs copies the line into the buffer, or drops it where there is no room, and goes on.
//!
//! The buffer is bounded in bytes (`log.buffer`). While one batch of lines is written, the next gathers, so lines take
//! twice as much at most. Once there is room again, a line says how many were dropped.

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

/// Room for the line that reports dropped lines, which only the writer thread uses.
const REPORT: usize = 1024;

/// The pause after a failed write.
const BACKOFF: Duration = Duration::from_millis(100);

thread_local! {
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

/// Lines on their way to a writer.
pub(crate) struct LogBuffer {
    state: Mutex<State>,
    filled: Condvar,
    written: Condvar,
    max: usize,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// How many lines that is.
    count: u64,
    /// How many were dropped since that was reported.
    dropped: u64,
    /// Whether a batch is being written.
    is_writing: bool,
}

impl LogBuffer {
    pub(crate) fn new(max: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), written: Condvar::new(), max }
    }

    /// Waits until all lines are written, for as long as `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let is_behind = |state: &mut State| state.is_writing || !state.lines.is_empty();
        let _ = self.written.wait_timeout_while(self.lock(), timeout, is_behind);
    }

    /// Takes a whole line, or drops it.
    fn push(&self, line: &[u8]) {
        let room = if IS_WRITER.get() { REPORT } else { 0 };
        let mut state = self.lock();
        if state.lines.len() + line.len() > self.max + room {
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

    /// Writes batches of lines for ever.
    fn write_to(&self, mut writer: impl Write) {
        IS_WRITER.set(true);
        let mut batch = Vec::new();
        loop {
            let count = self.next(&mut batch);
            if writer.write_all(&batch).and_then(|()| writer.flush()).is_err() {
                self.lock().dropped += count;
                metrics().log_lines_dropped.inc_by(count);
                // A writer that fails at once would keep this thread busy.
                thread::sleep(BACKOFF);
                continue;
            }
            // Only to a reader that reads: the report would be lost like the lines, and be a reason for another one.
            let dropped = mem::take(&mut self.lock().dropped);
            if dropped > 0 {
                tracing::warn!("{dropped} log lines were dropped");
            }
        }
    }

    /// Waits for lines and takes all that there are; returns their number.
    fn next(&self, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        let mut state = self.lock();
        state.is_writing = false;
        self.written.notify_all();
        let is_idle = |state: &mut State| state.lines.is_empty();
        state = self.filled.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut state.lines, batch);
        state.is_writing = true;
        mem::take(&mut state.count)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread that writes the lines of `buffer`.
pub(crate) fn spawn(buffer: &'static LogBuffer, writer: impl Write + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("log".to_owned());
    thread.spawn(move || buffer.write_to(writer)).map(drop)
}

impl Write for &LogBuffer {
    /// Each write is a whole line.
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

    /// Tells of each batch, and takes it only when it may.
    struct Reader {
        batches: mpsc::Sender<Vec<u8>>,
        may_read: mpsc::Receiver<()>,
    }

    impl Write for Reader {
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
    fn lines_wait_for_the_reader_and_those_beyond_the_bound_are_dropped() {
        let log: &'static LogBuffer = Box::leak(Box::new(LogBuffer::new(10)));
        let ((batches, taken), (may_read, permits)) = (mpsc::channel(), mpsc::channel());
        spawn(log, Reader { batches, may_read: permits }).unwrap();
        log.push(b"first\n");
        assert_eq!(taken.recv().unwrap(), b"first\n", "the reader stalls on it");
        for line in [&b"12345\n"[..], b"too long\n", b"123\n", b"\n"] {
            log.push(line);
        }
        assert_eq!(log.lock().dropped, 2);
        log.flush(Duration::from_millis(1));
        assert!(log.lock().is_writing, "a flush does not wait for ever");
        may_read.send(()).unwrap();
        assert_eq!(taken.recv().unwrap(), b"12345\n123\n");
        may_read.send(()).unwrap();
        log.flush(Duration::from_secs(30));
        log.push(b"resumed\n");
        assert_eq!(taken.recv().unwrap(), b"resumed\n");
    }
}
