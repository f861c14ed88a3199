//! What a disk holds, twice: as the running system sees it, and as a loss of power may leave it.
//!
//! The model is meant to be harsher than any disk and file system in use, and never harsher than what a sync promises:
//!
//! * A write reaches the disk by sectors, in any order, also without a sync. A sector has one of the contents that it
//!   had since the last sync: what was written to it first is there if what was written to it later is. One that is
//!   being written may be cut: new up to some byte of the write, old behind it.
//! * A file may be longer without the data that made it so: then zeroes stand there, or anything.
//! * A sync of a file makes its content and length durable, and not its name. A name is made durable by the sync of
//!   its folder alone; until then each change of it is lost or done by itself.
//! * A sync that failed has marked the sectors as clean: no later sync writes them, unless they are written again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Rng;

pub const SECTOR_BYTES: usize = 512;
/// A write that is cut short makes a file longer by whole pages.
const PAGE_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    Folder,
    File(FileId),
}

type Names = BTreeMap<PathBuf, Node>;

/// What becomes of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it is lost.
    All,
    /// Nothing is lost.
    Nothing,
    /// Each write and each change of a name is lost, done or torn, as the seed says.
    Some(u64),
}

/// All files, by paths that are relative to the root.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    files: Vec<File>,
    names: Names,
    durable_names: Names,
    /// Since the syncs of their folders, in order.
    renamings: Vec<Renaming>,
}

#[derive(Debug, Clone, Default)]
struct File {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in order.
    writes: Vec<Write>,
}

#[derive(Debug, Clone)]
struct Write {
    offset: usize,
    bytes: Vec<u8>,
    /// A sync that failed was the one to make it durable. It is of one sector then.
    is_clean: bool,
}

/// A change of a folder's entries: a creation adds one, a removal removes one, a renaming does both as one.
#[derive(Debug, Clone)]
struct Renaming {
    removed: Option<(PathBuf, Node)>,
    added: Option<(PathBuf, Node)>,
}

impl Disk {
    pub fn node(&self, path: &Path) -> Option<Node> {
        self.names.get(path).copied()
    }

    /// The names as the running system sees them, a folder before what is in it, and the contents of files.
    pub fn list(&self) -> impl Iterator<Item = (&Path, Option<&[u8]>)> {
        self.names.iter().map(|(path, node)| match node {
            Node::Folder => (path.as_path(), None),
            Node::File(id) => (path.as_path(), Some(self.content(*id))),
        })
    }

    pub fn content(&self, id: FileId) -> &[u8] {
        &self.files[id.0].current
    }

    pub fn create_folder(&mut self, path: &Path) {
        self.rename_entry(None, Some((path.to_owned(), Node::Folder)));
    }

    pub fn create_file(&mut self, path: &Path) {
        let id = FileId(self.files.len());
        self.files.push(File::default());
        self.rename_entry(None, Some((path.to_owned(), Node::File(id))));
    }

    pub fn rename(&mut self, from: &Path, to: &Path) {
        let node = self.names[from];
        self.rename_entry(Some((from.to_owned(), node)), Some((to.to_owned(), node)));
    }

    pub fn remove(&mut self, path: &Path) {
        let node = self.names[path];
        self.rename_entry(Some((path.to_owned(), node)), None);
    }

    fn rename_entry(&mut self, removed: Option<(PathBuf, Node)>, added: Option<(PathBuf, Node)>) {
        let renaming = Renaming { removed, added };
        renaming.apply(&mut self.names);
        self.renamings.push(renaming);
    }

    pub fn sync_folder(&mut self, path: &Path) {
        let (synced, rest) = std::mem::take(&mut self.renamings)
            .into_iter()
            .partition(|renaming| renaming.folder() == path);
        self.renamings = rest;
        let synced: Vec<Renaming> = synced;
        synced
            .iter()
            .for_each(|renaming| renaming.apply(&mut self.durable_names));
    }

    pub fn write(&mut self, id: FileId, offset: usize, bytes: &[u8]) {
        let file = &mut self.files[id.0];
        overwrite(&mut file.current, offset, bytes);
        file.writes.push(Write {
            offset,
            bytes: bytes.to_vec(),
            is_clean: false,
        });
    }

    pub fn sync(&mut self, id: FileId) {
        self.files[id.0].sync();
    }

    /// The sync fails, and the sectors are taken for written.
    pub fn fail_sync(&mut self, id: FileId) {
        self.files[id.0].mark_clean();
    }

    /// Flips a bit of a file; what is done to a medium is durable.
    pub fn flip_bit(&mut self, path: &Path, bit: usize) {
        let Some(Node::File(id)) = self.node(path) else {
            panic!("no file {}", path.display());
        };
        let file = &mut self.files[id.0];
        for bytes in [&mut file.current, &mut file.durable] {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// What a loss of power leaves: a disk on which all that is there is durable.
    pub fn after(&self, loss: Loss) -> Disk {
        let mut rng = match loss {
            Loss::Some(seed) => Some(Rng::new(seed)),
            _ => None,
        };
        let mut names = self.durable_names.clone();
        for renaming in &self.renamings {
            let is_done = match (&mut rng, loss) {
                (Some(rng), _) => rng.coin(),
                (None, loss) => loss == Loss::Nothing,
            };
            if is_done {
                renaming.apply(&mut names);
            }
        }
        let mut left = Disk::default();
        for (path, node) in &names {
            // What is in a folder whose own name was lost is lost with it. Folders come first.
            let parent = path.parent().unwrap_or(Path::new(""));
            if parent != Path::new("") && left.names.get(parent) != Some(&Node::Folder) {
                continue;
            }
            let node = match node {
                Node::Folder => Node::Folder,
                Node::File(id) => {
                    let file = &self.files[id.0];
                    let content = match (&mut rng, loss) {
                        (Some(rng), _) => file.torn(rng),
                        (None, Loss::Nothing) => file.current.clone(),
                        (None, _) => file.durable.clone(),
                    };
                    left.files.push(File {
                        current: content.clone(),
                        durable: content,
                        writes: Vec::new(),
                    });
                    Node::File(FileId(left.files.len() - 1))
                }
            };
            left.names.insert(path.clone(), node);
        }
        left.durable_names = left.names.clone();
        left
    }
}

impl File {
    fn sync(&mut self) {
        let dirty: BTreeSet<usize> = self
            .writes
            .iter()
            .filter(|write| !write.is_clean)
            .flat_map(Write::sectors)
            .collect();
        // Sectors that are clean stay as they were, whatever the file's length.
        self.durable.resize(self.current.len(), 0);
        for sector in &dirty {
            let begin = sector * SECTOR_BYTES;
            copy_range(&mut self.durable, &self.current, begin..begin + SECTOR_BYTES);
        }
        self.writes
            .retain(|write| write.is_clean && !dirty.contains(&(write.offset / SECTOR_BYTES)));
    }

    fn mark_clean(&mut self) {
        let mut pieces = Vec::new();
        for write in &self.writes {
            for sector in write.sectors() {
                let from = write.offset.max(sector * SECTOR_BYTES);
                let to = write.end().min((sector + 1) * SECTOR_BYTES);
                pieces.push(Write {
                    offset: from,
                    bytes: write.bytes[from - write.offset..to - write.offset].to_vec(),
                    is_clean: true,
                });
            }
        }
        self.writes = pieces;
    }

    /// One of the contents that a loss of power can leave.
    fn torn(&self, rng: &mut Rng) -> Vec<u8> {
        #[derive(Clone, Copy, PartialEq)]
        enum Fate {
            Lost,
            Done,
            Torn,
        }
        // In half of the cases all were under way.
        let choices = if rng.coin() { 3 } else { 1 };
        let fate = |_| [Fate::Torn, Fate::Lost, Fate::Done][rng.below(choices)];
        let fates: Vec<Fate> = self.writes.iter().map(fate).collect();
        let mut length = self.durable.len();
        for (write, fate) in self.writes.iter().zip(&fates) {
            // A piece of a failed sync has its page's length.
            let end = match write.is_clean {
                true => write.end().next_multiple_of(PAGE_BYTES).min(self.current.len()),
                false => write.end(),
            };
            if end > length {
                length = match fate {
                    Fate::Lost => length,
                    Fate::Done => end,
                    Fate::Torn => {
                        let pages = (length / PAGE_BYTES + 1)..end.div_ceil(PAGE_BYTES);
                        let cuts: Vec<_> = pages.map(|page| page * PAGE_BYTES).chain([length, end]).collect();
                        cuts[rng.below(cuts.len())]
                    }
                };
            }
        }
        let mut left = self.durable.clone();
        let is_garbage = rng.coin();
        left.resize_with(length, || if is_garbage { rng.next() as u8 } else { 0 });
        // Written sector by sector as the cache held it at that time, older writes to the sector included.
        let mut cache = self.durable.clone();
        for (write, fate) in self.writes.iter().zip(&fates) {
            overwrite(&mut cache, write.offset, &write.bytes);
            for sector in write.sectors() {
                let whole = (sector + 1) * SECTOR_BYTES;
                let end = match fate {
                    Fate::Lost => continue,
                    Fate::Done => whole,
                    Fate::Torn => match rng.below(4) {
                        0 => continue,
                        // Cut; what stood before the write in this sector is not harmed.
                        1 | 2 => (write.offset + rng.below(write.bytes.len() + 1)).min(whole),
                        _ => whole,
                    },
                };
                copy_range(&mut left, &cache, sector * SECTOR_BYTES..end);
            }
        }
        left
    }
}

impl Write {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    fn sectors(&self) -> Range<usize> {
        self.offset / SECTOR_BYTES..self.end().div_ceil(SECTOR_BYTES)
    }
}

impl Renaming {
    fn folder(&self) -> &Path {
        let (path, _) = self.added.as_ref().or(self.removed.as_ref()).expect("a change");
        path.parent().unwrap_or(Path::new(""))
    }

    /// Also where what was done before it is not there.
    fn apply(&self, names: &mut Names) {
        if let (Some((from, Node::Folder)), Some((to, _))) = (&self.removed, &self.added) {
            return rename_folder(names, from, to);
        }
        if let Some((path, node)) = &self.removed
            && names.get(path) == Some(node)
        {
            names.remove(path);
        }
        if let Some((path, node)) = &self.added {
            names.insert(path.clone(), *node);
        }
    }
}

/// Renames a folder with what is in it, as far as it is there.
fn rename_folder(names: &mut Names, from: &Path, to: &Path) {
    let moved: Vec<_> = names
        .keys()
        .filter(|path| path.starts_with(from))
        .cloned()
        .collect();
    for path in moved {
        let node = names.remove(&path).expect("it was there");
        let below = path.strip_prefix(from).expect("it is in the folder");
        let path = if below == Path::new("") {
            to.to_owned()
        } else {
            to.join(below)
        };
        names.insert(path, node);
    }
}

fn overwrite(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

/// Copies these bytes, as far as both have them.
fn copy_range(to: &mut [u8], from: &[u8], range: Range<usize>) {
    let end = range.end.min(to.len()).min(from.len());
    if range.start < end {
        to[range.start..end].copy_from_slice(&from[range.start..end]);
    }
}
