//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use lexopt::{Arg, Parser, ValueExt};

use crate::peers::Store;
use crate::workloads;

pub const HELP: &str = "\
The same work through clusdb and through other embedded stores, in turn within one run.

Options:
  --scale NUMBER    how much of everything is done; 1 by default, 0.01 for a look
  --rounds COUNT    rounds in which all take turns; 5 by default
  --only LIST       workloads, by name and with commas; all by default
  --peers LIST      stores beside clusdb, by name and with commas; all by default
  --out FOLDER      where results.md, results.json and the plots go; results by default
  --dir FOLDER      where the stores go: on the disk that is meant; in target by default
  --memory FOLDER   where stores go that no disk shall slow down; /dev/shm by default
  --list            the workloads and the stores";

#[derive(Debug, Clone)]
pub struct Arguments {
    pub scale: f64,
    pub rounds: usize,
    pub workloads: Vec<&'static workloads::Workload>,
    pub stores: Vec<Store>,
    pub out: PathBuf,
    pub folder: PathBuf,
    pub memory: PathBuf,
}

pub enum Request {
    Run(Arguments),
    Help,
    List,
    /// A part of a workload that takes a process of its own.
    Child(Vec<String>),
}

impl Arguments {
    fn new() -> Arguments {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        Arguments {
            scale: 1.0,
            rounds: 5,
            workloads: workloads::ALL.iter().collect(),
            stores: Store::ALL.to_vec(),
            out: PathBuf::from("results"),
            folder: package.join("target/stores"),
            memory: PathBuf::from("/dev/shm"),
        }
    }
}

pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request> {
    let mut parser = Parser::from_args(arguments);
    let mut parsed = Arguments::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("scale") => parsed.scale = parser.value()?.parse()?,
            Arg::Long("rounds") => parsed.rounds = parser.value()?.parse()?,
            Arg::Long("only") => {
                let find = |name: &str| {
                    let found = workloads::ALL.iter().find(|workload| workload.name == name);
                    found.with_context(|| format!("there is no workload {name:?}: see --list"))
                };
                parsed.workloads = list(&parser.value()?.string()?, find)?;
            }
            Arg::Long("peers") => {
                let find = |name: &str| {
                    Store::from_name(name).with_context(|| format!("there is no store {name:?}: see --list"))
                };
                parsed.stores = list(&parser.value()?.string()?, find)?;
                parsed.stores.retain(|store| *store != Store::Clusdb);
                parsed.stores.insert(0, Store::Clusdb);
            }
            Arg::Long("out") => parsed.out = parser.value()?.into(),
            Arg::Long("dir") => parsed.folder = parser.value()?.into(),
            Arg::Long("memory") => parsed.memory = parser.value()?.into(),
            Arg::Long("help") | Arg::Short('h') => return Ok(Request::Help),
            Arg::Long("list") => return Ok(Request::List),
            Arg::Long("child") => {
                let rest = parser.raw_args()?.map(|rest| rest.string());
                return Ok(Request::Child(rest.collect::<Result<_, _>>()?));
            }
            argument => bail!(argument.unexpected()),
        }
    }
    ensure!(parsed.scale > 0.0 && parsed.rounds > 0, "nothing is left to do");
    Ok(Request::Run(parsed))
}

fn list<T>(names: &str, find: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    names.split(',').map(|name| find(name.trim())).collect()
}
