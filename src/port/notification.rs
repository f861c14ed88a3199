//! What a port gives out: notifications, and contents to begin with; and their acknowledgement.

use std::fmt;
use std::ops::Deref;

use super::progress::Receipt;
use crate::engine::Commit;
use crate::error::Result;
use crate::model::{Batch, Entry};
use crate::view::JournalView;

/// All changes of a port's subtree since the get before: whole batches, in commit order, mapped and verified.
///
/// It is a [`JournalView`], and stays valid as one whatever becomes of the port and the store.
pub struct Notification {
    pub(super) view: JournalView,
    pub(super) receipt: Receipt,
}

/// What is at and below a port's key at one moment, from [`Port::resync`](crate::Port::resync): a copy of its own, which
/// stays as it is.
pub struct Contents {
    pub(super) entries: Vec<Entry>,
    pub(super) sequence: u64,
    pub(super) receipt: Receipt,
}

impl Notification {
    /// Saves the port's cursor behind this notification: durable when it returns. If notifications that were got
    /// before this one are not acknowledged yet, the cursor moves when they are. Waits for the disk.
    ///
    /// # Errors
    /// [`AcknowledgementRefused`](crate::Error::AcknowledgementRefused) after a rewind or a resync; a port or a store that was
    /// closed or dropped; a write that failed, after which it can be tried again.
    pub fn acknowledge(&self) -> Result<()> {
        self.receipt.acknowledge()
    }

    /// Commits the batch to the port's store, and with it that this notification is acknowledged: both, or neither. So a
    /// consumer whose results are in the same store processes each change exactly once, whenever it is killed.
    ///
    /// Durable when it returns. A batch that does nothing otherwise is committed for the acknowledgement alone, and takes a
    /// sequence number. Waits for the disk; the port's other handles wait for it.
    ///
    /// # Errors
    /// * Those of [`Store::commit`](crate::Store::commit): nothing is acknowledged then. After
    ///   [`Poisoned`](crate::Error::Poisoned), opening the store anew finds both or neither.
    /// * [`AcknowledgementRefused`](crate::Error::AcknowledgementRefused): it is acknowledged already, or one that was got before
    ///   it is not, or the port was rewound meanwhile. Nothing is committed then.
    /// * A port or a store that was closed or dropped.
    pub fn acknowledge_with(&self, batch: Batch) -> Result<Commit> {
        self.receipt.acknowledge_with(batch)
    }
}

impl Deref for Notification {
    type Target = JournalView;

    fn deref(&self) -> &JournalView {
        &self.view
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notification of {:?}: {:?}", self.receipt.name, self.view)
    }
}

impl Contents {
    /// The port's key itself, then all that is below it, depth first: a key's values, then its keys, both by folded name.
    /// Empty if the key does not exist.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The contents are those after this record; the port goes on with the next.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Saves the port's cursor at the moment of the contents, as [`Notification::acknowledge`] does.
    ///
    /// # Errors
    /// Those of [`Notification::acknowledge`].
    pub fn acknowledge(&self) -> Result<()> {
        self.receipt.acknowledge()
    }

    /// Commits the batch, and with it that the contents are acknowledged, as [`Notification::acknowledge_with`] does.
    ///
    /// # Errors
    /// Those of [`Notification::acknowledge_with`].
    pub fn acknowledge_with(&self, batch: Batch) -> Result<Commit> {
        self.receipt.acknowledge_with(batch)
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contents of {:?} at {}: ", self.receipt.name, self.sequence)?;
        f.debug_list().entries(&self.entries).finish()
    }
}
