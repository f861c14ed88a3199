//! Repair: makes a damaged store one that opens, by what is left of it. Every byte that it takes away is kept in a folder beside.
//!
//! What is spoilt and not needed is set aside. Where the journal is damaged, the part before the damage goes if a snapshot has
//! what it led to; else the journal is cut at the damage, and, since acknowledged records are lost, goes on in a new epoch.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::check::{Checked, examine};
use crate::env::Env;
use crate::epoch::Epoch;
use crate::error::{Error, IoContext, Result, TrimReason};
use crate::format;
use crate::identity::Identity;
use crate::journal::{
    Position, SEGMENT_BLOCK_BYTES, SEGMENT_HEADER_BYTES, Segment, Survey, new_segment_header,
};
use crate::layout::{Layout, create_dir_if_missing, random, remove_if_there, sync_parent, write_aside};
use crate::options::Options;
use crate::port_file::PortFile;
use crate::trim_note::{Lost, TrimNote};

/// What a repair has done, or would do.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Repair {
    /// The faults that it is about.
    pub faults: Vec<Error>,
    /// Acknowledged records whose effects are lost; the history goes on in a new epoch then.
    pub lost: Option<RangeInclusive<u64>>,
    /// Records that are gone from the journal, while the state still has what they did: ports that stood before are left behind.
    pub trimmed: Option<RangeInclusive<u64>>,
    /// The epoch that begins, if one does.
    pub epoch: Option<Epoch>,
    /// The folder that keeps what was taken away.
    pub aside: Option<PathBuf>,
}

/// How the journal is mended.
enum Plan {
    Nothing,
    /// It begins with this segment.
    BeginAt(u64),
    /// It ends here, where the records behind it are lost.
    CutAt(Position),
}

/// Repairs the store in this directory; or says what would be done, without `act`.
pub(crate) fn repair(options: &Options, path: &Path, act: bool) -> Result<Repair> {
    let env = &*options.env;
    let layout = Layout::new(path);
    let checked = examine(options, path, false)?;
    let mut repair = Repair {
        faults: checked.report.faults.clone(),
        ..Repair::default()
    };
    if repair.faults.is_empty() {
        return Ok(repair);
    }
    // What another version has written is not damaged, and what cannot be read now may be whole.
    let is_other = |fault: &&Error| !matches!(fault, Error::Damaged { .. });
    if let Some(other) = repair.faults.iter().find(is_other) {
        return Err(other.clone());
    }
    let (Some(identity), Some(survey)) = (&checked.identity, &checked.survey) else {
        // Without its own file, nobody knows which history this is.
        return Err(checked.report.faults[0].clone());
    };
    let plan = plan(&checked, identity, survey)?;
    match &plan {
        Plan::Nothing => {}
        Plan::BeginAt(first) => repair.trimmed = Some(identity.trim_base..=first - 1),
        Plan::CutAt(end) => repair.lost = Some(end.sequence + 1..=survey.last.max(end.sequence + 1)),
    }
    if !act {
        return Ok(repair);
    }
    let mut aside = Aside::new(env, &layout)?;
    match plan {
        Plan::Nothing => {}
        Plan::BeginAt(first) => begin_at(options, &layout, identity, survey, first, &mut aside)?,
        Plan::CutAt(end) => {
            let epoch = Epoch::from_bytes(random(env, &layout)?);
            cut_at(env, &layout, identity, survey, end, epoch, &checked, &mut aside)?;
            repair.epoch = Some(epoch);
        }
    }
    for path in &checked.spoilt {
        aside.take(path)?;
    }
    repair.aside = aside.end()?;
    tracing::warn!(path = %path.display(), lost = ?repair.lost, aside = ?repair.aside, "repaired");
    Ok(repair)
}

fn plan(checked: &Checked, identity: &Identity, survey: &Survey) -> Result<Plan> {
    let Some(fault) = survey.first_fault else {
        // Without a snapshot, taking away what is left of one would leave nothing to start from.
        return match checked.has_base {
            true => Ok(Plan::Nothing),
            false => Err(checked.report.faults[0].clone()),
        };
    };
    // The journal goes on from a snapshot behind all faults.
    let newest = checked.snapshots.first().map_or(0, |meta| meta.sequence);
    if let Some(first) = survey.whole_from.filter(|first| first - 1 <= newest) {
        return Ok(Plan::BeginAt(first));
    }
    // What is before the cut has to lead to a state.
    let base = identity.trim_base - 1;
    let has_base = base == 0
        || checked
            .snapshots
            .iter()
            .any(|meta| (base..=fault.sequence).contains(&meta.sequence));
    match has_base {
        true => Ok(Plan::CutAt(fault)),
        false => Err(checked.report.faults[0].clone()),
    }
}

/// Lets the journal begin with this segment: a snapshot has what the records before it did.
fn begin_at(
    options: &Options,
    layout: &Layout,
    identity: &Identity,
    survey: &Survey,
    first: u64,
    aside: &mut Aside<'_>,
) -> Result<()> {
    let env = &*options.env;
    let ports = layout.ports();
    for name in env.list_dir(&ports).context("list", &ports)? {
        let Some(name) = Layout::parse_port(&name) else {
            continue;
        };
        let Ok(port) = PortFile::open(env, &layout.port(name)) else {
            continue;
        };
        let path = layout.trim_note(name);
        // What an earlier trimming knows of it goes on counting.
        let earlier = TrimNote::read(env, &path, port.head.id).ok().flatten();
        let earlier = earlier.filter(|note| note.is_of(|sequence| identity.epoch_of(sequence)));
        let cursor = earlier
            .map(|note| note.cursor)
            .filter(|cursor| cursor.sequence > port.cursor.sequence)
            .unwrap_or(port.cursor);
        if cursor.sequence + 1 >= first {
            continue;
        }
        let lost = Lost {
            first: cursor.sequence + 1,
            last: first - 1,
            time: env.now(),
            reason: TrimReason::Repair,
        };
        let note = TrimNote {
            port_id: port.head.id,
            trimmed_to: first - 1,
            trimmed_epoch: identity.epoch_of(first - 1),
            cursor,
            lost: Some(lost),
        };
        note.write(env, &path)?;
    }
    let gone = survey.segments.iter().filter(|segment| **segment < first);
    for segment in gone.clone() {
        aside.copy(&layout.segment(*segment))?;
    }
    aside.sync()?;
    identity.trimmed(first).write(env, &layout.store())?;
    for segment in gone {
        remove_if_there(env, &layout.sidecar(*segment))?;
        remove_if_there(env, &layout.segment(*segment))?;
    }
    sync_parent(env, &layout.segment(first))
}

/// Cuts the journal behind a record, and begins a branch there.
#[expect(clippy::too_many_arguments, reason = "the parts of one step")]
fn cut_at(
    env: &dyn Env,
    layout: &Layout,
    identity: &Identity,
    survey: &Survey,
    end: Position,
    epoch: Epoch,
    checked: &Checked,
    aside: &mut Aside<'_>,
) -> Result<()> {
    // What is taken away is kept before anything is.
    let gone = survey.segments.iter().filter(|segment| **segment >= end.segment);
    for segment in gone.clone() {
        aside.copy(&layout.segment(*segment))?;
    }
    let ahead = checked
        .snapshots
        .iter()
        .filter(|meta| meta.sequence > end.sequence);
    for meta in ahead.clone() {
        aside.copy(&layout.snapshot(meta.sequence))?;
    }
    aside.sync()?;
    // First of all: whatever is left half done, nobody takes it for the history that was.
    let branch = identity.branched(epoch, end.sequence + 1);
    let trim_base = branch.trim_base.min(end.sequence + 1);
    branch.trimmed(trim_base).write(env, &layout.store())?;
    for meta in ahead {
        remove_if_there(env, &layout.snapshot(meta.sequence))?;
    }
    for segment in gone {
        let path = layout.segment(*segment);
        remove_if_there(env, &layout.sidecar(*segment))?;
        // One without a record left is not kept: the branch's own takes its name.
        match *segment == end.segment && end.sequence >= *segment {
            true => cut_segment(env, &path, end.offset)?,
            false => remove_if_there(env, &path)?,
        }
    }
    let journal = layout.journal();
    env.sync_dir(&journal).context("sync the folder", &journal)?;
    let header = new_segment_header(env, epoch, end.sequence + 1, end.checksum)?;
    Segment::create(env, layout, header, SEGMENT_BLOCK_BYTES as u64)?;
    Ok(())
}

/// Overwrites a segment with zeroes from this offset on.
fn cut_segment(env: &dyn Env, path: &Path, offset: u64) -> Result<()> {
    let file = env.open_file(path).context("open", path)?;
    let length = file.length().context("read the length of", path)?;
    let length = length.max(offset).next_multiple_of(SEGMENT_BLOCK_BYTES as u64);
    let offset = offset.max(SEGMENT_HEADER_BYTES as u64);
    file.write_at(&vec![0; (length - offset) as usize], offset)
        .context("cut", path)?;
    file.sync().context("sync", path)
}

/// The folder that keeps what a repair takes away.
struct Aside<'a> {
    env: &'a dyn Env,
    root: PathBuf,
    folder: PathBuf,
    is_used: bool,
}

impl<'a> Aside<'a> {
    fn new(env: &'a dyn Env, layout: &Layout) -> Result<Aside<'a>> {
        let root = layout.root().to_owned();
        let taken = env.list_dir(&root).context("list", &root)?;
        let name = (1u32..)
            .map(|number| format!("repaired.{number}"))
            .find(|name| !taken.iter().any(|taken| taken == name.as_str()));
        let folder = root.join(name.unwrap_or_default());
        Ok(Aside {
            env,
            root,
            folder,
            is_used: false,
        })
    }

    /// Keeps a copy of the file, of the same name behind that of its folder.
    fn copy(&mut self, path: &Path) -> Result<()> {
        let file = match self.env.open_file(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            opened => opened.context("open", path)?,
        };
        create_dir_if_missing(self.env, &self.folder)?;
        self.is_used = true;
        let bytes = format::read_whole(&*file, path, u64::MAX)?;
        let name = path.strip_prefix(&self.root).unwrap_or(path);
        let name = name.to_string_lossy().replace('/', ".");
        write_aside(self.env, &self.folder.join(name), &bytes)
    }

    /// Keeps a copy of the file, and removes it.
    fn take(&mut self, path: &Path) -> Result<()> {
        self.copy(path)?;
        self.sync()?;
        remove_if_there(self.env, path)?;
        sync_parent(self.env, path)
    }

    fn sync(&self) -> Result<()> {
        match self.is_used {
            true => self
                .env
                .sync_dir(&self.folder)
                .context("sync the folder", &self.folder),
            false => Ok(()),
        }
    }

    fn end(self) -> Result<Option<PathBuf>> {
        self.sync()?;
        Ok(self.is_used.then_some(self.folder))
    }
}
