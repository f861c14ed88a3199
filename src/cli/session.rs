//! What all verbs share: the store and its format, paths in arguments, input files.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clusdb::json::Committed;
use clusdb::model::{Limits, State, evaluate};
use clusdb::{Batch, Commit, Error, KeyPath, Options, Progress, Reader, Stat, Store};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Format;
use crate::failure::{Failure, Result};
use crate::json::ChangeJson;
use crate::output::Output;

/// The common arguments.
pub struct Session {
    pub store: Option<PathBuf>,
    pub format: Format,
    pub wait: Duration,
}

/// An opening that takes longer than this shows a bar.
const BAR_FROM_BYTES: u64 = 8 << 20;

impl Session {
    pub fn output(&self) -> Output {
        Output::new(self.format)
    }

    /// Opens the store for a verb that writes what must be there.
    pub fn open_existing(&self) -> Result<Store> {
        self.open(Store::options().create(false))
    }

    /// Opens the store for a verb that only looks, beside a writer if one is running. Where the last writer was killed, the
    /// store is recovered first, by opening it as a writer does.
    pub fn read(&self) -> Result<Reader> {
        let path = self.path()?;
        let reader = Reader::open(path);
        if reader.as_ref().is_ok_and(Reader::was_closed) {
            return Ok(reader?);
        }
        match self.try_open(path, Store::options().create(false)) {
            // Another process writes it now.
            Err(Error::InUse { .. }) => {}
            store => store?.close()?,
        }
        Ok(Reader::open(path)?)
    }

    /// The same for a verb that needs a store, and makes one where nothing is.
    pub fn read_or_create(&self) -> Result<Reader> {
        match self.read() {
            Err(failure) if failure.is_not_found() => {
                self.open_or_create()?.close()?;
                self.read()
            }
            read => read,
        }
    }

    /// Figures of the store: those of the writer that opens it now, which knows of the tree, or of a reader beside another.
    pub fn stat(&self) -> Result<Stat> {
        let path = self.path()?;
        match self.try_open(path, Store::options().create(false)) {
            Err(Error::InUse { .. }) => Ok(Reader::open(path)?.stat()?),
            store => Ok(store?.stat()?),
        }
    }

    /// Opens the store for a verb that writes, making it where nothing is.
    pub fn open_or_create(&self) -> Result<Store> {
        self.open(Store::options())
    }

    fn open(&self, options: Options) -> Result<Store> {
        let path = self.path()?;
        Ok(self.try_open(path, options.lock_timeout(self.wait))?)
    }

    /// Opens the store as a writer does, with a bar where it takes long.
    fn try_open(&self, path: &Path, options: Options) -> clusdb::Result<Store> {
        let bar = ProgressBar::hidden();
        bar.set_style(bar_style());
        let (shown, is_shown) = (bar.clone(), AtomicBool::new(false));
        let watch = move |progress: Progress| {
            if progress.total_bytes >= BAR_FROM_BYTES && !is_shown.swap(true, Ordering::Relaxed) {
                shown.set_draw_target(indicatif::ProgressDrawTarget::stderr());
                shown.set_message("opening");
                shown.set_length(progress.total_bytes);
            }
            shown.set_position(progress.done_bytes);
        };
        let opened = options.on_progress(watch).open(path);
        bar.finish_and_clear();
        let store = opened?;
        if let (Some(torn), Format::Text) = (store.torn_tail(), self.format) {
            eprintln!(
                "note: the last writer did not end well; {} bytes at offset {} of {} belonged to no finished \
                 commit, and were cut",
                torn.bytes,
                torn.offset,
                torn.segment.display()
            );
        }
        Ok(store)
    }

    pub fn path(&self) -> Result<&Path> {
        self.store.as_deref().ok_or_else(|| {
            let message = "which store? give --store DIR, or set CLUSDB_STORE";
            Failure::usage("usage", message)
        })
    }

    /// Commits the batch, or shows what it would change.
    pub fn commit(&self, batch: Batch, dry_run: bool) -> Result {
        if dry_run {
            return self.show_dry_run(&batch);
        }
        let store = self.open_or_create()?;
        self.commit_to(&store, batch)
    }

    pub fn commit_to(&self, store: &Store, batch: Batch) -> Result {
        self.finish(store, store.commit(batch)?)
    }

    /// Closes the store, and tells the sequence number.
    pub fn finish(&self, store: &Store, commit: Commit) -> Result {
        store.close()?;
        self.output().one(&Committed {
            sequence: commit.sequence(),
        })
    }

    fn show_dry_run(&self, batch: &Batch) -> Result {
        // A dry run makes no store: one that is not there is empty.
        let record = match self.read() {
            Ok(store) => store.dry_run(batch)?,
            Err(failure) if failure.is_not_found() => {
                evaluate(&State::new(), batch, &Limits::default()).map_err(clusdb::Error::from)?
            }
            Err(failure) => return Err(failure),
        };
        let mut output = self.output();
        for change in record.view().changes() {
            output.item(&ChangeJson::from(change))?;
        }
        output.end()
    }

    /// A spinner with this message, for work of which nobody knows the length. Hidden where nobody looks.
    pub fn spinner(&self, message: &'static str) -> ProgressBar {
        let spinner = ProgressBar::new_spinner().with_message(message);
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    }
}

pub fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A path in an argument: one without any backslash may use `/` instead.
pub fn argument_path(argument: &str) -> Result<KeyPath> {
    let path = match argument.contains('\\') {
        true => KeyPath::parse(argument),
        false => KeyPath::parse(&argument.replace('/', "\\")),
    };
    Ok(path?)
}

/// The whole of a file, or of standard input for `-`.
pub fn read_input(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes),
        _ => std::fs::read(path),
    };
    read.map_err(|error| Failure::io("read", path, &error))
}
