//! The output of a process. Threads read it rather than tasks, so that `Drop` can wait for the rest of it.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

/// The text read from a stream so far.
pub struct Output {
    text: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
    unread: Option<OwnedFd>,
}

impl Output {
    /// Reads `stream` to its end.
    pub fn of(stream: OwnedFd) -> Self {
        let mut output = Self::unread(stream);
        output.read();
        output
    }

    /// Does not read `stream` yet, so that its pipe fills up.
    pub fn unread(stream: OwnedFd) -> Self {
        Self { text: Arc::default(), reading: None, unread: Some(stream) }
    }

    /// Starts to read the stream.
    pub fn read(&mut self) {
        let Some(stream) = self.unread.take() else { return };
        let read = self.text.clone();
        self.reading = Some(std::thread::spawn(move || {
            let mut stream = BufReader::new(File::from(stream));
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                read.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }));
    }

    /// The text so far.
    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Waits for the end of the stream, when the process exits.
    pub fn finish(&mut self) {
        self.read();
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
    }
}
