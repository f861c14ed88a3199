//! The reader: what a program reads and follows an open store by, whether it writes the store itself or another process
//! does.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use crate::engine::{OpenedFrom, Source};
use crate::epoch::Epoch;
use crate::error::{Error, Result};
use crate::model::{
    AsValueName, Batch, Entry, KeyInfo, KeyPath, ReadBatch, ReadReply, Record, State, Value, ValueType,
    evaluate,
};
use crate::options::Options;
use crate::port::{Contents, Port, PortInfo, names};
use crate::view::JournalView;

/// An open store, to read and to follow. Cloning gives another handle of it.
#[derive(Clone)]
pub struct Reader {
    source: Arc<dyn Source>,
}

/// Figures of an open store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// The epoch that commits are made under.
    pub epoch: Epoch,
    /// The oldest record in the journal.
    pub first_sequence: u64,
    /// The newest record; 0 if nothing was committed yet.
    pub durable_sequence: u64,
    /// The tree on the disk holds the state after this record; 0 if there is none yet.
    pub tree_sequence: u64,
    /// What the state was read from when the store was opened.
    pub opened_from: OpenedFrom,
    /// Records that were replayed then.
    pub replayed: u64,
    /// Files of the journal, and their bytes.
    pub segments: u64,
    /// Bytes of the journal's files, the zeroes ahead of need included; a segment that is made ahead of need is none of them yet.
    pub journal_bytes: u64,
    /// Keys; the root is not counted.
    pub keys: u64,
    /// Values.
    pub values: u64,
    /// Ports.
    pub ports: u64,
}

impl Reader {
    /// Opens the store in this directory to read and to follow it, while another process writes it, or none does.
    ///
    /// Shows what is durable, maps the journal, and takes no lock that a writer sees. Writes nothing but the files of the ports
    /// that it makes and owns; a port has one owner, in whichever process. Gets wake when the writer commits, and go on when
    /// another writer comes after one that died. A store that was not closed is not recovered: that is for the next
    /// writer. The state is read from the newest snapshot and the journal behind it when it is first asked for.
    ///
    /// # Errors
    /// * [`StoreNotFound`](Error::StoreNotFound).
    /// * [`UnsupportedVersion`](Error::UnsupportedVersion), [`CaseTable`](Error::CaseTable): another version made it.
    /// * [`Damaged`](Error::Damaged): also later, from each method that reads what is damaged.
    /// * [`SymbolicLink`](Error::SymbolicLink), [`NetworkFileSystem`](Error::NetworkFileSystem): as for a writer.
    /// * [`Io`](Error::Io). Later also [`StoreReplaced`](Error::StoreReplaced): another store took this one's place.
    pub fn open(path: impl AsRef<Path>) -> Result<Reader> {
        Reader::options().open_reader(path)
    }

    /// Options for opening a store; of these, the environment, the limit of a notification and those of a dry run concern a reader.
    #[must_use]
    pub fn options() -> Options {
        Options::new()
    }

    /// Whether the last writer has closed the store. If not, one is running, or one was killed: then this reader shows what is
    /// known to be durable, and opening the store to write may find more.
    #[must_use]
    pub fn was_closed(&self) -> bool {
        self.source.was_closed()
    }

    pub(crate) fn new(source: Arc<dyn Source>) -> Reader {
        Reader { source }
    }

    /// The directory of the store.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.source.layout().root()
    }

    /// The value of this name, ignoring case; `""` is the key's default value. Does not wait for the disk, and copies no long
    /// data. Where this process writes the store, it allocates nothing for a name of up to 126 bytes, or one that was parsed: a
    /// [`ValueName`](crate::ValueName).
    ///
    /// # Errors
    /// [`Closed`](Error::Closed), and [`Poisoned`](Error::Poisoned) if a panic has left the state in doubt.
    pub fn get(&self, key: &KeyPath, name: &(impl AsValueName + ?Sized)) -> Result<Option<Value>> {
        let name = name.to_folded();
        let (key, name) = (key.folded(), &*name);
        self.source.glance(|visible| visible.value(key, name).cloned())
    }

    /// The value of this name with its key and name as they are stored.
    ///
    /// # Errors
    /// Those of [`get`](Reader::get).
    pub fn entry(&self, key: &KeyPath, name: &(impl AsValueName + ?Sized)) -> Result<Option<Entry>> {
        let name = name.to_folded();
        self.source
            .read(|visible| visible.state.entry(key.folded(), &name))
    }

    /// QueryValue: the type of a value and the number of its bytes, which are copied into the buffer if there is one
    /// (specification, section 5). A buffer that is longer keeps what stands behind them.
    ///
    /// # Errors
    /// [`ValueNotFound`](Error::ValueNotFound), also where the key does not exist; [`BufferTooSmall`](Error::BufferTooSmall)
    /// with the size that it takes; and those of [`get`](Reader::get).
    pub fn query_value(
        &self,
        key: &KeyPath,
        name: &(impl AsValueName + ?Sized),
        buffer: Option<&mut [u8]>,
    ) -> Result<(ValueType, usize)> {
        let value = self.get(key, name)?.ok_or_else(|| Error::ValueNotFound {
            key: key.as_str().to_owned(),
            name: name.as_written().to_owned(),
        })?;
        let data = value.data();
        if let Some(buffer) = buffer {
            let given = buffer.len();
            let target = buffer.get_mut(..data.len()).ok_or(Error::BufferTooSmall {
                needed: data.len(),
                given,
            })?;
            target.copy_from_slice(data);
        }
        Ok((value.value_type(), data.len()))
    }

    /// OpenKey: whether the key exists. There are no handles: a key is named by its path.
    ///
    /// # Errors
    /// Those of [`get`](Reader::get).
    pub fn contains(&self, key: &KeyPath) -> Result<bool> {
        self.source.read(|visible| visible.state.contains(key.folded()))
    }

    /// Reads several values: one reply each, in order, all from one moment, wholly before or wholly after any commit
    /// (specification, section 4). Does not wait for the disk.
    ///
    /// # Errors
    /// Those of [`get`](Reader::get). A value that does not exist is a reply, and no error.
    pub fn read(&self, batch: &ReadBatch) -> Result<Vec<ReadReply>> {
        self.source.read(|visible| visible.state.read(batch))
    }

    /// What the batch would do now, without doing it: the record that committing it would make. The limits are those that
    /// this handle was opened with.
    ///
    /// # Errors
    /// [`Batch`](Error::Batch): the first command that fails, with its index; and those of [`get`](Reader::get).
    pub fn dry_run(&self, batch: &Batch) -> Result<Record> {
        let source = &*self.source;
        let decided = source.read(|visible| evaluate(&visible.state, batch, source.limits()))?;
        Ok(decided?)
    }

    /// What is known of a key: the numbers of keys and values right below, longest names, largest data, last write.
    ///
    /// # Errors
    /// [`KeyNotFound`](Error::KeyNotFound), and those of [`get`](Reader::get).
    pub fn key_info(&self, key: &KeyPath) -> Result<KeyInfo> {
        let info = self.source.read(|visible| visible.state.info(key.folded()))?;
        info.ok_or_else(|| not_found(key))
    }

    /// The key of this index right below a key, in the order of folded names; none behind the last (error 259 of the
    /// registry). The order is the same as long as no key is created or deleted. [`list`](Reader::list) gives all at
    /// once, from one moment.
    ///
    /// # Errors
    /// Those of [`key_info`](Reader::key_info).
    pub fn subkey(&self, key: &KeyPath, index: usize) -> Result<Option<KeyPath>> {
        self.in_key(key, |state| {
            let path = state.subkeys(key.folded()).nth(index)?;
            Some(KeyPath::from_valid(&path))
        })
    }

    /// The value of this index of a key, in the order of folded names; none behind the last, as by
    /// [`subkey`](Reader::subkey).
    ///
    /// # Errors
    /// Those of [`key_info`](Reader::key_info).
    pub fn value(&self, key: &KeyPath, index: usize) -> Result<Option<Entry>> {
        self.in_key(key, |state| state.values(key.folded()).nth(index))
    }

    /// The keys right below a key, in the order of folded names; all from one moment, in a list of its own.
    ///
    /// # Errors
    /// Those of [`key_info`](Reader::key_info).
    pub fn subkeys(&self, key: &KeyPath) -> Result<impl ExactSizeIterator<Item = KeyPath> + use<>> {
        self.in_key(key, |state| {
            let paths: Vec<_> = state.subkeys(key.folded()).collect();
            paths.into_iter().map(|path| KeyPath::from_valid(&path))
        })
    }

    /// The values of a key, in the order of folded names, as by [`subkeys`](Reader::subkeys). Copies no data.
    ///
    /// # Errors
    /// Those of [`key_info`](Reader::key_info).
    pub fn values(&self, key: &KeyPath) -> Result<impl ExactSizeIterator<Item = Entry> + use<>> {
        self.in_key(key, |state| {
            state.values(key.folded()).collect::<Vec<_>>().into_iter()
        })
    }

    fn in_key<R>(&self, key: &KeyPath, look: impl FnOnce(&State) -> R) -> Result<R> {
        let found = self.source.read(|visible| {
            let exists = visible.state.contains(key.folded());
            exists.then(|| look(&visible.state))
        })?;
        found.ok_or_else(|| not_found(key))
    }

    /// What is right below the key: its values, then its keys, each by folded name. All from one moment.
    ///
    /// # Errors
    /// [`KeyNotFound`](Error::KeyNotFound), and those of [`get`](Reader::get).
    pub fn list(&self, key: &KeyPath) -> Result<Vec<Entry>> {
        self.walk(key, false)
    }

    /// All that is below the key, depth first: a key's values, then its keys, each followed by what is below it. All
    /// from one moment.
    ///
    /// # Errors
    /// Those of [`list`](Reader::list).
    pub fn list_recursive(&self, key: &KeyPath) -> Result<Vec<Entry>> {
        self.walk(key, true)
    }

    fn walk(&self, key: &KeyPath, recursive: bool) -> Result<Vec<Entry>> {
        let entries = self
            .source
            .read(|visible| visible.state.walk(key.folded(), recursive))?;
        entries.ok_or_else(|| not_found(key))
    }

    /// Opens the port of this name, or creates it at the present: it will show the batches that are committed after
    /// this. The port is this handle's alone as long as it lives. A new port is durable when this returns.
    ///
    /// # Errors
    /// * [`PortExists`](Error::PortExists): with another key.
    /// * [`PortInUse`](Error::PortInUse): it is open.
    /// * [`Name`](Error::Name): not a name for a port.
    /// * [`EpochMismatch`](Error::EpochMismatch), [`Damaged`](Error::Damaged), [`Io`](Error::Io).
    pub fn port(&self, name: &str, key: &KeyPath) -> Result<Port> {
        Port::create_or_open(&self.source, name, key)
    }

    /// Opens the port of this name, or creates it, together with what is at and below its key now: the port goes on with
    /// the first change that is not in the contents. See [`Port::resync`].
    ///
    /// # Errors
    /// Those of [`port`](Reader::port).
    pub fn port_with_contents(&self, name: &str, key: &KeyPath) -> Result<(Port, Contents)> {
        let port = self.port(name, key)?;
        let contents = port.resync()?;
        Ok((port, contents))
    }

    /// Opens the port of this name.
    ///
    /// # Errors
    /// [`PortNotFound`](Error::PortNotFound), and those of [`port`](Reader::port).
    pub fn open_port(&self, name: &str) -> Result<Port> {
        Port::open(&self.source, name)
    }

    /// Removes the port of this name with its cursor, durably; also one that is damaged or of another history.
    ///
    /// # Errors
    /// [`PortNotFound`](Error::PortNotFound), [`PortInUse`](Error::PortInUse), [`Name`](Error::Name), [`Io`](Error::Io).
    pub fn remove_port(&self, name: &str) -> Result<()> {
        Port::remove(&self.source, name)
    }

    /// All ports, by name.
    ///
    /// # Errors
    /// A port's file that is damaged, and those of [`get`](Reader::get).
    pub fn ports(&self) -> Result<Vec<PortInfo>> {
        Port::list(&self.source)
    }

    /// The records of these sequence numbers, as far as the journal has them: batches and plain writes.
    ///
    /// # Errors
    /// [`Damaged`](Error::Damaged), and those of [`get`](Reader::get).
    pub fn log(&self, sequences: RangeInclusive<u64>) -> Result<JournalView> {
        let visible = self.source.position()?;
        let journal = self.source.journal();
        let last = visible.sequence.min(*sequences.end());
        let first = (*sequences.start()).max(journal.first_sequence());
        let mut position = journal.position_after((first - 1).min(visible.sequence))?;
        JournalView::of_log(journal, &mut position, last)
    }

    /// Figures of the store.
    ///
    /// # Errors
    /// Those of [`get`](Reader::get), and the system's.
    pub fn stat(&self) -> Result<Stat> {
        let source = &*self.source;
        let (segments, journal_bytes) = source.journal().size()?;
        let ports = names(source)?.len() as u64;
        // Before the state is held: a follower looks at it for this.
        let opened = source.opened();
        source.read(|visible| Stat {
            epoch: source.epoch(),
            first_sequence: source.journal().first_sequence(),
            durable_sequence: visible.position.sequence,
            tree_sequence: source.tree_sequence(),
            opened_from: opened.from,
            replayed: opened.replayed,
            segments,
            journal_bytes,
            keys: visible.state.key_count(),
            values: visible.state.value_count(),
            ports,
        })
    }

    /// Closes the store for all its handles and ports: waits for a commit that is under way, marks the journal as
    /// whole, lets the tree follow (for 30 seconds at most), and lets another process open the store. Gets that wait end
    /// with [`Closed`](Error::Closed). Dropping the last handle does the same, but can't tell of an error. A port stays
    /// taken until its handles are dropped. A reader of a store that another process writes ends for itself alone.
    ///
    /// # Errors
    /// The mark could not be made durable; nothing is lost, and the next opening recovers.
    pub fn close(&self) -> Result<()> {
        self.source.close()
    }
}

fn not_found(key: &KeyPath) -> Error {
    Error::KeyNotFound {
        key: key.as_str().to_owned(),
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.path().display())
    }
}
