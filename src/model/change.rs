//! One change of a record, borrowed from it.

use std::fmt;

use super::record::COST_BYTES;
use super::value::{Quoted, ValueRef};

/// What a command of the registry did; the numbers are its own (specification, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum CommandKind {
    /// SET_VALUE.
    SetValue = 1,
    /// CREATE_KEY.
    CreateKey = 2,
    /// DELETE_KEY.
    DeleteKey = 3,
    /// DELETE_VALUE.
    DeleteValue = 4,
    /// VALUE_DELETED: in a stream of [`commands`](crate::BatchView::commands) only, the data that was there before.
    ValueDeleted = 6,
}

impl CommandKind {
    /// The name in lower case: `"set_value"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CommandKind::SetValue => "set_value",
            CommandKind::CreateKey => "create_key",
            CommandKind::DeleteKey => "delete_key",
            CommandKind::DeleteValue => "delete_value",
            CommandKind::ValueDeleted => "value_deleted",
        }
    }

    pub(super) fn from_recorded(number: u8) -> Option<CommandKind> {
        match number {
            1 => Some(CommandKind::SetValue),
            2 => Some(CommandKind::CreateKey),
            3 => Some(CommandKind::DeleteKey),
            4 => Some(CommandKind::DeleteValue),
            _ => None,
        }
    }
}

/// One change of a record: a command, what it set and what was there before. Borrows from the record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    pub(super) kind: CommandKind,
    pub(super) key: &'a str,
    pub(super) name: &'a str,
    pub(super) value: Option<ValueRef<'a>>,
    pub(super) previous: Option<ValueRef<'a>>,
    pub(super) changed: bool,
}

impl<'a> Change<'a> {
    /// What applying it costs, as [`RecordView::cost`](super::RecordView) counts.
    pub(super) fn cost(&self) -> usize {
        1 + self.value.map_or(0, |value| value.data.len()) / COST_BYTES
    }

    /// Which command it was.
    #[must_use]
    pub fn kind(&self) -> CommandKind {
        self.kind
    }

    /// Full path of the key, as it is stored; as the command gave it where no such key exists.
    #[must_use]
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// Name of the value, as it is stored; none for the commands on keys.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        match self.kind {
            CommandKind::CreateKey | CommandKind::DeleteKey => None,
            _ => Some(self.name),
        }
    }

    /// What SET_VALUE set; for VALUE_DELETED, what was there before.
    #[must_use]
    pub fn value(&self) -> Option<ValueRef<'a>> {
        self.value
    }

    /// What SET_VALUE replaced or DELETE_VALUE removed, at that moment, inside the same batch too.
    #[must_use]
    pub fn previous(&self) -> Option<ValueRef<'a>> {
        self.previous
    }

    /// Whether the command changed anything.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// The registry's own two steps: VALUE_DELETED with the old data where there was some, then the command itself
    /// (specification, section 3).
    pub(crate) fn commands(self) -> impl Iterator<Item = Change<'a>> {
        let deleted = self.previous.map(|previous| Change {
            kind: CommandKind::ValueDeleted,
            value: Some(previous),
            previous: None,
            ..self
        });
        let command = Change {
            previous: None,
            ..self
        };
        deleted.into_iter().chain([command])
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), Quoted(self.key))?;
        if let Some(name) = self.name() {
            write!(f, " {}", Quoted(name))?;
        }
        if let Some(value) = self.value {
            write!(f, " = {value}")?;
        }
        if let Some(previous) = self.previous {
            write!(f, " (was {previous})")?;
        }
        if !self.changed {
            f.write_str(" (no change)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Change({self})")
    }
}
