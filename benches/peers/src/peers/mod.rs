//! The stores that take part.

mod clusdb;
mod fjall;
mod lmdb;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;
mod sqlite;
mod transaction;

use std::fmt;
use std::path::Path;

use ::clusdb::KeyPath;
use anyhow::Result;

pub use self::clusdb::record_bytes;
pub use self::transaction::{Transaction, apply};
use crate::peer::Peer;

/// What the caches of stores that have one may hold: all that is measured here fits, as clusdb's state does.
const CACHE_BYTES: usize = 1 << 30;

/// Batches in one transaction of a bulk load.
const LOAD_GROUP: usize = 1000;

/// What was built.
const LOCK: &str = include_str!("../../Cargo.lock");

/// A store that takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Store {
    Clusdb,
    /// clusdb without the copy of its state behind the journal: takes part where that matters most.
    Treeless,
    Sled,
    Redb,
    Fjall,
    Sqlite,
    Lmdb,
    #[cfg(feature = "rocksdb")]
    RocksDb,
}

impl Store {
    pub const ALL: &[Store] = &[
        Store::Clusdb,
        Store::Sled,
        Store::Redb,
        Store::Fjall,
        Store::Sqlite,
        Store::Lmdb,
        #[cfg(feature = "rocksdb")]
        Store::RocksDb,
    ];

    /// As tables and the command line call it.
    pub fn name(self) -> &'static str {
        match self {
            Store::Clusdb => "clusdb",
            Store::Treeless => "clusdb-treeless",
            Store::Sled => "sled",
            Store::Redb => "redb",
            Store::Fjall => "fjall",
            Store::Sqlite => "SQLite",
            Store::Lmdb => "LMDB",
            #[cfg(feature = "rocksdb")]
            Store::RocksDb => "RocksDB",
        }
    }

    pub fn from_name(name: &str) -> Option<Store> {
        let mut all = Store::ALL.iter().chain(&[Store::Treeless]);
        all.find(|store| store.name().eq_ignore_ascii_case(name)).copied()
    }

    /// The version that is measured, and of what.
    pub fn version(self) -> String {
        let version = |package: &str| {
            let entry = format!("name = \"{package}\"\nversion = \"");
            // Of two versions the later one stands behind.
            let version = LOCK
                .rsplit_once(&entry)
                .and_then(|(_, rest)| rest.split_once('"'));
            version.map_or("unknown", |(version, _)| version)
        };
        match self {
            Store::Clusdb | Store::Treeless => format!("clusdb {}", version("clusdb")),
            Store::Sled | Store::Redb | Store::Fjall => format!("{self} {}", version(self.name())),
            Store::Sqlite => format!(
                "SQLite {} (rusqlite {})",
                rusqlite::version(),
                version("rusqlite")
            ),
            Store::Lmdb => format!("{} (heed {})", heed::lmdb_version().string, version("heed")),
            #[cfg(feature = "rocksdb")]
            Store::RocksDb => format!("the system's RocksDB (rocksdb {})", version("rocksdb")),
        }
    }

    /// Whether a change has the value that was there before.
    pub fn keeps_previous(self) -> bool {
        #[cfg(feature = "rocksdb")]
        if self == Store::RocksDb {
            return false;
        }
        true
    }

    /// Opens the store in this folder, or makes one there. The keys are those whose changes will be asked for: clusdb makes a port
    /// for each.
    pub fn open(self, folder: &Path, followed: &[KeyPath]) -> Result<Box<dyn Peer>> {
        std::fs::create_dir_all(folder)?;
        Ok(match self {
            Store::Clusdb => Box::new(clusdb::Clusdb::open(folder, followed, true)?),
            Store::Treeless => Box::new(clusdb::Clusdb::open(folder, followed, false)?),
            Store::Sled => Box::new(sled::Sled::open(folder)?),
            Store::Redb => Box::new(redb::Redb::open(folder)?),
            Store::Fjall => Box::new(fjall::Fjall::open(folder)?),
            Store::Sqlite => Box::new(sqlite::Sqlite::open(folder)?),
            Store::Lmdb => Box::new(lmdb::Lmdb::open(folder)?),
            #[cfg(feature = "rocksdb")]
            Store::RocksDb => Box::new(rocksdb::RocksDb::open(folder)?),
        })
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
