//! Decoding records: the other side of what `record.rs` encodes with bincode.
//!
//! By hand, since a notification of a million changes spends its time here and bincode takes twice as long; that both say the same
//! of the same bytes is a test in `record/tests.rs`. Nothing is copied, and nothing is allocated by a length that was not verified.

use super::change::{Change, CommandKind};
use super::value::{ValueRef, ValueType};

/// Takes the parts of a record from the front of its bytes. None where they are not what should stand there.
#[derive(Debug, Clone)]
pub(super) struct Decoder<'a> {
    pub(super) rest: &'a [u8],
}

/// What stands at the front of a record.
pub(super) struct RecordHead {
    pub(super) runs: u32,
    pub(super) changes: u32,
    /// The id of a port, and how far it has acknowledged.
    pub(super) acknowledgement: Option<([u8; 16], u64)>,
}

/// What stands at the front of a run.
pub(super) struct RunHead<'a> {
    pub(super) key: &'a str,
    pub(super) changes: u32,
    /// Of its changes.
    pub(super) bytes: u32,
}

/// A change whose name may be anything.
pub(super) struct EncodedChange<'a> {
    pub(super) kind: CommandKind,
    changed: bool,
    name: &'a [u8],
    value: Option<ValueRef<'a>>,
    previous: Option<ValueRef<'a>>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Decoder<'a> {
        Decoder { rest }
    }

    pub(super) fn record_head(&mut self) -> Option<RecordHead> {
        let (runs, changes) = (self.u32()?, self.u32()?);
        let acknowledgement = match self.bool()? {
            true => Some((*self.array()?, self.u64()?)),
            false => None,
        };
        Some(RecordHead {
            runs,
            changes,
            acknowledgement,
        })
    }

    pub(super) fn run_head(&mut self) -> Option<RunHead<'a>> {
        Some(RunHead {
            key: str::from_utf8(self.bytes()?).ok()?,
            changes: self.u32()?,
            bytes: self.u32()?,
        })
    }

    #[inline]
    pub(super) fn change(&mut self) -> Option<EncodedChange<'a>> {
        let [command, changed, length @ ..] = *self.array::<10>()?;
        Some(EncodedChange {
            kind: CommandKind::from_recorded(command)?,
            changed: bool_of(changed)?,
            name: self.take(u64::from_le_bytes(length))?,
            value: self.value()?,
            previous: self.value()?,
        })
    }

    #[inline]
    fn value(&mut self) -> Option<Option<ValueRef<'a>>> {
        if !self.bool()? {
            return Some(None);
        }
        let [t0, t1, t2, t3, length @ ..] = *self.array::<12>()?;
        Some(Some(ValueRef {
            value_type: ValueType(u32::from_le_bytes([t0, t1, t2, t3])),
            data: self.take(u64::from_le_bytes(length))?,
        }))
    }

    #[inline]
    fn bool(&mut self) -> Option<bool> {
        let [byte] = *self.array()?;
        bool_of(byte)
    }

    #[inline]
    fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    #[inline]
    fn u64(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    #[inline]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u64()?;
        self.take(length)
    }

    #[inline]
    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(taken)
    }
}

fn bool_of(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

impl<'a> EncodedChange<'a> {
    /// None if the name is no text.
    #[inline]
    pub(super) fn of_key(self, key: &'a str) -> Option<Change<'a>> {
        Some(Change {
            kind: self.kind,
            key,
            name: str::from_utf8(self.name).ok()?,
            value: self.value,
            previous: self.previous,
            changed: self.changed,
        })
    }

    /// Its name is text. What only certain commands carry, they carry; a SET_VALUE that changed nothing found what it set, a
    /// DELETE_VALUE changed something if there was something; and the root is never deleted.
    #[inline]
    pub(super) fn is_valid(&self, key: &str) -> bool {
        let carried = (self.value.is_some(), self.previous.is_some());
        let is_consistent = match self.kind {
            CommandKind::SetValue => carried.0 && (self.changed || self.previous == self.value),
            CommandKind::DeleteValue => !carried.0 && self.changed == carried.1,
            CommandKind::DeleteKey if key.is_empty() => false,
            _ => carried == (false, false) && self.name.is_empty(),
        };
        is_consistent && (self.name.is_ascii() || str::from_utf8(self.name).is_ok())
    }
}
