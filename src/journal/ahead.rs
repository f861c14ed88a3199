//! The file of the next segment, which is made before it is needed and beside the commits: they would wait for its zeroes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::segment::write_zeroes;
use crate::env::{Env, File};
use crate::error::{Error, IoContext, Result};
use crate::layout::{Layout, remove_if_there};

/// So much is written and synced at a time, so that the syncs of commits in between wait for no more than that.
const PIECE_BYTES: u64 = 1 << 20;

/// A file of synced zeroes, as long as a segment, under a name that says it is unfinished; or the thread that makes it.
#[derive(Debug)]
pub(super) struct Ahead {
    work: Arc<Work>,
    thread: Option<JoinHandle<Result<Arc<dyn File>>>>,
}

/// What the thread has to do.
#[derive(Debug)]
struct Work {
    env: Arc<dyn Env>,
    path: PathBuf,
    length: u64,
    is_stopped: AtomicBool,
}

impl Ahead {
    /// Begins to make the file. Where there is no thread for it, the segment is made when it is needed.
    pub(super) fn begin(env: &Arc<dyn Env>, layout: &Layout, length: u64) -> Ahead {
        let work = Arc::new(Work {
            env: Arc::clone(env),
            path: layout.next_segment(),
            length,
            is_stopped: AtomicBool::new(false),
        });
        let thread = thread::Builder::new().name("clusdb-ahead".to_owned());
        let works = Arc::clone(&work);
        let thread = thread.spawn(move || works.run());
        let thread = thread.inspect_err(|error| tracing::warn!(%error, "no thread to make the next segment"));
        Ahead {
            work,
            thread: thread.ok(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The file, once it is ready.
    pub(super) fn file(mut self) -> Option<Arc<dyn File>> {
        match self.thread.take()?.join() {
            Ok(Ok(file)) => Some(file),
            Ok(Err(error)) => {
                tracing::info!(%error, "the next segment could not be made ahead of need");
                None
            }
            Err(_) => {
                tracing::error!("the thread that makes the next segment has panicked; nothing is lost");
                None
            }
        }
    }
}

/// Ends what is under way, and removes the file.
impl Drop for Ahead {
    fn drop(&mut self) {
        self.work.is_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Ok(Ok(_)) = thread.join()
        {
            self.work.remove();
        }
    }
}

impl Work {
    fn run(&self) -> Result<Arc<dyn File>> {
        // Others may need the room.
        self.make().inspect_err(|_| self.remove())
    }

    /// Best effort: what stays is removed when the store is opened.
    fn remove(&self) {
        let _ = self.env.remove_file(&self.path);
    }

    fn make(&self) -> Result<Arc<dyn File>> {
        remove_if_there(&*self.env, &self.path)?;
        let file = self.env.create_file(&self.path).context("create", &self.path)?;
        let mut from = 0;
        while from < self.length {
            if self.is_stopped.load(Ordering::Relaxed) {
                return Err(Error::Closed);
            }
            let to = self.length.min(from + PIECE_BYTES);
            write_zeroes(&*file, from, to)
                .and_then(|()| file.sync())
                .context("write zeroes to", &self.path)?;
            from = to;
        }
        Ok(file)
    }
}

#[cfg(all(test, not(clusdb_loom)))]
mod tests {
    use std::io::ErrorKind;
    use std::sync::mpsc;

    use super::super::tests::Fixture;
    use super::super::{AppendError, FrameKind, Pending, Position, Writer};
    use super::*;
    use crate::model::{CommandKind, Record, ValueRef, ValueType};
    use crate::probe::{Fate, Op};

    const SEGMENT_BYTES: u64 = 2 << 20;
    const NEXT: &str = "next.segment.unfinished";

    fn fixture() -> Fixture {
        Fixture {
            segment_size_bytes: SEGMENT_BYTES,
            ..Fixture::new()
        }
    }

    fn try_append(writer: &mut Writer, data: &[u8]) -> Result<(), AppendError> {
        let mut record = Record::new();
        let value = ValueRef {
            value_type: ValueType::BINARY,
            data,
        };
        record.push_key(CommandKind::CreateKey, "key", true);
        record.push_set_value("key", "value", value, None);
        let pending = Pending {
            kind: FrameKind::Batch,
            request_id: [0; 16],
            payload: record.payload(),
        };
        writer.append(&[pending], 5)
    }

    fn append(writer: &mut Writer, data: &[u8]) {
        try_append(writer, data).unwrap();
    }

    fn append_until(writer: &mut Writer, is_reached: impl Fn(Position) -> bool) {
        while !is_reached(writer.position()) {
            append(writer, &[7; 100 << 10]);
        }
    }

    /// Appends until the next segment is due, and waits until it is ready.
    fn append_until_ready(writer: &mut Writer) {
        append_until(writer, |at| at.offset > SEGMENT_BYTES / 2);
        while !writer.ahead.as_ref().is_some_and(Ahead::is_ready) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_segment_that_was_made_ahead_of_need_is_durable_before_it_has_its_name() {
        let fixture = fixture();
        let mut writer = fixture.open().writer;
        append_until_ready(&mut writer);
        let (mut zeroed, mut synced) = (0, 0);
        for op in fixture.probe.take() {
            match op {
                Op::Write { file, offset, bytes } if file == NEXT => {
                    assert!(offset == zeroed && bytes.iter().all(|byte| *byte == 0));
                    zeroed += bytes.len() as u64;
                }
                Op::Sync(file) if file == NEXT => synced = zeroed,
                _ => {}
            }
        }
        assert_eq!((zeroed, synced), (SEGMENT_BYTES, SEGMENT_BYTES));
        append_until(&mut writer, |at| at.segment > 1);
        let first = writer.position().segment;
        let name = format!("{first:020}.segment");
        let ops = fixture.probe.take();
        let begin = ops
            .iter()
            .position(|op| matches!(op, Op::Write { file, .. } if file == NEXT));
        let rotation = &ops[begin.expect("the header")..];
        assert!(matches!(&rotation[0], Op::Write { offset: 0, bytes, .. } if bytes.len() == 128));
        let renamed = Op::Rename {
            from: NEXT.into(),
            to: name.clone(),
        };
        assert_eq!(
            rotation[1..4],
            [Op::Sync(NEXT.into()), renamed, Op::SyncDir("journal".into())]
        );
        assert!(
            matches!(&rotation[4..], [Op::Write { file, .. }, Op::Sync(synced)] if *file == NEXT && synced == NEXT),
            "the record, and nothing else: {rotation:?}"
        );
        let last = writer.position();
        drop(writer);
        assert_eq!(fixture.open().writer.position(), last);
    }

    #[test]
    fn what_is_not_ready_or_could_not_be_made_is_made_when_it_is_needed() {
        let fixture = fixture();
        fixture.probe.rule(|op| match op {
            Op::Write { file, offset, .. } if file == NEXT && *offset > 0 => {
                Fate::Fails(ErrorKind::StorageFull)
            }
            _ => Fate::Done,
        });
        let mut writer = fixture.open().writer;
        append_until_ready(&mut writer);
        let next = fixture.layout.next_segment();
        assert!(!next.exists(), "it gives back what room it took");
        append_until(&mut writer, |at| at.segment > 1);
        let made = Layout::unfinished(&fixture.layout.segment(writer.position().segment));
        let name = made.file_name().unwrap().to_str().unwrap();
        let ops = fixture.probe.take();
        assert!(ops.contains(&Op::Create(name.to_owned())));
        let last = writer.position();
        drop(writer);
        assert_eq!(fixture.open().writer.position(), last);
    }

    #[test]
    fn who_closes_the_store_ends_what_is_made_ahead_of_need() {
        let fixture = fixture();
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        fixture.probe.rule(move |op| {
            if matches!(op, Op::Sync(file) if file == NEXT) {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
            }
            Fate::Done
        });
        let mut writer = fixture.open().writer;
        let ahead = Ahead::begin(&fixture.probe.env(), &fixture.layout, SEGMENT_BYTES);
        let work = Arc::clone(&ahead.work);
        writer.ahead = Some(ahead);
        has_begun.recv().unwrap();
        let next = fixture.layout.next_segment();
        assert!(next.exists());
        std::thread::scope(|scope| {
            scope.spawn(|| writer.stop());
            while !work.is_stopped.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            // The second piece is not begun: its sync would wait for ever.
            go_on.send(()).unwrap();
        });
        assert!(!next.exists(), "nothing is left behind");
    }

    /// A record that is longer than a segment gets one of its own, and what was made ahead serves the next.
    #[test]
    fn what_was_made_ahead_of_need_is_not_taken_for_more_than_it_holds() {
        let fixture = fixture();
        let mut writer = fixture.open().writer;
        append_until_ready(&mut writer);
        append(&mut writer, &[7; 3 << 20]);
        let large = writer.position();
        assert!(large.segment > 1 && fixture.layout.next_segment().exists());
        append_until(&mut writer, |at| at.segment > large.segment);
        assert!(!fixture.layout.next_segment().exists());
        let last = writer.position();
        drop(writer);
        assert_eq!(fixture.open().writer.position(), last);
    }

    /// Its header, or the sync of that, or its name: somebody has removed it.
    #[test]
    fn where_it_cannot_become_a_segment_one_is_made_that_can() {
        for step in 0..3 {
            let fixture = fixture();
            let mut writer = fixture.open().writer;
            append_until_ready(&mut writer);
            let next = fixture.layout.next_segment();
            fixture.probe.rule(move |op| match op {
                Op::Write { file, bytes, .. } if file == NEXT && bytes.len() == 128 && step == 0 => {
                    Fate::Fails(ErrorKind::StorageFull)
                }
                Op::Sync(file) if file == NEXT && step == 1 => Fate::Fails(ErrorKind::Other),
                Op::Rename { from, .. } if from == NEXT && step == 2 => {
                    std::fs::remove_file(&next).unwrap();
                    Fate::Done
                }
                _ => Fate::Done,
            });
            append_until(&mut writer, |at| at.segment > 1);
            let made = Layout::unfinished(&fixture.layout.segment(writer.position().segment));
            let name = made.file_name().unwrap().to_str().unwrap();
            assert!(
                fixture.probe.take().contains(&Op::Create(name.to_owned())),
                "step {step}"
            );
            assert!(!fixture.layout.next_segment().exists());
            let last = writer.position();
            drop(writer);
            assert_eq!(fixture.open().writer.position(), last);
        }
    }

    /// Who opens the store for little and closes it does not wait for a segment that it does not need.
    #[test]
    fn nothing_is_made_ahead_of_need_for_who_appends_little() {
        let fixture = fixture();
        let mut writer = fixture.open().writer;
        while writer.position().offset <= SEGMENT_BYTES / 2 {
            append(&mut writer, &[7; 100 << 10]);
        }
        drop(writer);
        assert!(
            !fixture.layout.next_segment().exists(),
            "removed when it is not needed"
        );
        let mut writer = fixture.open().writer;
        append(&mut writer, &[7; 100 << 10]);
        assert!(writer.ahead.is_none());
    }
}
