#![doc = include_str!("../README.md")]

pub mod env;
pub mod model;

mod engine;
mod epoch;
mod error;
mod format;
mod identity;
mod journal;
mod layout;
mod options;
mod port;
mod port_file;
mod store;
mod sync;
mod view;

pub use engine::Commit;
pub use epoch::Epoch;
pub use error::{Error, Result};
pub use journal::TornTail;
pub use model::{
    Batch, BatchError, Change, CommandError, CommandKind, Content, Entry, KeyPath, Limit, LimitExceeded,
    NameError, Value, ValueRef, ValueType,
};
pub use options::{Options, Progress};
pub use port::{Notification, Port, PortInfo};
pub use store::{Stat, Store};
pub use view::{BatchView, Batches, JournalView};
