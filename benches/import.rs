//! The import of a real registry hive by the command line, beside writing and syncing as many bytes as its journal
//! has: `CLUSDB_INPUTS=<folder with system-hive.reg.xz or system-hive.reg> cargo bench --bench import`.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use support::{Figures, folder, hive, timed};

const ROUNDS: usize = 5;

fn main() {
    let folder = folder();
    let Some(hive) = hive(folder.path()) else {
        eprintln!("no system-hive.reg in CLUSDB_INPUTS: nothing is measured");
        return;
    };
    let (store, raw) = (folder.path().join("store"), folder.path().join("raw"));
    let mut bytes = vec![0xa5; 1];
    let mut figures = Figures::new("import of a hive of 73,456 values", "ms");
    for round in 0..=ROUNDS {
        let ours = || {
            if store.exists() {
                fs::remove_dir_all(&store).expect("the last round's store");
            }
            let mut import = Command::new(env!("CARGO_BIN_EXE_clusdb"));
            import
                .arg("--store")
                .arg(&store)
                .arg("import")
                .arg(&hive)
                .stdout(Stdio::null());
            let (status, time) = timed(|| import.status().expect("the command line"));
            assert!(status.success());
            time.as_secs_f64() * 1e3
        };
        if round == 0 {
            // To know how much it writes.
            ours();
            let journal = fs::read_dir(store.join("journal")).expect("a journal");
            let length = |entry: fs::DirEntry| entry.metadata().expect("a file").len();
            let total: u64 = journal.map(|entry| length(entry.expect("an entry"))).sum();
            bytes.resize(total as usize, 0xa5);
            continue;
        }
        figures.round(ours, || {
            let write = || {
                let mut file = File::create(&raw).expect("a file");
                file.write_all(&bytes).expect("a write");
                file.sync_all().expect("a sync");
            };
            timed(write).1.as_secs_f64() * 1e3
        });
    }
    figures.print();
    eprintln!("{} bytes of journal; medians of {ROUNDS} rounds", bytes.len());
}
