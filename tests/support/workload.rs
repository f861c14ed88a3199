//! A run of a store in the simulated environment, step by step, beside what it has promised so far.
//!
//! What may be found after a crash is a list of [`World`]s. A step that succeeds changes each of them; a step that fails
//! without having been refused adds the changed ones: it was done as a whole, or not at all. A store is right if what is
//! seen in it is exactly one of the worlds.

use std::collections::BTreeMap;

use std::path::PathBuf;
use std::time::Duration;

use clusdb::{Batch, Commit, Error, KeyPath, Notification, Options, Port, Reader, Store, Value, ValueType};

use crate::harness::{build, committed, dump, path};
use crate::naive;
use crate::naive::single::Plain;
use crate::sim::{Disk, Plan, Sim};
use crate::world::{Seen, World};

/// So small that most commits begin a new segment.
const SEGMENT_BYTES: u64 = 4096;

#[derive(Debug, Clone)]
pub enum Step {
    /// Opens the store, and looks at all of it.
    Open,
    /// Opens the store, and looks at no port: each stays as the last life has left it.
    OpenUnseen,
    Close,
    Commit(naive::Batch),
    /// One thread commits the first; the others come meanwhile, and are a group.
    Group(Vec<naive::Batch>),
    Plain(Plain),
    /// Opens the port of this name, on this key.
    Port(&'static str, &'static str),
    Get(&'static str),
    Acknowledge(&'static str),
    AcknowledgeWith(&'static str, naive::Batch),
    Rewind(&'static str),
    /// Gets the contents, and acknowledges them.
    Resync(&'static str),
    RemovePort(&'static str),
    /// Looks at the store as another process does.
    Read,
    Snapshot,
    /// Needs two snapshots to do something.
    Trim,
    Backup,
    /// Makes another store from the backup, if there is one, and looks at it.
    Restore,
}

/// An open port.
struct Follower {
    port: Port,
    key: &'static str,
    /// Up to where it has given out.
    position: u64,
    given: Option<(Notification, u64)>,
}

/// A store on its way.
pub struct Run {
    pub sim: Sim,
    store: Option<Store>,
    followers: BTreeMap<&'static str, Follower>,
    is_poisoned: bool,
    /// By the life before this one, in this run.
    was_closed: bool,
    /// What may be found. What the open store shows is the first of them.
    pub worlds: Vec<World>,
}

impl Run {
    /// A machine without a store.
    pub fn new(seed: u64, plan: Plan) -> Run {
        Run::on(&Disk::default(), &[World::new()], seed, plan)
    }

    /// A machine that starts with this disk.
    pub fn on(disk: &Disk, worlds: &[World], seed: u64, plan: Plan) -> Run {
        Run {
            sim: Sim::boot(disk, seed, plan),
            store: None,
            followers: BTreeMap::new(),
            is_poisoned: false,
            was_closed: false,
            worlds: worlds.to_vec(),
        }
    }

    /// Does the steps up to the end, or to the crash that was planned; none may fail otherwise.
    pub fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            if self.sim.is_crashed() {
                break;
            }
            let done = self.step(step);
            if self.sim.is_crashed() {
                break;
            }
            done.unwrap_or_else(|error| panic!("{step:?}: {error}"));
        }
    }

    pub fn is_open(&self) -> bool {
        self.store.is_some()
    }

    /// The process has ended, or ends now: what the next one finds.
    pub fn end(mut self) -> (Disk, Vec<World>) {
        let disk = self.sim.disk();
        self.followers.clear();
        self.store = None;
        (disk, self.worlds)
    }

    /// Does one step. Ports and stores that an earlier failure has left closed are passed over.
    pub fn step(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Open => self.open(),
            Step::OpenUnseen => self.open_unseen(),
            Step::Close => self.close(),
            Step::Commit(wanted) => self.commit(wanted),
            Step::Group(wanted) => self.commit_group(wanted),
            Step::Plain(write) => self.write_plain(write),
            Step::Port(name, key) => self.open_port(name, key),
            Step::Get(name) => self.get(name),
            Step::Acknowledge(name) => self.acknowledge(name),
            Step::AcknowledgeWith(name, wanted) => self.acknowledge_with(name, wanted),
            Step::Rewind(name) => self.rewind(name),
            Step::Resync(name) => self.resync(name),
            Step::RemovePort(name) => self.remove_port(name),
            Step::Read => self.read(),
            Step::Snapshot => self.snapshot(),
            Step::Trim => self.trim(),
            Step::Backup => self.backup(),
            Step::Restore => self.restore(),
        }
    }

    /// A step was tried: it was done, or was refused, or nobody knows. The change is false where it cannot be.
    fn settle<T>(
        &mut self,
        done: Result<T, Error>,
        is_refused: bool,
        change: impl Fn(&mut World) -> bool,
    ) -> Result<T, Error> {
        if is_refused {
            return done;
        }
        let mut changed = self.worlds.clone();
        changed.retain_mut(change);
        match done {
            Ok(_) => self.worlds = changed,
            Err(_) => self.worlds.extend(changed),
        }
        assert!(!self.worlds.is_empty(), "what was done can't be");
        done
    }

    /// As [`settle`](Run::settle), of what is committed.
    fn settle_commit(
        &mut self,
        done: Result<Option<u64>, Error>,
        change: impl Fn(&mut World) -> bool,
    ) -> Result<(), Error> {
        let was_poisoned = self.is_poisoned;
        let is_refused = match &done {
            Ok(_) => {
                assert!(!was_poisoned, "a poisoned store has committed");
                false
            }
            Err(Error::Poisoned { .. }) => {
                self.is_poisoned = true;
                was_poisoned
            }
            Err(_) if was_poisoned => panic!("a poisoned store does not say so"),
            Err(Error::Preallocation { .. }) => true,
            // One that was refused before has left a key missing.
            Err(Error::Batch(_) | Error::Plain(_)) => {
                assert!(!change(&mut self.worlds[0].clone()), "refused without a reason");
                return Ok(());
            }
            Err(error) => panic!("a commit failed with {error}"),
        };
        if let Some(sequence) = self.settle(done, is_refused, change)? {
            assert_eq!(sequence, self.worlds[0].last());
        }
        Ok(())
    }

    fn options(&self) -> Options {
        Store::options()
            .env(self.sim.env())
            .segment_size_bytes(SEGMENT_BYTES)
            // Its thread's operations would not come at the same place each time.
            .keep(false)
    }

    fn open(&mut self) -> Result<(), Error> {
        let store = self.options().open(self.sim.path("store"))?;
        let seen = Seen::of(&store)?;
        let epoch = store.stat()?.epoch;
        let is_seen = |world: &World| world.shows(&seen) && world.epoch.is_none_or(|known| known == epoch);
        let Some(mut world) = self.worlds.iter().find(|world| is_seen(world)).cloned() else {
            let worlds = self.worlds.iter().map(|world| world.seen().to_string());
            let worlds = worlds.collect::<Vec<_>>().join("\nor\n");
            panic!("the store, of epoch {epoch}, shows\n{seen}\nbut what can be is\n{worlds}");
        };
        if self.was_closed {
            assert_eq!(store.torn_tail(), None, "it was closed well");
        }
        world.epoch = Some(epoch);
        let oldest = seen.oldest().unwrap_or(world.last() + 1);
        world.oldest = (oldest, oldest);
        self.worlds = vec![world];
        self.begin(store);
        Ok(())
    }

    fn open_unseen(&mut self) -> Result<(), Error> {
        let store = self.options().open(self.sim.path("store"))?;
        let log = committed(&store.log(1..=u64::MAX)?);
        self.worlds.retain(|world| {
            let oldest = log.first().map_or(world.last() + 1, |record| record.sequence);
            log == world.log_from(oldest)
        });
        assert!(!self.worlds.is_empty(), "the log cannot be {log:?}");
        self.begin(store);
        Ok(())
    }

    fn begin(&mut self, store: Store) {
        self.store = Some(store);
        self.is_poisoned = false;
        self.was_closed = false;
    }

    fn close(&mut self) -> Result<(), Error> {
        self.followers.clear();
        if let Some(store) = self.store.take() {
            store.close()?;
            self.was_closed = !self.is_poisoned;
        }
        Ok(())
    }

    fn commit(&mut self, wanted: &naive::Batch) -> Result<(), Error> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let done = store.commit(self.built(wanted)).map(|commit| commit.sequence());
        self.settle_commit(done, |world| world.model.commit(wanted).is_ok())
    }

    fn commit_group(&mut self, wanted: &[naive::Batch]) -> Result<(), Error> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let batches: Vec<_> = wanted.iter().map(|wanted| self.built(wanted)).collect();
        let held = self.sim.hold();
        let done: Vec<Result<Commit, Error>> = std::thread::scope(|scope| {
            let commit = |batch| {
                let (name, named) = std::sync::mpsc::channel();
                let thread = scope.spawn(move || {
                    // The folder of this thread, by which it is watched.
                    name.send(std::fs::canonicalize("/proc/thread-self").ok())
                        .unwrap();
                    store.commit(batch)
                });
                wait_until_asleep(named.recv().unwrap());
                thread
            };
            let threads: Vec<_> = batches.into_iter().map(commit).collect();
            drop(held);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let was_poisoned = self.is_poisoned;
        let mut tried = Vec::new();
        let mut answered = Vec::new();
        let mut failure = Ok(());
        for (wanted, done) in wanted.iter().zip(done) {
            match done {
                Ok(commit) => answered.extend(commit.sequence().map(|sequence| (sequence, wanted))),
                Err(error @ Error::Poisoned { .. }) => {
                    self.is_poisoned = true;
                    failure = Err(error);
                }
                // Before the group's first byte: no room, or the process has ended.
                Err(error) => {
                    let is_refused = matches!(error, Error::Preallocation { .. });
                    assert!(
                        is_refused || self.sim.is_crashed(),
                        "a commit failed with {error}"
                    );
                    failure = Err(error);
                    continue;
                }
            }
            tried.push(wanted.clone());
        }
        if was_poisoned {
            assert!(answered.is_empty(), "a poisoned store has committed");
            return failure;
        }
        let worlds = self.worlds.iter().flat_map(|world| world.with_any_of(&tried));
        let is_as_answered = |world: &World| {
            let mut answered = answered.iter();
            answered.all(|(sequence, wanted)| world.has(*sequence, wanted))
        };
        self.worlds = worlds.filter(is_as_answered).collect();
        failure
    }

    fn built(&self, wanted: &naive::Batch) -> Batch {
        let (batch, _) = build(&self.worlds[0].model, wanted.clone()).expect("a batch that can be");
        batch
    }

    fn write_plain(&mut self, write: &Plain) -> Result<(), Error> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let done = match write {
            // It tells no number.
            Plain::CreateKey { path: key } => store.create_key(&path(key)).map(|_| None),
            Plain::DeleteKey { path: key } => store.delete_key(&path(key)).map(|done| done.sequence()),
            Plain::SetValue {
                path: key,
                name,
                value: (value_type, data),
            } => {
                let value = Value::new(ValueType(*value_type), &data[..]);
                store
                    .set_value(&path(key), name, value)
                    .map(|done| done.sequence())
            }
            Plain::DeleteValue { path: key, name } => {
                store.delete_value(&path(key), name).map(|done| done.sequence())
            }
        };
        self.settle_commit(done, |world| world.model.plain(write).is_ok())
    }

    fn open_port(&mut self, name: &'static str, key: &'static str) -> Result<(), Error> {
        self.followers.remove(name);
        let Some(store) = &self.store else {
            return Ok(());
        };
        let opened = store.port(name, &path(key));
        let present = self.worlds[0].last();
        let port = self.settle(opened, false, |world| {
            world.ports.entry(name).or_insert((key, present));
            true
        })?;
        // Whether an earlier try that failed has made it shows now; of an acknowledgement with a batch that failed, the next life.
        let position = port.acknowledged();
        if !self.is_poisoned {
            self.worlds.retain(|world| world.ports[name].1 == position);
        }
        assert!(
            !self.worlds.is_empty(),
            "the port {name} cannot stand at {position}"
        );
        let follower = Follower {
            port,
            key,
            position,
            given: None,
        };
        self.followers.insert(name, follower);
        Ok(())
    }

    fn get(&mut self, name: &str) -> Result<(), Error> {
        let Some(follower) = self.followers.get_mut(name) else {
            return Ok(());
        };
        let shows = &self.worlds[0];
        let expected = shows
            .model
            .notification(follower.key, follower.position, shows.last());
        let given = follower.port.try_get()?;
        let seen = given.as_ref().map(|given| committed(given)).unwrap_or_default();
        assert_eq!(seen, expected, "the port {name}");
        follower.position = shows.last();
        follower.given = given.map(|given| (given, shows.last())).or(follower.given.take());
        Ok(())
    }

    fn acknowledge(&mut self, name: &'static str) -> Result<(), Error> {
        let Some((given, end)) = self.given(name) else {
            return Ok(());
        };
        let done = given.acknowledge();
        let done = self.settle(done, false, |world| world.move_cursor(name, end));
        self.give_back(done, name, (given, end))
    }

    fn acknowledge_with(&mut self, name: &'static str, wanted: &naive::Batch) -> Result<(), Error> {
        let Some((given, end)) = self.given(name) else {
            return Ok(());
        };
        let done = given.acknowledge_with(self.built(wanted));
        let done = self.settle_commit(done.map(|commit| commit.sequence()), |world| {
            world.model.commit_acknowledging(wanted).is_ok() && world.move_cursor(name, end)
        });
        self.give_back(done, name, (given, end))
    }

    fn given(&mut self, name: &str) -> Option<(Notification, u64)> {
        self.followers.get_mut(name)?.given.take()
    }

    /// What could not be acknowledged can be tried again.
    fn give_back<T>(
        &mut self,
        done: Result<T, Error>,
        name: &str,
        given: (Notification, u64),
    ) -> Result<T, Error> {
        if let (Err(_), Some(follower)) = (&done, self.followers.get_mut(name)) {
            follower.given = Some(given);
        }
        done
    }

    fn rewind(&mut self, name: &str) -> Result<(), Error> {
        let Some(follower) = self.followers.get_mut(name) else {
            return Ok(());
        };
        follower.port.rewind()?;
        follower.position = follower.port.acknowledged();
        follower.given = None;
        Ok(())
    }

    fn resync(&mut self, name: &'static str) -> Result<(), Error> {
        let Some(follower) = self.followers.get_mut(name) else {
            return Ok(());
        };
        let shows = &self.worlds[0];
        let end = shows.last();
        let contents = follower.port.resync()?;
        assert_eq!(contents.sequence(), end);
        assert_eq!(
            dump(contents.entries().to_vec()),
            shows.model.contents(follower.key)
        );
        follower.position = end;
        follower.given = None;
        self.settle(contents.acknowledge(), false, |world| {
            world.move_cursor(name, end)
        })
    }

    fn remove_port(&mut self, name: &'static str) -> Result<(), Error> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        self.followers.remove(name);
        let removed = match store.remove_port(name) {
            // Its creation has failed.
            Err(Error::PortNotFound { .. }) => return Ok(()),
            removed => removed,
        };
        self.settle(removed, false, |world| {
            world.ports.remove(name);
            true
        })
    }

    fn read(&mut self) -> Result<(), Error> {
        if self.store.is_none() {
            return Ok(());
        }
        let options = Reader::options().env(self.sim.env());
        let reader = options.open_reader(self.sim.path("store"))?;
        let shows = &self.worlds[0];
        let log = committed(&reader.log(1..=u64::MAX)?);
        let oldest = log.first().map_or(shows.last() + 1, |record| record.sequence);
        assert!((shows.oldest.0..=shows.oldest.1).contains(&oldest), "{oldest}");
        assert!(log == shows.log_from(oldest), "the log of a reader is another");
        assert_eq!(dump(reader.list_recursive(&KeyPath::root())?), shows.model.dump());
        Ok(())
    }

    fn snapshot(&mut self) -> Result<(), Error> {
        match &self.store {
            Some(store) => store.snapshot().map(drop),
            None => Ok(()),
        }
    }

    /// Nothing is lost: no port is behind a limit.
    fn trim(&mut self) -> Result<(), Error> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let done = store.trim();
        for world in &mut self.worlds {
            world.oldest = match &done {
                Ok(trimmed) => {
                    assert_eq!(trimmed.lagging, [""; 0]);
                    (trimmed.oldest, trimmed.oldest)
                }
                Err(_) => (world.oldest.0, world.last() + 1),
            };
        }
        done.map(drop)
    }

    fn backup(&mut self) -> Result<(), Error> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let done = store.backup(self.sim.path("backup"));
        // What the store shows, whatever becomes of a commit that nobody knows the end of; ports may be in either way.
        let log = self.worlds[0].log_from(1);
        let shown = self.worlds.iter().filter(|world| world.log_from(1) == log);
        let backups: Vec<_> = shown.map(|world| Some(world.backup())).collect();
        for world in &mut self.worlds {
            if done.is_ok() {
                world.backups.clear();
            }
            world.backups.extend(backups.iter().cloned());
        }
        done.map(drop)
    }

    fn restore(&mut self) -> Result<(), Error> {
        let path = self.sim.path("restored");
        let is_new = match self.options().restore(self.sim.path("backup"), &path) {
            Ok(_) => true,
            // Of an earlier backup, perhaps.
            Err(Error::StoreExists { .. }) => false,
            // None was made, or the one that was tried has not come through.
            Err(Error::BackupNotFound { .. }) => {
                let may_be_none = |world: &World| world.backups.iter().any(Option::is_none);
                assert!(self.worlds.iter().any(may_be_none), "a backup is gone");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let store = self.options().open(&path)?;
        let seen = Seen::of(&store)?;
        let is_one = |world: &World| world.backups.iter().flatten().any(|backup| backup.shows(&seen));
        assert!(
            !is_new || self.worlds.iter().any(is_one),
            "what was restored shows\n{seen}"
        );
        store.close()
    }
}

/// Waits until a thread waits: its batch is in the queue, or it leads and is held up; or until it has ended.
fn wait_until_asleep(thread: Option<PathBuf>) {
    let Some(thread) = thread else {
        return std::thread::sleep(Duration::from_millis(5));
    };
    while let Ok(stat) = std::fs::read_to_string(thread.join("stat"))
        && !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
    {
        std::thread::yield_now();
    }
}
