//! What the machine can do at best: each written by hand, with nothing around it.

mod file;
mod memory;
mod ping;
mod records;
mod tree;

pub use file::RawFile;
pub use memory::memcpy;
pub use ping::{CondvarPing, FutexPing, Ping};
pub use records::{Records, RecordsWriter};
pub use tree::{RawRows, RawTree};
