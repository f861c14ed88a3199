//! Taking in a real hive.

use std::fs::File;
use std::io::Write;

use anyhow::Result;

use super::{Bench, Measured, Workload, millis, role, timed};
use crate::figures::{Measure, Role, Side};
use crate::inputs;
use crate::number::count;
use crate::peer::{Batch, Command};
use crate::peers::apply;
use crate::raw::RawRows;
use crate::work::read_batch;

pub const WORKLOAD: Workload = Workload {
    name: "import",
    title: "A real hive as one durable batch",
    about: "30,756 keys and 73,456 values of a registry, parsed before, into a new store. Raw: a write of the change entry's \
            bytes and a sync. Only part of it is taken in at a smaller scale.",
    run,
};

/// What takes the hive's place where it is not: as many values.
const MADE_UP_VALUES: u64 = 73_456;

fn run(bench: &Bench<'_>) -> Result<Measured> {
    let (mut batch, from) = match inputs::hive()? {
        Some(batch) => (batch, "the real hive"),
        None => (made_up()?, "made-up keys and values, since the hive is not there"),
    };
    let commands = bench.count(batch.commands.len() as u64);
    batch.commands.truncate(commands as usize);
    let entry = apply(&batch, &mut RawRows::default())?;

    let (batch, entry) = (&batch, &entry);
    let mut sides = vec![Side::new("raw: write + sync", Role::Raw, || {
        let path = bench.folder.join("raw");
        let time = timed(|| {
            let mut file = File::create(&path)?;
            file.write_all(entry)?;
            Ok(file.sync_all()?)
        })?;
        Ok(vec![Some(millis(time))])
    })];
    for store in &bench.arguments.stores {
        sides.push(Side::new(store.name(), role(*store), move || {
            let folder = bench.folder.join(store.name());
            let peer = store.open(&folder, &[])?;
            let time = timed(|| peer.write(std::slice::from_ref(batch)))?;
            peer.close()?;
            std::fs::remove_dir_all(folder)?;
            Ok(vec![Some(millis(time))])
        }));
    }
    let values = batch
        .commands
        .iter()
        .filter(|command| matches!(command, Command::SetValue { .. }));
    let values = count(values.count() as u64);
    let title = format!("{} commands, {values} values, as one batch", count(commands));
    let figures = bench.take_turns(vec![Measure::lower(title, "ms")], sides)?;
    let notes = vec![format!(
        "From {from}; its change entry has {} bytes.",
        count(entry.len() as u64)
    )];
    Ok(Measured { figures, notes })
}

fn made_up() -> Result<Batch> {
    let mut whole = Batch {
        at: clusdb::KeyPath::root(),
        commands: Vec::new(),
    };
    for number in 0..MADE_UP_VALUES / 10 {
        let batch = read_batch(number);
        let open = Command::CreateKey(batch.at.as_str().to_owned());
        whole.commands.push(open);
        whole.commands.extend(batch.commands.into_iter().skip(1));
    }
    Ok(whole)
}
