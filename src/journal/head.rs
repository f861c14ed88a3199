//! The head: one mapped page that says how far the journal is durable, for this process's next life and for others.
//!
//! A writer makes it anew, also on a full disk: a spare file of its size is kept beside it, to be put in its place.
//!
//! It is a lower bound, written behind each commit and synced only when a store opens and closes. One that is torn
//! or damaged vouches for nothing and is made again. All its fields stand in the first 512 bytes, one sector.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::env::{Env, File, PAGE_BYTES, Page, wait_while, wake_all};
use crate::epoch::Epoch;
use crate::error::{IoContext, Result};
use crate::format::{self, HEAD_MAGIC, PREAMBLE_BYTES, get, get_u32, get_u64, put};
use crate::layout::{Layout, put_in_place, sync_parent, write_aside};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use crate::sync::{Mutex, lock, spin_loop};

/// Odd while the fields behind it are being written.
const SEQUENCE_LOCK: usize = PREAMBLE_BYTES;
/// Changes with every commit; what other processes wait on. Four bytes, and four that stay zero.
const FUTEX: usize = SEQUENCE_LOCK + 8;
const STATE: usize = FUTEX + 8;
const CHECKSUM: usize = STATE + 4;
const INCARNATION: usize = CHECKSUM + 4;
const EPOCH: usize = INCARNATION + 8;
const DURABLE_SEQUENCE: usize = EPOCH + 16;
const FRAME_CHECKSUM: usize = DURABLE_SEQUENCE + 8;
const SEGMENT: usize = FRAME_CHECKSUM + 8;
const OFFSET: usize = SEGMENT + 8;
const OLDEST_SEQUENCE: usize = OFFSET + 8;
const LIMIT_BYTES: usize = OLDEST_SEQUENCE + 8;
const END: usize = LIMIT_BYTES + 8;

/// What the writer of a store is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadState {
    /// It is open, or its process died.
    Live = 1,
    /// It was closed, and the journal ends with the durable sequence.
    Closed = 2,
    /// A write failed.
    Poisoned = 3,
    /// Another directory took its place.
    Replaced = 4,
}

/// What the head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadFields {
    pub(crate) state: HeadState,
    /// Random, for each time that a writer opened the store.
    pub(crate) incarnation: u64,
    pub(crate) epoch: Epoch,
    pub(crate) durable_sequence: u64,
    /// The checksum of the frame of that sequence.
    pub(crate) frame_checksum: u32,
    /// The first sequence number of the segment that it stands in, and the offset behind it.
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// The oldest sequence number in the journal.
    pub(crate) oldest_sequence: u64,
    /// The journal is kept below this, whatever ports have not read by then.
    pub(crate) limit_bytes: u64,
}

impl HeadFields {
    fn encode(&self) -> [u8; END] {
        let mut bytes = [0; END];
        format::put_preamble(&mut bytes, HEAD_MAGIC);
        put(&mut bytes, STATE, (self.state as u32).to_le_bytes());
        put(&mut bytes, INCARNATION, self.incarnation.to_le_bytes());
        put(&mut bytes, EPOCH, self.epoch.to_bytes());
        put(&mut bytes, DURABLE_SEQUENCE, self.durable_sequence.to_le_bytes());
        put(&mut bytes, FRAME_CHECKSUM, self.frame_checksum.to_le_bytes());
        put(&mut bytes, SEGMENT, self.segment.to_le_bytes());
        put(&mut bytes, OFFSET, self.offset.to_le_bytes());
        put(&mut bytes, OLDEST_SEQUENCE, self.oldest_sequence.to_le_bytes());
        put(&mut bytes, LIMIT_BYTES, self.limit_bytes.to_le_bytes());
        let checksum = checksum(&bytes);
        put(&mut bytes, CHECKSUM, checksum.to_le_bytes());
        bytes
    }

    /// The fields, unless the page is torn, damaged or half written.
    fn decode(bytes: &[u8; END]) -> Option<HeadFields> {
        let is_quiet = get_u64(bytes, SEQUENCE_LOCK).is_multiple_of(2);
        if !is_quiet || get_u32(bytes, CHECKSUM) != checksum(bytes) {
            return None;
        }
        let state = match get_u32(bytes, STATE) {
            1 => HeadState::Live,
            2 => HeadState::Closed,
            3 => HeadState::Poisoned,
            4 => HeadState::Replaced,
            _ => return None,
        };
        Some(HeadFields {
            state,
            incarnation: get_u64(bytes, INCARNATION),
            epoch: Epoch::from_bytes(get(bytes, EPOCH)),
            durable_sequence: get_u64(bytes, DURABLE_SEQUENCE),
            frame_checksum: get_u32(bytes, FRAME_CHECKSUM),
            segment: get_u64(bytes, SEGMENT),
            offset: get_u64(bytes, OFFSET),
            oldest_sequence: get_u64(bytes, OLDEST_SEQUENCE),
            limit_bytes: get_u64(bytes, LIMIT_BYTES),
        })
    }
}

/// Of the state and of all fields behind the checksum; the sequence lock and the futex change by themselves.
fn checksum(bytes: &[u8; END]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[STATE..CHECKSUM]);
    hasher.update(&bytes[INCARNATION..]);
    hasher.finalize()
}

/// What the head file says, if it can be believed.
///
/// # Errors
/// A version that this program does not know, and failing to read. Damage is no error: it vouches for nothing.
pub(crate) fn read_head(env: &dyn Env, path: &Path) -> Result<Option<HeadFields>> {
    let file = match env.open_file(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("open", path),
    };
    let mut bytes = [0; END];
    if file.length().context("read the length of", path)? < PAGE_BYTES as u64 {
        return Ok(None);
    }
    file.read_at(&mut bytes, 0).context("read", path)?;
    match format::check_preamble(&bytes, HEAD_MAGIC, path) {
        Ok(()) => Ok(HeadFields::decode(&bytes)),
        Err(version @ crate::Error::UnsupportedVersion { .. }) => Err(version),
        Err(_) => Ok(None),
    }
}

/// The mapped page of a store that is open.
#[derive(Debug)]
pub(crate) struct Head {
    file: Arc<dyn File>,
    page: Page,
    fields: Mutex<HeadFields>,
    /// How often those who wait were woken.
    #[cfg(test)]
    pub(crate) wakes: std::sync::atomic::AtomicU64,
}

impl Head {
    /// Makes the head anew and maps it. Written and synced first, so that no hole of it meets a full disk as a
    /// SIGBUS.
    pub(crate) fn create(env: &dyn Env, layout: &Layout, fields: HeadFields) -> Result<Head> {
        let path = &layout.head();
        let before = FollowedHead::open(env, path).ok();
        let mut bytes = vec![0; PAGE_BYTES];
        bytes[..END].copy_from_slice(&fields.encode());
        match write_aside(env, path, &bytes) {
            Err(no_room) if no_room.is_no_room() => put_spare(env, layout, &bytes).map_err(|error| {
                tracing::warn!(%error, "no spare head");
                no_room
            })?,
            written => written?,
        }
        // Those who wait on the old page are sent to the new one. Crash before it, and they look by themselves soon.
        if let Some(before) = before {
            let last = before.read().unwrap_or(fields);
            Head::new(before, last).publish(|fields| fields.state = HeadState::Replaced);
        }
        // Behind it: the head before has left its room, if nobody has it mapped.
        keep_spare(env, &layout.spare_head());
        Ok(Head::new(FollowedHead::open(env, path)?, fields))
    }

    fn new(FollowedHead { file, page, .. }: FollowedHead, fields: HeadFields) -> Head {
        Head {
            file,
            page,
            fields: Mutex::new(fields),
            #[cfg(test)]
            wakes: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// Changes the fields, and wakes who waits for that in other processes. Nothing waits for the disk.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut HeadFields)) {
        self.set(change);
        self.wake();
    }

    /// Changes the fields, and leaves it to the caller to [wake](Head::wake). Costs some stores to memory.
    pub(crate) fn set(&self, change: impl FnOnce(&mut HeadFields)) {
        let mut fields = lock(&self.fields);
        change(&mut fields);
        let bytes = fields.encode();
        let sequence_lock = self.word(SEQUENCE_LOCK);
        let before = u64::from_le(sequence_lock.load(Ordering::Relaxed));
        sequence_lock.store(before.wrapping_add(1).to_le(), Ordering::Relaxed);
        fence(Ordering::Release);
        for at in (STATE..END).step_by(8) {
            let word = u64::from_ne_bytes(get(&bytes, at));
            self.word(at).store(word, Ordering::Relaxed);
        }
        sequence_lock.store(before.wrapping_add(2).to_le(), Ordering::Release);
        // Changed behind the fields: who sees the new number sees them too.
        self.futex().fetch_add(1, Ordering::Release);
    }

    /// Wakes who waits for a change in other processes: a system call.
    pub(crate) fn wake(&self) {
        #[cfg(test)]
        self.wakes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        wake_all(self.futex());
    }

    /// Makes the head durable as it is.
    pub(crate) fn sync(&self) -> std::io::Result<()> {
        self.file.sync()
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.page.word(offset / 8)
    }

    fn futex(&self) -> &AtomicU32 {
        self.page.half(FUTEX / 8)
    }
}

/// Fills the spare, so that no copy of the file saves its blocks, which are what it is kept for.
const SPARE_BYTE: u8 = 0xff;

/// Makes the spare into the head, and the head into the spare. Its blocks are on the disk already, so that this takes no room,
/// however often it is done. Crash before the exchange, and it is a spare as before: what it holds counts for nothing.
///
/// It may be a head of before, which somebody still has mapped who has not looked since: he sees another incarnation.
fn put_spare(env: &dyn Env, layout: &Layout, bytes: &[u8]) -> Result<()> {
    let spare = &layout.spare_head();
    let file = env.open_file(spare).context("open", spare)?;
    file.write_at(bytes, 0).context("write", spare)?;
    file.sync().context("sync", spare)?;
    match env.exchange(spare, &layout.head()) {
        Ok(()) => sync_parent(env, spare),
        // No head is there, or names cannot be exchanged here: then the spare must be made again.
        Err(_) => put_in_place(env, spare, &layout.head()),
    }
}

/// Makes the spare where it is missing. Without it all is well as long as there is room.
fn keep_spare(env: &dyn Env, spare: &Path) {
    let length = env.open_file(spare).and_then(|file| file.length());
    if length.is_ok_and(|length| length == PAGE_BYTES as u64) {
        return;
    }
    if let Err(error) = write_aside(env, spare, &[SPARE_BYTE; PAGE_BYTES]) {
        tracing::warn!(%error, "no spare head: the store cannot be opened while the disk is full");
    }
}

/// The mapped page of a store that another process writes; only read.
#[derive(Debug)]
pub(crate) struct FollowedHead {
    file: Arc<dyn File>,
    page: Page,
    /// Of the writer that made it; none if it could not be read.
    incarnation: Option<u64>,
}

/// A writer needs some stores to memory for the fields; one that takes longer is dead, or was put aside.
const QUIET_TRIES: u32 = if cfg!(clusdb_loom) { 1 } else { 1000 };

impl FollowedHead {
    /// Maps the head of the store.
    pub(crate) fn open(env: &dyn Env, path: &Path) -> Result<FollowedHead> {
        let file = env.open_file(path).context("open", path)?;
        let mut preamble = [0; PREAMBLE_BYTES];
        file.read_at(&mut preamble, 0).context("read", path)?;
        format::check_preamble(&preamble, HEAD_MAGIC, path)?;
        let page = file.map_page().context("map", path)?;
        let mut head = FollowedHead {
            file,
            page,
            incarnation: None,
        };
        head.incarnation = head.read().map(|fields| fields.incarnation);
        Ok(head)
    }

    /// Whether these fields are of another writer than the one whose head it was: on a full disk a page is used again.
    pub(crate) fn is_of_another(&self, fields: &HeadFields) -> bool {
        self.incarnation != Some(fields.incarnation)
    }

    /// What the head says now; none if it is damaged, or if a writer died while it wrote it.
    pub(crate) fn read(&self) -> Option<HeadFields> {
        HeadFields::decode(&self.quiet()?)
    }

    /// The bytes as they stood at one moment between two changes.
    fn quiet(&self) -> Option<[u8; END]> {
        for _ in 0..QUIET_TRIES {
            let before = self.page.word(SEQUENCE_LOCK / 8).load(Ordering::Acquire);
            let mut bytes = [0; END];
            for at in (0..END).step_by(8) {
                let word = self.page.word(at / 8).load(Ordering::Relaxed);
                put(&mut bytes, at, word.to_ne_bytes());
            }
            fence(Ordering::Acquire);
            let after = self.page.word(SEQUENCE_LOCK / 8).load(Ordering::Relaxed);
            if before == after && u64::from_le(before).is_multiple_of(2) {
                return Some(bytes);
            }
            spin_loop();
        }
        None
    }

    /// Whether this is still the store's head, and not one from before another writer came.
    pub(crate) fn is_at(&self, path: &Path) -> Result<bool> {
        self.file.is_at(path).context("look at", path)
    }

    /// The number that changes with every commit.
    pub(crate) fn ticket(&self) -> u32 {
        self.page.half(FUTEX / 8).load(Ordering::Acquire)
    }

    /// Waits until the number is no longer this one, or for so long. May end early.
    pub(crate) fn wait(&self, ticket: u32, timeout: Duration) {
        wait_while(self.page.half(FUTEX / 8), ticket, timeout);
    }

    /// Wakes all who wait, to look again.
    pub(crate) fn wake(&self) {
        wake_all(self.page.half(FUTEX / 8));
    }
}

#[cfg(all(test, not(clusdb_loom)))]
mod tests {
    use super::*;
    use crate::env::OsEnv;

    const FIELDS: HeadFields = HeadFields {
        state: HeadState::Live,
        incarnation: 1,
        epoch: Epoch::from_bytes([2; 16]),
        durable_sequence: 3,
        frame_checksum: 4,
        segment: 1,
        offset: 128,
        oldest_sequence: 1,
        limit_bytes: 1 << 30,
    };

    #[test]
    fn what_is_published_is_read_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let path = layout.head();
        let head = Head::create(&OsEnv, &layout, FIELDS).unwrap();
        assert_eq!(read_head(&OsEnv, &path).unwrap(), Some(FIELDS));
        let before = head.page.half(FUTEX / 8).load(Ordering::Relaxed);
        head.publish(|fields| fields.durable_sequence = 9);
        let expected = HeadFields {
            durable_sequence: 9,
            ..FIELDS
        };
        assert_eq!(read_head(&OsEnv, &path).unwrap(), Some(expected));
        assert_eq!(head.page.half(FUTEX / 8).load(Ordering::Relaxed), before + 1);
    }

    /// Crash story 11: a flipped bit that claims sequence 2^40 is not believed, nor is any other.
    #[test]
    fn a_head_with_a_flipped_bit_vouches_for_nothing() {
        let bytes = FIELDS.encode();
        for offset in STATE..END {
            for bit in 0..8 {
                let mut flipped = bytes;
                flipped[offset] ^= 1 << bit;
                assert_eq!(HeadFields::decode(&flipped), None, "{offset}");
            }
        }
        let mut half_written = bytes;
        half_written[SEQUENCE_LOCK] = 1;
        assert_eq!(HeadFields::decode(&half_written), None);
    }

    #[test]
    fn a_short_missing_or_foreign_head_vouches_for_nothing_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        assert_eq!(read_head(&OsEnv, &path).unwrap(), None);
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(read_head(&OsEnv, &path).unwrap(), None);
        std::fs::write(&path, [7; PAGE_BYTES]).unwrap();
        assert_eq!(read_head(&OsEnv, &path).unwrap(), None);

        let mut page = vec![0; PAGE_BYTES];
        page[..END].copy_from_slice(&FIELDS.encode());
        put(&mut page, 8, 4u32.to_le_bytes());
        let checksum = crc32fast::hash(&page[..12]);
        put(&mut page, 12, checksum.to_le_bytes());
        std::fs::write(&path, page).unwrap();
        let error = read_head(&OsEnv, &path).unwrap_err();
        assert!(matches!(error, crate::Error::UnsupportedVersion { found: 4, .. }));
    }
}

#[cfg(all(test, clusdb_loom))]
mod models {
    use super::*;

    /// A file of which nothing is asked here.
    fn nothing() -> Arc<dyn File> {
        use crate::env::OsEnv;
        let folder = tempfile::tempdir().unwrap();
        OsEnv.create_file(&folder.path().join("nothing")).unwrap()
    }

    #[test]
    fn a_follower_never_gets_torn_fields() {
        let file = nothing();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(move || {
            let fields = |number: u64| HeadFields {
                state: HeadState::Live,
                incarnation: 1,
                epoch: Epoch::from_bytes([number as u8; 16]),
                durable_sequence: number,
                frame_checksum: number as u32,
                segment: number,
                offset: number,
                oldest_sequence: number,
                limit_bytes: number,
            };
            let (old, new) = (fields(1).encode(), fields(2).encode());
            let page = Page::of_words(|index| match old.as_chunks().0.get(index) {
                Some(word) => u64::from_ne_bytes(*word),
                None => 0,
            });
            let follow = |page| FollowedHead {
                file: Arc::clone(&file),
                page,
                incarnation: Some(1),
            };
            let follower = follow(page.clone());
            let head = Head::new(follow(page), fields(1));
            let writer = loom::thread::spawn(move || head.publish(|head| *head = fields(2)));
            let ticket = follower.ticket();
            if let Some(read) = follower.quiet() {
                assert!(
                    read[STATE..] == old[STATE..] || read[STATE..] == new[STATE..],
                    "torn"
                );
                // The number that a follower waits on changes behind the fields.
                assert!(
                    ticket == 0 || read[STATE..] == new[STATE..],
                    "old fields behind a new number"
                );
            }
            writer.join().unwrap();
            assert_eq!(follower.read(), Some(fields(2)));
        });
    }
}
