//! A page for models, in the place of the mapped one: as many words as a head has, which all who have mapped it share.
#![allow(missing_docs)]

use std::io;

use crate::sync::Arc;
use crate::sync::atomic::{AtomicU32, AtomicU64};

/// Words in the head's first bytes; the others are never accessed.
const WORDS: usize = 16;

#[derive(Debug, Clone)]
pub struct Page {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    words: [AtomicU64; WORDS],
    half: AtomicU32,
}

impl Page {
    /// There are no files in models.
    pub(super) fn of_file(_: &std::fs::File) -> io::Result<Page> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn of_words(word: impl FnMut(usize) -> u64) -> Page {
        let mut words = (0..WORDS).map(word);
        Page {
            shared: Arc::new(Shared {
                words: [(); WORDS].map(|()| AtomicU64::new(words.next().unwrap_or(0))),
                half: AtomicU32::new(0),
            }),
        }
    }

    pub fn word(&self, index: usize) -> &AtomicU64 {
        &self.shared.words[index]
    }

    /// The one half word that there is, whatever word it is in.
    pub fn half(&self, _: usize) -> &AtomicU32 {
        &self.shared.half
    }
}
