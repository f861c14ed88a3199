//! The model: what a registry is and what a batch does to it. Pure: no I/O, no clock, no lock.
//!
//! [`evaluate`] decides what a batch would do to a [`View`] and gives a [`Record`]; [`State::apply`] does what the
//! record says, blindly. Everything else in the crate is about keeping records.

pub mod case_table;
pub mod wire;

mod batch;
mod change;
mod component;
mod condition;
mod copy;
mod current;
mod decode;
mod digest;
mod error;
mod evaluate;
mod folded;
mod key;
mod keys;
mod load;
mod names;
mod overlay;
mod plain;
mod read;
mod record;
mod sorted;
mod state;
mod tags;
mod value;
mod value_name;
mod values;
mod view;

pub use batch::{Batch, Control};
pub use change::{Change, CommandKind};
pub use condition::{ConditionKind, FailedCondition};
pub use digest::Digest;
pub use error::{BatchError, CommandError, Limit, LimitExceeded, MalformedRecord, NameError};
pub use evaluate::{Limits, MAX_CREATED_LEVELS, evaluate};
pub use folded::Folded;
pub use key::{KeyPath, MAX_KEY_DEPTH, MAX_KEY_NAME_UNITS, MAX_VALUE_NAME_UNITS, SEPARATOR};
pub use overlay::Overlay;
pub use plain::PlainWrite;
pub use read::{KeyInfo, ReadBatch, ReadReply};
pub use record::{MAX_RECORD_BYTES, Record, RecordView};
pub use state::{Entry, State};
pub use value::{Content, Value, ValueRef, ValueType};
pub use value_name::{AsValueName, ValueName};
pub use view::{KeyView, View};

pub(crate) use batch::Acknowledgement;
pub(crate) use copy::{EntryName, Stored};
pub(crate) use key::{Relation, ancestors, parent, relation};
pub(crate) use load::{Loader, NameRef, StoredRef};
pub(crate) use overlay::{Decisions, Layer};
pub(crate) use record::{Changes, Run, Runs};
pub(crate) use state::RecordApplied;
