//! The verbs that show changes: `watch` and `log`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clusdb::wire::WireError;
use clusdb::{BatchView, Error, JournalView, Notification, Port};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::{self, Format};
use crate::failure::{Failure, Result};
use crate::json::{ChangeJson, WireJson};
use crate::output::{Output, rfc3339};
use crate::session::Session;

pub fn watch(session: &Session, arguments: &args::Watch) -> Result {
    if arguments.wire && session.format == Format::Text && !arguments.once {
        let message = "the protocol's bytes do not tell where they end: give --once, or -o jsonl";
        return Err(Failure::usage("usage", message));
    }
    let store = session.open_existing()?;
    let port = store.open_port(&arguments.name)?;
    let was_interrupted = close_on_interrupt(&port);
    let mut output = session.output();
    loop {
        let notification = match next(&port, arguments) {
            Err(Error::PortClosed { .. }) if was_interrupted.load(Ordering::Relaxed) => None,
            other => other?,
        };
        let Some(notification) = notification else {
            break;
        };
        match (arguments.wire, session.format) {
            (true, Format::Text) => output.raw(&to_wire(notification.to_wire())?)?,
            (true, _) => write_wire(&mut output, &notification)?,
            (false, _) => write_view(&mut output, &notification, arguments.commands)?,
        }
        // Handed over first, then acknowledged: crash between, and the lines come again.
        output.flush()?;
        if !arguments.no_acknowledge {
            notification.acknowledge()?;
        }
        if arguments.once {
            break;
        }
    }
    output.end()
}

fn next(port: &Port, arguments: &args::Watch) -> clusdb::Result<Option<Notification>> {
    match arguments.timeout {
        Some(timeout) => port.get_timeout(timeout),
        None => port.get().map(Some),
    }
}

/// Ends the following at SIGINT or SIGTERM as if nothing more came, so that the store is closed well.
fn close_on_interrupt(port: &Port) -> Arc<AtomicBool> {
    let was_interrupted = Arc::new(AtomicBool::new(false));
    if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) {
        let (port, told) = (port.clone(), Arc::clone(&was_interrupted));
        std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                told.store(true, Ordering::Relaxed);
                port.close();
            }
        });
    }
    was_interrupted
}

pub fn log(session: &Session, arguments: &args::Log) -> Result {
    let store = session.open_existing()?;
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
