//! What takes a process of its own: to be killed, and to be weighed.

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::peers::Store;
use crate::process::{heap_bytes, resident_bytes};
use crate::work::batch_of_10;

/// What a child commits, each durably.
pub const COMMITS: u64 = 300;
const READY: &str = "committed";

/// What an open store takes, in bytes.
pub struct Taken {
    /// Resident memory that no file backs.
    pub anonymous: u64,
    pub resident: u64,
    pub allocated: Option<u64>,
}

/// What the program does for `--child ROLE STORE FOLDER`.
pub fn run(given: &[String]) -> Result<()> {
    let [role, store, folder] = given else {
        bail!("a child is given a role, a store and a folder");
    };
    let store = Store::from_name(store).context("a store")?;
    match role.as_str() {
        "memory" => weigh(store, Path::new(folder)),
        "commit" => commit_and_wait(store, Path::new(folder)),
        role => bail!("there is no role {role:?}"),
    }
}

fn weigh(store: Store, folder: &Path) -> Result<()> {
    let (anonymous, resident) = resident_bytes();
    let heap = heap_bytes();
    let peer = store.open(folder, &[])?;
    let mut weight = 0;
    peer.iterate(&mut |entry| weight += entry.weigh())?;
    black_box(weight);
    let (anonymous_now, resident_now) = resident_bytes();
    let heap = heap_bytes()
        .zip(heap)
        .map(|(now, before)| now.saturating_sub(before));
    let heap = heap.map_or_else(|| "none".to_owned(), |heap| heap.to_string());
    let anonymous = anonymous_now.saturating_sub(anonymous);
    println!("{anonymous} {} {heap}", resident_now.saturating_sub(resident));
    peer.close()
}

/// Commits, says so, and waits to be killed, or for the end of its input.
fn commit_and_wait(store: Store, folder: &Path) -> Result<()> {
    let peer = store.open(folder, &[])?;
    for number in 0..COMMITS {
        peer.write(&[batch_of_10(0, number)])?;
    }
    println!("{READY}");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    peer.close()
}

fn child(role: &str, store: Store, folder: &Path) -> Result<Command> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["--child", role, store.name()]).arg(folder);
    Ok(child)
}

/// Opens the store in a process of its own, and gives what that took.
pub fn memory(store: Store, folder: &Path) -> Result<Taken> {
    let output = child("memory", store, folder)?.output()?;
    ensure!(
        output.status.success(),
        "a child failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    Ok(Taken {
        anonymous: next().context("a number")?,
        resident: next().context("a number")?,
        allocated: next(),
    })
}

/// Opens the store in a process of its own, which commits and is killed.
pub fn kill_behind_commits(store: Store, folder: &Path) -> Result<()> {
    let mut child = child("commit", store, folder)?;
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("its output")?;
    let line = BufReader::new(output).lines().next().transpose()?;
    child.kill()?;
    child.wait()?;
    ensure!(
        line.as_deref() == Some(READY),
        "the child that was to be killed failed"
    );
    Ok(())
}
