//! `tour`: the main job, shown in a throw-away store: a batch is committed, its process is killed before it
//! acknowledges, and the next process gets the notification all the same, mapped from the journal.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clusdb::json::BatchLine;
use clusdb::{Batch, KeyPath, Store};

use crate::args;
use crate::failure::{Failure, Result};
use crate::reg::{self, SectionKind};
use crate::session::Session;

/// The configuration that the store begins with, and the change that is made to it.
const SAMPLE: &str = include_str!("tour/sample.reg");
const CHANGE: &str = include_str!("tour/change.jsonl");
const KEY: &str = r"Cluster\Resources";
const PORT: &str = "audit";
/// What the child says when it has the notification and has not acknowledged it.
const READY: &str = "ready";

pub fn run(session: &Session, arguments: &args::Tour) -> Result {
    match (&session.store, arguments.child) {
        (Some(store), true) => child(store),
        _ => parent(),
    }
}

fn parent() -> Result {
    let folder = tempfile::tempdir().map_err(|error| io("make a temporary folder", &error))?;
    let path = folder.path().join("cluster.db");
    let mut step = Steps { number: 0 };

    let (port_key, began) = (KeyPath::parse(KEY)?, Instant::now());
    let store = Store::open(&path)?;
    step.done(began, &format!("made a store in {}", path.display()))?;

    let began = Instant::now();
    let commit = store.commit(sample()?)?;
    let stat = store.stat()?;
    let sequence = commit.sequence().unwrap_or_default();
    let text = format!(
        "imported a sample of {} keys and {} values as batch {sequence}",
        stat.keys, stat.values
    );
    step.done(began, &text)?;

    let began = Instant::now();
    store.port(PORT, &port_key)?;
    step.done(
        began,
        &format!("created the port {PORT:?} on {KEY}: it shows what comes from now on"),
    )?;
    store.close()?;

    let began = Instant::now();
    let process = run_and_kill_child(&path, &mut step)?;
    step.done(
        began,
        &format!("killed process {process} with SIGKILL: committed, and not acknowledged"),
    )?;

    let began = Instant::now();
    let store = Store::open(&path)?;
    let port = store.open_port(PORT)?;
    let replayed = store.stat()?.replayed;
    step.done(
        began,
        &format!(
            "opened the store again in process {}: {replayed} batches replayed",
            std::process::id()
        ),
    )?;

    let began = Instant::now();
    let Some(notification) = port.try_get()? else {
        return Err(Failure::not_found("the notification is gone: this is a bug"));
    };
    step.done(began, "the notification is still there:")?;
    for batch in notification.batches() {
        for change in batch.changes() {
            say(&format!("       {} {change}", batch.sequence()))?;
        }
    }
    if let Some((first, last)) = notification.addresses() {
        let text =
            format!("       its bytes {first:#x} to {last:#x} are not copied, but mapped from the journal:");
        say(&text)?;
        if let Some(line) = memory_map_line(first) {
            say(&format!("       {line}"))?;
        }
    }

    let began = Instant::now();
    notification.acknowledge()?;
    step.done(
        began,
        &format!(
            "acknowledged: the cursor is saved at batch {}",
            port.acknowledged()
        ),
    )?;

    let began = Instant::now();
    drop(port);
    store.close()?;
    let store = Store::open(&path)?;
    let pending = store.open_port(PORT)?.try_get()?.is_some();
    let text = if pending {
        "something came twice: this is a bug"
    } else {
        "nothing comes twice"
    };
    step.done(began, &format!("opened once more: {text}"))?;
    store.close()?;
    say("The throw-away store is removed. Try `clusdb --help`.")
}

/// The part that is killed: commits, gets the notification, and waits for the end.
fn child(path: &Path) -> Result {
    let store = Store::open(path)?;
    let port = store.open_port(PORT)?;
    let began = Instant::now();
    let commit = store.commit(change()?)?;
    let sequence = commit.sequence().unwrap_or_default();
    say(&format!(
        "batch {sequence} of {} changes is committed and durable|{}",
        change()?.len(),
        microseconds(began)
    ))?;
    let began = Instant::now();
    let notification = port.get()?;
    let text = format!(
        "the port shows it: {} batch, not acknowledged",
        notification.len()
    );
    say(&format!("{text}|{}", microseconds(began)))?;
    say(READY)?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Starts the child, tells what it does, and kills it once it has the notification. Gives its process id.
fn run_and_kill_child(store: &Path, step: &mut Steps) -> Result<u32> {
    let program = std::env::current_exe().map_err(|error| io("find this program", &error))?;
    let mut child = Command::new(program)
        .arg("--store")
        .arg(store)
        .args(["tour", "--child"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| io("start a process", &error))?;
    let process = child.id();
    let lines = child
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(BufRead::lines);
    let mut is_ready = false;
    for line in lines.map_while(std::io::Result::ok) {
        if line == READY {
            is_ready = true;
            break;
        }
        let (text, took) = line.split_once('|').unwrap_or((&line, "0"));
        step.done_in(
            took.parse().unwrap_or_default(),
            &format!("process {process}: {text}"),
        )?;
    }
    // On Unix this is SIGKILL: no destructor, no handler, no flush.
    child.kill().map_err(|error| io("kill the process", &error))?;
    child.wait().map_err(|error| io("wait for the process", &error))?;
    match is_ready {
        true => Ok(process),
        false => Err(Failure::not_found("the process ended before it was killed")),
    }
}

/// The line of this process's memory map that holds the address, where the system has such a file.
fn memory_map_line(address: usize) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let holds = |line: &&str| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let bounds = range.and_then(|(from, to)| {
            let from = usize::from_str_radix(from, 16).ok()?;
            Some(from..usize::from_str_radix(to, 16).ok()?)
        });
        bounds.is_some_and(|bounds| bounds.contains(&address))
    };
    maps.lines().find(holds).map(str::to_owned)
}

fn sample() -> Result<Batch> {
    let mut batch = Batch::at(&KeyPath::root());
    for section in reg::read(SAMPLE.as_bytes())? {
        let SectionKind::Create(entries) = section.kind else {
            continue;
        };
        batch.create_key(&section.key)?;
        for entry in entries {
            let Some(data) = entry.data else { continue };
            let value = clusdb::Value::new(clusdb::ValueType(data.value_type), data.bytes);
            batch.set_value(&entry.name, value)?;
        }
    }
    Ok(batch)
}

fn change() -> Result<Batch> {
    let mut batch = BatchLine::at(&KeyPath::parse(KEY)?);
    for line in CHANGE.lines() {
        batch.add(line)?;
    }
    Ok(batch.to_batch()?)
}

struct Steps {
    number: u32,
}

impl Steps {
    fn done(&mut self, began: Instant, text: &str) -> Result {
        self.done_in(microseconds(began), text)
    }

    fn done_in(&mut self, microseconds: u128, text: &str) -> Result {
        self.number += 1;
        say(&format!(
            "{:>2}. {text}  [{:.1} ms]",
            self.number,
            microseconds as f64 / 1000.0
        ))
    }
}

fn microseconds(began: Instant) -> u128 {
    began.elapsed().as_micros()
}

fn say(text: &str) -> Result {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| Failure::of_output(&error))
}

fn io(what: &str, error: &std::io::Error) -> Failure {
    Failure::io(what, Path::new("for the tour"), error)
}
