//! What a store has promised, by the naive model, and what it shows.

use std::collections::BTreeMap;

use clusdb::{Epoch, Error, Store, Value, ValueType};

use crate::harness::{committed, contents, path};
use crate::naive::{self, Committed, DumpLine};

/// What a store holds, by the naive model.
#[derive(Debug, Clone)]
pub struct World {
    /// None until the store was opened once.
    pub epoch: Option<Epoch>,
    pub model: naive::Store,
    /// Each port's key, and up to where it has acknowledged.
    pub ports: BTreeMap<&'static str, (&'static str, u64)>,
    /// The oldest record that the journal has: at least, and at most.
    pub oldest: (u64, u64),
    /// What a backup may hold; none if there may be no backup.
    pub backups: Vec<Option<World>>,
}

/// What a store shows to its users.
#[derive(Debug, PartialEq)]
pub struct Seen {
    log: Vec<Committed>,
    contents: Vec<DumpLine>,
    ports: Vec<SeenPort>,
}

#[derive(Debug, PartialEq)]
pub struct SeenPort {
    name: String,
    key: String,
    acknowledged: u64,
    pending: u64,
    shown: Vec<Committed>,
}

impl World {
    pub fn new() -> World {
        World {
            epoch: None,
            model: naive::Store::new(),
            ports: BTreeMap::new(),
            oldest: (1, 1),
            backups: vec![None],
        }
    }

    pub fn last(&self) -> u64 {
        self.model.last_sequence()
    }

    /// All that can become of batches that are committed at the same time: any of them, in any order; the fewest first.
    pub fn with_any_of(&self, batches: &[naive::Batch]) -> Vec<World> {
        let mut worlds = vec![(self.clone(), Vec::new())];
        let mut next = 0;
        while let Some((world, done)) = worlds.get(next).cloned() {
            for (index, batch) in batches.iter().enumerate() {
                let (mut world, mut done) = (world.clone(), done.clone());
                if !done.contains(&index) && world.model.commit(batch).is_ok() {
                    done.push(index);
                    worlds.push((world, done));
                }
            }
            next += 1;
        }
        worlds.into_iter().map(|(world, _)| world).collect()
    }

    /// Whether the record of this number is the batch's, as its key tells.
    pub fn has(&self, sequence: u64, batch: &naive::Batch) -> bool {
        let record = self.model.log.iter().find(|record| record.sequence == sequence);
        record.is_some_and(|record| record.shown[0].key == batch.key)
    }

    /// False if there is no such port.
    pub fn move_cursor(&mut self, name: &str, end: u64) -> bool {
        let port = self.ports.get_mut(name);
        port.map(|(_, acknowledged)| *acknowledged = end).is_some()
    }

    pub fn shows(&self, seen: &Seen) -> bool {
        // The log is compared first, because it tells most worlds apart and costs least.
        let oldest = seen.log.first().map_or(self.last() + 1, |record| record.sequence);
        let (least, most) = self.oldest;
        (least..=most).contains(&oldest)
            && self.log_from(oldest) == seen.log
            && self.seen_from(oldest) == *seen
    }

    /// The records from this one on.
    pub fn log_from(&self, oldest: u64) -> &[Committed] {
        let log = &self.model.log;
        &log[log.partition_point(|record| record.sequence < oldest)..]
    }

    /// What a backup holds that is made now.
    pub fn backup(&self) -> World {
        World {
            epoch: None,
            backups: Vec::new(),
            ..self.clone()
        }
    }

    pub fn seen(&self) -> Seen {
        self.seen_from(self.oldest.0)
    }

    fn seen_from(&self, oldest: u64) -> Seen {
        let ports = self.ports.iter().map(|(name, (key, acknowledged))| {
            let shown = self.model.notification(key, *acknowledged, self.last());
            SeenPort {
                name: (*name).to_owned(),
                key: (*key).to_owned(),
                acknowledged: *acknowledged,
                pending: shown.len() as u64,
                shown,
            }
        });
        Seen {
            log: self.log_from(oldest).to_vec(),
            contents: self.model.dump(),
            ports: ports.collect(),
        }
    }
}

impl Seen {
    pub fn oldest(&self) -> Option<u64> {
        self.log.first().map(|record| record.sequence)
    }

    pub fn of(store: &Store) -> Result<Seen, Error> {
        let mut ports = Vec::new();
        for listed in store.ports()? {
            let port = store.open_port(&listed.name)?;
            let shown = match port.try_get()? {
                Some(notification) => committed(&notification),
                None => Vec::new(),
            };
            assert_eq!(port.acknowledged(), listed.acknowledged);
            ports.push(SeenPort {
                name: listed.name,
                key: listed.key.to_string(),
                acknowledged: listed.acknowledged,
                pending: listed.pending,
                shown,
            });
        }
        let contents = contents(store);
        for line in &contents {
            if let DumpLine::Value {
                key,
                name,
                value_type,
                data,
            } = line
            {
                let value = Value::new(ValueType(*value_type), &data[..]);
                assert_eq!(store.get(&path(key), name)?, Some(value));
            }
        }
        Ok(Seen {
            log: committed(&store.log(1..=u64::MAX)?),
            contents,
            ports,
        })
    }
}

/// In short: of the contents, how many lines and bytes there are.
impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let batch = |batch: &Committed| format!("{} {:?}", batch.sequence, batch.shown[0].key);
        let log: Vec<_> = self.log.iter().map(batch).collect();
        let bytes = self.contents.iter().map(|line| match line {
            DumpLine::Key(_) => 0,
            DumpLine::Value { data, .. } => data.len(),
        });
        let bytes: usize = bytes.sum();
        write!(f, "  {log:?}, {} lines of {bytes} bytes", self.contents.len())?;
        for port in &self.ports {
            let shown: Vec<_> = port.shown.iter().map(|batch| batch.sequence).collect();
            let SeenPort {
                name, acknowledged, ..
            } = port;
            write!(
                f,
                "\n  the port {name}: {acknowledged} acknowledged, shows {shown:?}"
            )?;
        }
        Ok(())
    }
}
