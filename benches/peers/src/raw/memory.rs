//! Copying bytes.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long one copy of them takes, into memory that was touched before.
pub fn memcpy(from: &[u8], to: &mut [u8]) -> Duration {
    let began = Instant::now();
    to.copy_from_slice(black_box(from));
    black_box(to);
    began.elapsed()
}
