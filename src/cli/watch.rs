//! The verbs that show changes: `watch` and `log`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clusdb::{BatchView, Error, JournalView, Notification, Port};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args;
use crate::failure::Result;
use crate::json::ChangeJson;
use crate::output::{Output, rfc3339};
use crate::session::Session;

pub fn watch(session: &Session, arguments: &args::Watch) -> Result {
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
        write_view(&mut output, &notification, arguments.commands)?;
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
