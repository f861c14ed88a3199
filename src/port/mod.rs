//! Ports: named, durable cursors that give all changes at or below a key since the last call.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use event_listener::Listener;

use crate::engine::Engine;
use crate::error::{Error, IoContext, Result};
use crate::journal::Position;
use crate::layout::{Layout, check_port_name, remove_if_there, sync_parent};
use crate::model::KeyPath;
use crate::port_file::{Cursor, PortFile, PortHead};
use crate::sync::{Mutex, lock};
use crate::view::{Filter, JournalView};

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

struct Shared {
    engine: Arc<Engine>,
    name: String,
    key: KeyPath,
    filter: Filter,
    is_closed: AtomicBool,
    progress: Mutex<Progress>,
}

/// How far the port has come.
struct Progress {
    file: PortFile,
    /// Behind the last record that `get` has looked at.
    position: Position,
    /// Counts the rewinds: an older notification cannot be acknowledged any more.
    generation: u64,
    /// Number of the next notification.
    next_number: u64,
    /// Notifications that were given out, in order, from the first that is not acknowledged.
    outstanding: VecDeque<Outstanding>,
}

struct Outstanding {
    number: u64,
    end: Position,
    is_acknowledged: bool,
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
}

impl Port {
    pub(crate) fn create_or_open(engine: &Arc<Engine>, name: &str, key: &KeyPath) -> Result<Port> {
        check_port_name(name)?;
        engine.check_open()?;
        let path = engine.layout().port(name);
        // Two threads may both find it missing; the second must not replace the file of the first.
        let creation = engine.lock_port_creation();
        match open_file(engine, name) {
            Err(Error::PortNotFound { .. }) => {
                let present = engine.read(|visible| visible.position)?;
                let head = PortHead {
                    id: engine.random()?,
                    epoch: engine.epoch(),
                    created: engine.env().now(),
                    name: name.to_owned(),
                    key: key.clone(),
                };
                let cursor = cursor_at(engine, present, 0);
                PortFile::create(engine.env(), &path, &head, cursor)?;
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
        Port::open(engine, name)
    }

    pub(crate) fn open(engine: &Arc<Engine>, name: &str) -> Result<Port> {
        check_port_name(name)?;
        engine.check_open()?;
        let file = open_file(engine, name)?.lock()?.ok_or_else(|| {
            let name = name.to_owned();
            Error::PortInUse { name }
        })?;
        Ok(Port {
            shared: Arc::new(Shared {
                engine: Arc::clone(engine),
                name: name.to_owned(),
                key: file.head.key.clone(),
                filter: Filter::Port(file.head.key.folded().into()),
                is_closed: AtomicBool::new(false),
                progress: Mutex::new(Progress {
                    position: engine.journal.position_after(file.cursor.sequence)?,
                    file,
                    generation: 0,
                    next_number: 0,
                    outstanding: VecDeque::new(),
                }),
            }),
        })
    }

    pub(crate) fn remove(engine: &Arc<Engine>, name: &str) -> Result<()> {
        let owned = match Port::open(engine, name) {
            Ok(port) => Some(port),
            // Nobody can follow it any more; removing it is what is left.
            Err(Error::Damaged { .. } | Error::EpochMismatch { .. }) => None,
            Err(error) => return Err(error),
        };
        let path = engine.layout().port(name);
        remove_if_there(engine.env(), &path)?;
        drop(owned);
        sync_parent(engine.env(), &path)
    }

    pub(crate) fn list(engine: &Arc<Engine>) -> Result<Vec<PortInfo>> {
        let visible = engine.read(|visible| visible.position)?;
        let mut ports = Vec::new();
        for name in names(engine)? {
            let file = open_file(engine, &name)?;
            let mut position = engine.journal.position_after(file.cursor.sequence)?;
            let filter = Filter::Port(file.head.key.folded().into());
            let pending =
                JournalView::read(&engine.journal, &mut position, visible.sequence, filter, u64::MAX)?;
            ports.push(PortInfo {
                name,
                key: file.head.key,
                acknowledged: file.cursor.sequence,
                pending: pending.len() as u64,
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
    /// [`Damaged`](Error::Damaged) if the journal does not hold what was committed.
    pub fn get(&self) -> Result<Notification> {
        loop {
            // Armed before looking: a commit between the two wakes it.
            let listener = self.shared.engine.changed().listen();
            if let Some(notification) = self.try_get()? {
                return Ok(notification);
            }
            listener.wait();
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
            let listener = self.shared.engine.changed().listen();
            if let Some(notification) = self.try_get()? {
                return Ok(Some(notification));
            }
            if listener.wait_deadline(deadline).is_none() {
                return self.try_get();
            }
        }
    }

    /// As [`get`](Port::get), but does not wait; none if there is nothing.
    ///
    /// # Errors
    /// Those of [`get`](Port::get).
    pub fn try_get(&self) -> Result<Option<Notification>> {
        let shared = &*self.shared;
        shared.check_open()?;
        let mut progress = lock(&shared.progress);
        let visible = shared.engine.read(|visible| visible.position)?;
        if progress.position.sequence >= visible.sequence {
            return Ok(None);
        }
        let mut position = progress.position;
        let view = JournalView::read(
            &shared.engine.journal,
            &mut position,
            visible.sequence,
            shared.filter.clone(),
            shared.engine.notification_limit_bytes,
        )?;
        progress.position = position;
        if view.is_empty() {
            return Ok(None);
        }
        let number = progress.next_number;
        progress.next_number += 1;
        progress.outstanding.push_back(Outstanding {
            number,
            end: position,
            is_acknowledged: false,
        });
        Ok(Some(Notification {
            view,
            port: Arc::downgrade(&self.shared),
            name: shared.name.clone(),
            generation: progress.generation,
            number,
        }))
    }

    /// As [`get`](Port::get), for any async runtime: waits without blocking the thread. Reading what is there
    /// touches mapped memory, which may have to come from the disk. Cancel-safe: dropped while it waits, it has
    /// taken nothing.
    ///
    /// # Errors
    /// Those of [`get`](Port::get).
    pub async fn get_async(&self) -> Result<Notification> {
        loop {
            let listener = self.shared.engine.changed().listen();
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
        let acknowledged = progress.file.cursor.sequence;
        progress.position = shared.engine.journal.position_after(acknowledged)?;
        progress.generation += 1;
        progress.outstanding.clear();
        Ok(())
    }

    /// Closes the port for all its handles. A get that waits in another thread ends with
    /// [`PortClosed`](Error::PortClosed). The cursor stays where it was acknowledged; notifications that are out
    /// stay valid.
    pub fn close(&self) {
        self.shared.is_closed.store(true, Ordering::Release);
        self.shared.engine.changed().notify(usize::MAX);
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({:?} on {:?})", self.name(), self.key().as_str())
    }
}

impl Shared {
    fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) {
            let name = self.name.clone();
            return Err(Error::PortClosed { name });
        }
        self.engine.check_open()
    }

    fn acknowledge(&self, generation: u64, number: u64) -> Result<()> {
        self.check_open()?;
        let mut progress = lock(&self.progress);
        if generation != progress.generation {
            let name = self.name.clone();
            return Err(Error::AcknowledgementRefused { name });
        }
        let given = progress
            .outstanding
            .iter_mut()
            .find(|given| given.number == number);
        let Some(given) = given else {
            // Acknowledged before, together with all before it.
            return Ok(());
        };
        given.is_acknowledged = true;
        // Only what has nothing open before it is saved: crash between, and the rest comes again.
        let prefix = progress
            .outstanding
            .iter()
            .take_while(|given| given.is_acknowledged);
        let (count, end) = prefix.fold((0, None), |(count, _), given| (count + 1, Some(given.end)));
        if let Some(end) = end {
            let as_of = progress.file.cursor.as_of;
            progress.file.save(cursor_at(&self.engine, end, as_of))?;
            progress.outstanding.drain(..count);
        }
        Ok(())
    }
}

/// All changes of a port's subtree since the get before: whole batches, in commit order, mapped and verified.
///
/// It is a [`JournalView`], and stays valid as one whatever becomes of the port and the store.
pub struct Notification {
    view: JournalView,
    port: Weak<Shared>,
    name: String,
    generation: u64,
    number: u64,
}

impl Notification {
    /// Saves the port's cursor behind this notification: durable when it returns. If notifications that were got
    /// before this one are not acknowledged yet, the cursor moves when they are. Waits for the disk.
    ///
    /// # Errors
    /// [`AcknowledgementRefused`](Error::AcknowledgementRefused) after a rewind; a port or a store that was closed or
    /// dropped; a write that failed, after which it can be tried again.
    pub fn acknowledge(&self) -> Result<()> {
        match self.port.upgrade() {
            Some(port) => port.acknowledge(self.generation, self.number),
            None => {
                let name = self.name.clone();
                Err(Error::PortClosed { name })
            }
        }
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
        write!(f, "Notification of {:?}: {:?}", self.name, self.view)
    }
}

/// Opens the file of a port, whose epoch must be one of the store's.
fn open_file(engine: &Engine, name: &str) -> Result<PortFile> {
    let path = engine.layout().port(name);
    let file = match PortFile::open(engine.env(), &path) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let name = name.to_owned();
            return Err(Error::PortNotFound { name });
        }
        opened => opened?,
    };
    if !engine.has_epoch(file.cursor.epoch) {
        return Err(Error::EpochMismatch {
            name: name.to_owned(),
            found: file.cursor.epoch,
        });
    }
    Ok(file)
}

fn cursor_at(engine: &Engine, position: Position, as_of: u64) -> Cursor {
    Cursor {
        epoch: engine.epoch_of(position.sequence),
        sequence: position.sequence,
        frame_checksum: position.checksum,
        as_of,
    }
}

/// The names of all ports, in order.
pub(crate) fn names(engine: &Engine) -> Result<Vec<String>> {
    let ports = engine.layout().ports();
    let files = engine.env().list_dir(&ports).context("list", &ports)?;
    let names = files.iter().filter_map(|name| Layout::parse_port(name));
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort_unstable();
    Ok(names)
}
