//! Ports: named, durable cursors that give all changes at or below a key since the last call.

mod cursor;
mod notification;
mod progress;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use cursor::names;
pub use notification::{Contents, Notification};

use crate::engine::Source;
use crate::error::{Error, Result};
use crate::layout::{check_port_name, lock_creation, random, remove_if_there, sync_parent};
use crate::model::{Entry, KeyPath, View as _};
use crate::port_file::{PortFile, PortHead};
use crate::sync::lock;
use crate::view::JournalView;
use cursor::{cursor_at, open_file};
use progress::Shared;

/// A port: follows the batches that touch its key or anything below it (specification, sections 1 and 3).
///
/// Delivery is in commit order, and at least once: [`get`](Port::get) moves the port along in memory, and
/// [`Notification::acknowledge`] saves the cursor. What was not acknowledged comes again after the store is opened
/// anew, or after [`rewind`](Port::rewind). Cloning gives another handle of the same port, for another thread; the
/// port is free for another owner when the last handle is dropped. A port keeps its store open.
#[derive(Clone)]
pub struct Port {
    shared: Arc<Shared>,
}

/// A port as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Its name.
    pub name: String,
    /// Its key, as it was given.
    pub key: KeyPath,
    /// Everything up to this sequence number is acknowledged.
    pub acknowledged: u64,
    /// Batches behind it that the port will show.
    pub pending: u64,
    /// Bytes of the journal from the first of them on.
    pub lag_bytes: u64,
    /// The port is left behind once the journal has grown by so much more; none if nothing is pending, and never 0 by itself: the
    /// journal is trimmed now and then, by whole segments.
    pub bytes_until_lost: Option<u64>,
    /// Something that the port would have shown is gone: its next get is [`Lagged`](Error::Lagged).
    pub is_lagging: bool,
    /// Why the port cannot be opened, if it cannot: nothing else is known of it then. It can be removed.
    pub fault: Option<String>,
}

impl PortInfo {
    fn unusable(name: &str, error: &Error) -> PortInfo {
        PortInfo {
            name: name.to_owned(),
            key: KeyPath::root(),
            acknowledged: 0,
            pending: 0,
            lag_bytes: 0,
            bytes_until_lost: None,
            is_lagging: false,
            fault: Some(error.to_string()),
        }
    }
}

impl Port {
    pub(crate) fn create_or_open(source: &Arc<dyn Source>, name: &str, key: &KeyPath) -> Result<Port> {
        check_port_name(name)?;
        source.check_open()?;
        let path = source.layout().port(name);
        // Two processes may both find it missing; the second must not replace the file of the first.
        let creation = lock_creation(source.env(), source.layout())?;
        match open_file(&**source, name) {
            Err(Error::PortNotFound { .. }) => {
                let present = source.position()?;
                let head = PortHead {
                    id: random(source.env(), source.layout())?,
                    epoch: source.epoch(),
                    created: source.env().now(),
                    name: name.to_owned(),
                    key: key.clone(),
                };
                let cursor = cursor_at(&**source, present, present.sequence);
                PortFile::create(source.env(), &path, &head, cursor)?;
                tracing::debug!(name, key = %key, "created a port");
            }
            Err(error) => return Err(error),
            Ok(file) if file.head.key != *key => {
                return Err(Error::PortExists {
                    name: name.to_owned(),
                    key: file.head.key.as_str().to_owned(),
                    asked: key.as_str().to_owned(),
                });
            }
            Ok(_) => {}
        }
        drop(creation);
        Port::open(source, name)
    }

    pub(crate) fn open(source: &Arc<dyn Source>, name: &str) -> Result<Port> {
        check_port_name(name)?;
        source.check_open()?;
        let mut file = open_file(&**source, name)?.lock()?.ok_or_else(|| {
            let name = name.to_owned();
            Error::PortInUse { name }
        })?;
        file.make_durable(source.env())?;
        cursor::fold_acknowledgements(&**source, &mut file)?;
        Ok(Port {
            shared: Arc::new(Shared::new(source, name, file)?),
        })
    }

    pub(crate) fn remove(source: &Arc<dyn Source>, name: &str) -> Result<()> {
        let owned = match Port::open(source, name) {
            Ok(port) => Some(port),
            // Nobody can follow it any more; removing it is what is left.
            Err(Error::Damaged { .. } | Error::EpochMismatch { .. } | Error::SymbolicLink { .. }) => None,
            Err(error) => return Err(error),
        };
        let path = source.layout().port(name);
        remove_if_there(source.env(), &path)?;
        drop(owned);
        remove_if_there(source.env(), &source.layout().trim_note(name))?;
        sync_parent(source.env(), &path)
    }

    pub(crate) fn list(source: &Arc<dyn Source>) -> Result<Vec<PortInfo>> {
        let names = names(&**source)?;
        let mut ports = Vec::new();
        for name in &names {
            ports.push(match cursor::info(&**source, name) {
                // It was removed meanwhile.
                Err(Error::PortNotFound { .. }) => continue,
                Err(
                    error @ (Error::Damaged { .. }
                    | Error::EpochMismatch { .. }
                    | Error::UnsupportedVersion { .. }
                    | Error::SymbolicLink { .. }),
                ) => PortInfo::unusable(name, &error),
                info => info?,
            });
        }
        Ok(ports)
    }

    /// The port's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The port's key, as it was given when the port was created. The key need not exist.
    #[must_use]
    pub fn key(&self) -> &KeyPath {
        &self.shared.key
    }

    /// Everything up to this sequence number is acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        lock(&self.shared.progress).file.cursor.sequence
    }

    /// All changes since the last get, or since the port was created. Waits until there are some.
    ///
    /// Shows only what is durable. Every record is verified before it is given out, so that walking the notification
    /// cannot fail. Several threads may get from one port: each batch goes to one of them.
    ///
    /// # Errors
    /// [`PortClosed`](Error::PortClosed) and [`Closed`](Error::Closed), also while it waits;
    /// [`Lagged`](Error::Lagged) if the journal was trimmed of something that the port would have shown: then
    /// [`resync`](Port::resync) is the way on; [`Damaged`](Error::Damaged) if the journal does not hold what was committed.
    pub fn get(&self) -> Result<Notification> {
        loop {
            // Armed before looking: a commit between the two wakes it.
            let waiter = self.shared.source.listen(self.shared.subscription());
            if let Some(notification) = self.try_get()? {
                return Ok(notification);
            }
            waiter.wait(None);
        }
    }

    /// As [`get`](Port::get), but waits at most this long; none if there is nothing then.
    ///
    /// # Errors
    /// Those of [`get`](Port::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Option<Notification>> {
        let Some(deadline) = Instant::now().checked_add(timeout) else {
            return self.get().map(Some);
        };
        loop {
            let waiter = self.shared.source.listen(self.shared.subscription());
            if let Some(notification) = self.try_get()? {
                return Ok(Some(notification));
            }
            if !waiter.wait(Some(deadline)) {
                return self.try_get();
            }
        }
    }

    /// As [`get`](Port::get), but does not wait for a commit; none if there is nothing. While another thread acknowledges on
    /// this port, it waits for that.
    ///
    /// # Errors
    /// Those of [`get`](Port::get).
    pub fn try_get(&self) -> Result<Option<Notification>> {
        let shared = &*self.shared;
        shared.check_open()?;
        let mut progress = lock(&shared.progress);
        let visible = shared.source.position()?;
        if progress.position.sequence >= visible.sequence {
            return Ok(None);
        }
        let (view, position) = loop {
            let source = &*shared.source;
            if progress.position.sequence + 1 < source.journal().first_sequence() {
                let sequence = progress.position.sequence;
                progress.position = cursor::place_after(source, &progress.file, sequence)?;
            }
            let mut position = progress.position;
            let view = JournalView::of_port(
                source.journal(),
                &mut position,
                visible,
                &shared.filter,
                source.notification_limit_bytes(),
            );
            match view {
                // Trimmed while it was read: what is there now decides.
                Err(Error::Trimmed { .. }) => {}
                view => break (view?, position),
            }
        };
        progress.position = position;
        if view.is_empty() {
            return Ok(None);
        }
        let receipt = shared.receipt(&mut progress, position, Arc::downgrade(&self.shared));
        Ok(Some(Notification { view, receipt }))
    }

    /// As [`get`](Port::get), for any async runtime: waits for a commit without blocking the thread. The thread that commits wakes the task,
    /// last of all and holding nothing of the store; threads are woken before. Reading what is there
    /// touches mapped memory, which may have to come from the disk, and waits for an acknowledgement on this port that is under way. Cancel-safe: dropped while it waits, it has
    /// taken nothing.
    ///
    /// # Errors
    /// Those of [`get`](Port::get).
    pub async fn get_async(&self) -> Result<Notification> {
        loop {
            let listener = self.shared.source.event(self.shared.subscription()).listen();
            if let Some(notification) = self.try_get()? {
                return Ok(notification);
            }
            listener.await;
        }
    }

    /// Goes back to what is acknowledged: everything behind it comes again. Notifications that are out stay valid,
    /// but can no longer be acknowledged.
    ///
    /// # Errors
    /// Those of [`get`](Port::get).
    pub fn rewind(&self) -> Result<()> {
        let shared = &*self.shared;
        shared.check_open()?;
        let mut progress = lock(&shared.progress);
        let position = cursor::place(&*shared.source, &progress.file)?;
        progress.begin_anew(position);
        Ok(())
    }

    /// The contents of the port's subtree as they are now, and the port moved to the same moment: what was committed
    /// before is in the contents, and the next [`get`](Port::get) gives what comes after. Nothing between them is missed or
    /// comes twice, whatever is committed meanwhile.
    ///
    /// The cursor is saved when the contents are [acknowledged](Contents::acknowledge); until then a restart goes on
    /// where the port was before. Notifications that are out stay valid, but can no longer be acknowledged. Holds the
    /// state's lock while names are copied (data is shared). Waits for an acknowledgement on this port that is under way, and for
    /// nothing else of the disk.
    ///
    /// # Errors
    /// Those of [`get`](Port::get).
    pub fn resync(&self) -> Result<Contents> {
        let shared = &*self.shared;
        shared.check_open()?;
        let mut progress = lock(&shared.progress);
        let folded = shared.key.folded();
        let (position, entries) = shared.source.read(|visible| {
            let entries = visible.state.find(folded).map(|key| {
                let mut entries = vec![Entry::Key {
                    path: key.path().into(),
                }];
                entries.extend(visible.state.walk(folded, true).unwrap_or_default());
                entries
            });
            (visible.position, entries.unwrap_or_default())
        })?;
        progress.begin_anew(position);
        Ok(Contents {
            entries,
            sequence: position.sequence,
            receipt: shared.receipt(&mut progress, position, Arc::downgrade(&self.shared)),
        })
    }

    /// Closes the port for all its handles. A get that waits in another thread ends with
    /// [`PortClosed`](Error::PortClosed). The cursor stays where it was acknowledged; notifications that are out
    /// stay valid.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({:?} on {:?})", self.name(), self.key().as_str())
    }
}
