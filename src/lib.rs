#![doc = include_str!("../README.md")]

// The probe of the tests names the crate as its users do.
#[cfg(test)]
extern crate self as clusdb;

pub mod env;
pub mod model;

mod backup_file;
mod code;
mod engine;
mod epoch;
mod error;
mod format;
mod identity;
mod journal;
#[cfg(feature = "json")]
pub mod json;
mod layout;
#[cfg(all(test, clusdb_loom))]
#[path = "loom_tests.rs"]
mod models;
mod options;
mod port;
mod port_file;
#[cfg(test)]
#[path = "../tests/support/probe.rs"]
mod probe;
mod reader;
mod snapshot;
mod store;
mod sync;
mod tree;
mod trim_note;
mod view;

pub use code::codes;
pub use engine::{Backup, CheckReport, Commit, OpenedFrom, Repair, Restored, Trimmed};
pub use epoch::Epoch;
pub use error::{AcknowledgementRefusal, Error, Result, TrimReason};
pub use journal::TornTail;
pub use model::wire;
pub use model::{
    AsValueName, Batch, BatchError, Change, CommandError, CommandKind, ConditionKind, Content, Control,
    Entry, FailedCondition, KeyInfo, KeyPath, Limit, LimitExceeded, NameError, ReadBatch, ReadReply, Value,
    ValueName, ValueRef, ValueType,
};
pub use options::{Options, Progress};
pub use port::{Contents, Notification, Port, PortInfo};
pub use reader::{Reader, Stat};
pub use store::Store;
pub use view::{BatchView, Batches, JournalView};
