//! What a process writes. Threads read it, rather than tasks, so that the last of it can be waited for where there is no
//! `await`: when a gateway is dropped.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

/// What has come out of a stream so far.
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

    /// Reads nothing of `stream` yet, so that whoever writes to it finds it full at some point.
    pub fn unread(stream: OwnedFd) -> Self {
        Self { text: Arc::default(), reading: None, unread: Some(stream) }
    }

    /// Reads the stream to its end, from now on.
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

    /// All that has come.
    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Waits for the end of the stream, which comes with the end of the process.
    pub fn finish(&mut self) {
        self.read();
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
    }
}
