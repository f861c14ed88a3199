//! Runs the workloads and writes the results. `--help` has the options.

use std::ffi::OsString;

use anyhow::{Context, Result};
use clusdb_peers::arguments::{self, Arguments, HELP, Request};
use clusdb_peers::machine::Machine;
use clusdb_peers::peers::Store;
use clusdb_peers::report::Report;
use clusdb_peers::watchdog::Watchdog;
use clusdb_peers::workloads::{self, Bench};
use clusdb_peers::{child, process};

const COMMAND: &str = match cfg!(feature = "rocksdb") {
    true => "cargo run --release --manifest-path benches/peers/Cargo.toml --features rocksdb",
    false => "cargo run --release --manifest-path benches/peers/Cargo.toml",
};

fn main() -> Result<()> {
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments::parse(given.clone())? {
        Request::Help => println!("{HELP}"),
        Request::List => {
            let names = workloads::ALL.iter().map(|workload| workload.name);
            println!("workloads: {}", names.collect::<Vec<_>>().join(","));
            let names = Store::ALL.iter().map(|store| store.name());
            println!("stores:    {}", names.collect::<Vec<_>>().join(","));
        }
        Request::Child(given) => child::run(&given)?,
        Request::Run(arguments) => run(&arguments, &given)?,
    }
    Ok(())
}

fn run(arguments: &Arguments, given: &[OsString]) -> Result<()> {
    process::allow_open_files();
    std::fs::create_dir_all(&arguments.folder)
        .with_context(|| format!("the folder for the stores, {}", arguments.folder.display()))?;
    let given: Vec<_> = given.iter().map(|given| given.to_string_lossy()).collect();
    let mut report = Report {
        machine: Machine::look(&arguments.folder)?,
        command: format!("{COMMAND} -- {}", given.join(" ")),
        versions: arguments.stores.iter().map(|store| store.version()).collect(),
        rounds: arguments.rounds,
        scale: arguments.scale,
        sections: Vec::new(),
    };
    let watchdog = Watchdog::start();
    for workload in &arguments.workloads {
        eprintln!("{}: {}", workload.name, workload.title);
        let folder = tempfile::tempdir_in(&arguments.folder)?;
        let bench = Bench {
            arguments,
            watchdog: &watchdog,
            folder: folder.path(),
        };
        let section = (workload.run)(&bench).with_context(|| format!("workload {:?}", workload.name))?;
        report.sections.push((**workload).with(section));
        // After each: a run that is cut short leaves what it has.
        report.write(&arguments.out)?;
    }
    println!("{}", arguments.out.join("results.md").display());
    Ok(())
}
