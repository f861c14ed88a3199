//! A store that is measured waits for the disk: at least once for every commit. Seen from outside, through strace; where that
//! does not work, a line says so.

use std::fs;
use std::process::{Command, Stdio};

use clusdb_peers::child::COMMITS;
use clusdb_peers::peers::Store;

#[test]
fn every_commit_of_every_store_reaches_the_disk() {
    let traced = Command::new("strace").arg("true").output();
    if !traced.is_ok_and(|output| output.status.success()) {
        eprintln!("strace does not work here: nobody has counted the syncs");
        return;
    }
    for store in Store::ALL {
        let folder = tempfile::tempdir().expect("a folder");
        let calls = folder.path().join("calls");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-e", "trace=fsync,fdatasync,msync", "-o"]);
        strace.arg(&calls).arg(env!("CARGO_BIN_EXE_clusdb-peers"));
        strace.args(["--child", "commit", store.name()]);
        strace.arg(folder.path().join("store")).stdin(Stdio::null());
        let output = strace.output().expect("strace");
        assert!(
            output.status.success(),
            "{store}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let calls = fs::read_to_string(&calls).expect("calls");
        // A call that another thread has interrupted is on two lines, the second of which has no parenthesis behind the name.
        let syncs = ["fsync(", "fdatasync(", "msync("];
        let syncs = calls
            .lines()
            .filter(|line| syncs.iter().any(|name| line.contains(name)))
            .count();
        assert!(
            syncs as u64 >= COMMITS,
            "{store}: {syncs} syncs for {COMMITS} commits"
        );
    }
}
