//! clusdb: a commit is the change entry, and a port reads it back.
//!
//! With its own defaults (the copy of the state behind the journal, and the keeper that makes snapshots, are on and run beside what is
//! measured), but for one: the journal has no limit, since no peer's change table has one here. Batches are built out of the
//! peers' own commands inside of what is timed.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clusdb::{Batch, CommandKind, KeyPath, Port, Store, Value, ValueType};

use crate::peer::{self, Change, Command, Entry, Kind, Peer, ValueRef, Watcher};

/// Threads of a bulk load: commits that wait at the same time are made durable together.
const LOADERS: usize = 32;

pub struct Clusdb {
    store: Store,
    ports: Vec<Port>,
    failed: Mutex<Option<anyhow::Error>>,
}

impl Clusdb {
    /// `tree`: whether a copy of the state is kept behind the journal.
    pub fn open(folder: &Path, followed: &[KeyPath], tree: bool) -> Result<Clusdb> {
        // A moment ago another handle may have closed it.
        let options = Store::options().tree(tree).lock_timeout(Duration::from_secs(5));
        let store = options.journal_limit_bytes(u64::MAX).open(folder)?;
        let ports = followed.iter().enumerate();
        let ports = ports.map(|(number, key)| store.port(&format!("followed{number}"), key));
        Ok(Clusdb {
            ports: ports.collect::<Result<_, _>>()?,
            store,
            failed: Mutex::new(None),
        })
    }

    fn commit(&self, batch: &peer::Batch) -> Result<()> {
        self.store.commit(build(batch)?)?;
        Ok(())
    }
}

fn build(batch: &peer::Batch) -> Result<Batch> {
    let mut built = Batch::at(&batch.at);
    for command in &batch.commands {
        match command {
            Command::CreateKey(path) => built.create_key(path)?,
            Command::DeleteKey(path) => built.delete_key(path)?,
            Command::DeleteValue { name } => built.delete_value(name)?,
            Command::SetValue {
                name,
                value_type,
                data,
            } => built.set_value(name, Value::new(ValueType(*value_type), data.as_slice()))?,
        };
    }
    Ok(built)
}

/// Bytes that the batch takes in the journal of a store that has nothing, when it is committed a second time: a frame of 64,
/// and its record on a grid of 8.
pub fn record_bytes(folder: &Path, batch: &peer::Batch) -> Result<usize> {
    let store = Store::options().tree(false).open(folder)?;
    store.commit(build(batch)?)?;
    let record = store.dry_run(&build(batch)?)?;
    Ok(64 + record.payload().len().next_multiple_of(8))
}

impl Peer for Clusdb {
    fn write(&self, batches: &[peer::Batch]) -> Result<()> {
        if let [batch] = batches {
            return self.commit(batch);
        }
        std::thread::scope(|scope| {
            for loader in 0..LOADERS {
                scope.spawn(move || {
                    for batch in batches.iter().skip(loader).step_by(LOADERS) {
                        if let Err(error) = self.commit(batch) {
                            *self.failed.lock().expect("a lock") = Some(error);
                            return;
                        }
                    }
                });
            }
        });
        self.failed.lock().expect("a lock").take().map_or(Ok(()), Err)
    }

    fn changes(&self, below: &KeyPath, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        let mut ports = self.ports.iter();
        let port = ports.find(|port| port.key().as_str() == below.as_str());
        let port = port.context("no port was made for the key")?;
        port.rewind()?;
        let Some(notification) = port.try_get()? else {
            return Ok(());
        };
        for batch in notification.batches() {
            for change in batch.changes() {
                let kind = match change.kind() {
                    CommandKind::SetValue => Kind::SetValue,
                    CommandKind::CreateKey => Kind::CreateKey,
                    CommandKind::DeleteKey => Kind::DeleteKey,
                    CommandKind::DeleteValue => Kind::DeleteValue,
                    kind => bail!("a change of an unknown kind: {}", kind.name()),
                };
                visit(&Change {
                    kind,
                    key: change.key(),
                    name: change.name().unwrap_or_default(),
                    value: change.value().map(value),
                    previous: change.previous().map(value),
                });
            }
        }
        Ok(())
    }

    fn get(&self, key: &KeyPath, name: &str, visit: &mut dyn FnMut(ValueRef<'_>)) -> Result<bool> {
        let found = self.store.get(key, name)?;
        if let Some(found) = &found {
            visit(value(found.as_ref()));
        }
        Ok(found.is_some())
    }

    fn list(&self, key: &KeyPath, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        match self.store.list(key) {
            Ok(entries) => entries.iter().for_each(|entry| show(entry, visit)),
            Err(clusdb::Error::KeyNotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn iterate(&self, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let entries = self.store.list_recursive(&KeyPath::root())?;
        entries.iter().for_each(|entry| show(entry, visit));
        Ok(())
    }

    fn watch(&self, name: &str, below: &KeyPath) -> Result<Option<Box<dyn Watcher>>> {
        Ok(Some(Box::new(Waiting(self.store.port(name, below)?))))
    }

    fn close(self: Box<Self>) -> Result<()> {
        drop(self.ports);
        Ok(self.store.close()?)
    }
}

struct Waiting(Port);

impl Watcher for Waiting {
    fn wait(&mut self) -> Result<()> {
        self.0.get()?;
        Ok(())
    }
}

fn value(value: clusdb::ValueRef<'_>) -> ValueRef<'_> {
    ValueRef {
        value_type: value.value_type.0,
        data: value.data,
    }
}

fn show(entry: &clusdb::Entry, visit: &mut dyn FnMut(&Entry<'_>)) {
    match entry {
        clusdb::Entry::Key { path } => {
            let (parent, name) = path.rsplit_once('\\').unwrap_or(("", path));
            visit(&Entry::Key { parent, name });
        }
        clusdb::Entry::Value {
            key,
            name,
            value: held,
        } => visit(&Entry::Value {
            key,
            name,
            value: value(held.as_ref()),
        }),
    }
}
