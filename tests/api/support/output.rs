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
}

impl Output {
    /// Reads `stream` to its end.
    pub fn of(stream: OwnedFd) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let read = text.clone();
        let reading = std::thread::spawn(move || {
            let mut stream = BufReader::new(File::from(stream));
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                read.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reading: Some(reading) }
    }

    /// All that has come.
    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Waits for the end of the stream, which comes with the end of the process.
    pub fn finish(&mut self) {
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
    }
}
