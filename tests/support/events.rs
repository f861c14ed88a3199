//! Listens to the warnings of this thread, or of all.

use std::io;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Text {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        let writer = self.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish()
    }
}

/// What was done, and the warnings of it.
pub fn record<R>(act: impl FnOnce() -> R) -> (R, String) {
    let text = Text::default();
    let done = tracing::subscriber::with_default(text.subscriber(), act);
    (done, text.text())
}

/// The warnings of all threads, from now on. Once in a process.
pub struct Told(Text);

pub fn record_all() -> Told {
    let text = Text::default();
    tracing::subscriber::set_global_default(text.subscriber()).unwrap();
    Told(text)
}

impl Told {
    pub fn text(&self) -> String {
        self.0.text()
    }
}
