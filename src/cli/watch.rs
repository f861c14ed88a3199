//! The verbs that show changes: `watch` and `log`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clusdb::wire::WireError;
use clusdb::{BatchView, Error, JournalView, Notification, Port};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::{self, Format};
use crate::failure::{Failure, Result};
use crate::json::{ChangeJson, WireJson};
use crate::output::{Output, rfc3339};
use crate::session::Session;

/// Whether the following was interrupted is looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

pub fn watch(session: &Session, arguments: &args::Watch) -> Result {
    let is_unbounded = arguments.command.is_empty() && !arguments.once;
    if arguments.wire && session.format == Format::Text && is_unbounded {
        let message = "the protocol's bytes do not tell where they end: give --once, or -o jsonl";
        return Err(Failure::usage("usage", message));
    }
    let store = session.read()?;
    let port = store.open_port(&arguments.name)?;
    let is_interrupted = told_of_interrupts();
    let mut output = session.output();
    while let Some(notification) = next(&port, arguments, &is_interrupted)? {
        // Handed over first, then acknowledged: crash between, and the lines come again.
        match arguments.command.is_empty() {
            true => {
                write_notification(&mut output, session.format, arguments, &notification)?;
                output.flush()?;
            }
            false => run_command(session.format, arguments, &notification)?,
        }
        if !arguments.no_acknowledge {
            notification.acknowledge()?;
        }
        if arguments.once {
            break;
        }
    }
    match arguments.command.is_empty() {
        true => output.end(),
        false => Ok(()),
    }
}

fn write_notification(
    output: &mut Output,
    format: Format,
    arguments: &args::Watch,
    notification: &JournalView,
) -> Result {
    match (arguments.wire, format) {
        (true, Format::Text) => output.raw(&to_wire(notification.to_wire())?),
        (true, _) => write_wire(output, notification),
        (false, _) => write_view(output, notification, arguments.commands),
    }
}

/// Runs the command with the notification on its standard input, and waits for its end.
fn run_command(format: Format, arguments: &args::Watch, notification: &JournalView) -> Result {
    let [name, rest @ ..] = arguments.command.as_slice() else {
        return Ok(());
    };
    let started = Command::new(name).args(rest).stdin(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| Failure::io("run", Path::new(name), &error))?;
    if let Some(input) = child.stdin.take() {
        let mut input = Output::to(format, Box::new(input));
        let written = write_notification(&mut input, format, arguments, notification);
        let written = match arguments.wire {
            true => written.and_then(|()| input.flush()),
            false => written.and_then(|()| input.end()),
        };
        // A command need not read to the end: what counts is how it ends.
        if let Err(failure) = written
            && failure.exit_code() != 0
        {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failure);
        }
    }
    let status = child
        .wait()
        .map_err(|error| Failure::io("wait for", Path::new(name), &error))?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::of_command(name, status)),
    }
}

/// The next notification; none at the end of the time, or when the following was interrupted.
fn next(
    port: &Port,
    arguments: &args::Watch,
    is_interrupted: &AtomicBool,
) -> clusdb::Result<Option<Notification>> {
    let deadline = arguments
        .timeout
        .and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map_or(LOOK_INTERVAL, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        let got = port.get_timeout(left.min(LOOK_INTERVAL))?;
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if got.is_some() || is_over || is_interrupted.load(Ordering::Relaxed) {
            return Ok(got);
        }
    }
}

/// Set at SIGINT and SIGTERM, which end the following between two notifications.
fn told_of_interrupts() -> Arc<AtomicBool> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Where it cannot be told, the signal ends the process.
        let _ = signal_hook::flag::register(signal, Arc::clone(&is_interrupted));
    }
    is_interrupted
}

pub fn log(session: &Session, arguments: &args::Log) -> Result {
    let store = session.read()?;
    let records = store.log(arguments.from..=arguments.to)?;
    let mut output = session.output();
    write_view(&mut output, &records, false)?;
    output.end()
}

fn write_wire(output: &mut Output, view: &JournalView) -> Result {
    for batch in view.batches() {
        let wire = to_wire(batch.to_wire())?;
        output.item(&WireJson::new(batch.sequence(), rfc3339(batch.time()), &wire))?;
    }
    Ok(())
}

fn to_wire(encoded: std::result::Result<Vec<u8>, WireError>) -> Result<Vec<u8>> {
    Ok(encoded.map_err(Error::from)?)
}

fn write_view(output: &mut Output, view: &JournalView, commands: bool) -> Result {
    for batch in view.batches() {
        let time = rfc3339(batch.time());
        if commands {
            write_changes(output, &batch, &time, batch.commands())?;
        } else {
            write_changes(output, &batch, &time, batch.changes())?;
        }
    }
    Ok(())
}

fn write_changes<'a>(
    output: &mut Output,
    batch: &BatchView<'_>,
    time: &str,
    changes: impl Iterator<Item = clusdb::Change<'a>>,
) -> Result {
    for change in changes {
        output.item(&ChangeJson::from(change).in_batch(batch, time))?;
    }
    Ok(())
}
