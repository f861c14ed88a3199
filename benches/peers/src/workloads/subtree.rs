//! Following a quiet subtree of a busy store.

use anyhow::{Result, ensure};
use clusdb::KeyPath;

use super::{Bench, Measured, Workload, millis, role, timed};
use crate::codec;
use crate::figures::{Measure, Role, Side};
use crate::number::count;
use crate::peer::{Batch, Change, Command, Kind};
use crate::peers::{Store, apply};
use crate::raw::{RawRows, Records, RecordsWriter};
use crate::work::{data, load, path, set_value};

pub const WORKLOAD: Workload = Workload {
    name: "subtree",
    title: "The changes of a subtree that has 0.1 % of the journal",
    about: "Each batch opens a key and sets a value of 40 bytes; of the first 1,000,000 batches every thousandth is on the subtree, none \
            behind them. Read are all changes of the subtree, when there are 1, 2 and 4 million batches. clusdb: a port on \
            the subtree, created at the beginning; and a port on everything, filtered by the reader. Peers: a scan of their change table that \
            passes over what is elsewhere by its length. Raw: the same over checksummed records in a mapped file.",
    run,
};

const BATCHES: u64 = 1_000_000;
const ONE_OF: u64 = 1000;
const LENGTHS: [u64; 3] = [1, 2, 4];
const SUBTREE: &str = r"Cluster\Quiet";

fn run(bench: &Bench<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    let (root, subtree) = (KeyPath::root(), path(SUBTREE));
    let unit = bench.count_from(ONE_OF, BATCHES);
    let matches = unit.div_ceil(ONE_OF);
    let batch = |number: u64| {
        let key = match number.is_multiple_of(ONE_OF) && number < unit {
            true => format!(r"{SUBTREE}\Key{:02}", number / ONE_OF % 10),
            false => format!(r"Cluster\Resources\Resource{:04}", number % 1000),
        };
        Batch {
            at: path(&key),
            commands: vec![
                Command::CreateKey(String::new()),
                set_value("Parameter", data(number, 40)),
            ],
        }
    };
    let opened = bench.open_all(bench.folder, &[root.clone(), subtree.clone()])?;
    let mut rows = RawRows::default();
    let file = bench.folder.join("records");
    let mut written = RecordsWriter::create(&file)?;
    let mut batches = 0;
    for times in LENGTHS {
        let loaded = batches..unit * times;
        batches = loaded.end;
        bench.for_each(&opened, |peer| load(peer, loaded.clone(), batch))?;
        for number in loaded {
            written.push(&apply(&batch(number), &mut rows)?)?;
        }
        written.sync()?;
        let records = Records::open(&file)?;

        let subtree = &subtree;
        let mut sides = vec![Side::new("raw: mapped walk", Role::Raw, || {
            measure(matches, |visit| records.walk(subtree, visit))
        })];
        for one in &opened {
            sides.push(Side::new(one.store.name(), role(one.store), move || {
                measure(matches, |visit| one.peer.changes(subtree, visit))
            }));
            if one.store == Store::Clusdb {
                let root = &root;
                sides.push(Side::new("clusdb, whole journal", Role::Peer, move || {
                    measure(matches, |visit| {
                        one.peer.changes(root, &mut |change| {
                            if codec::is_at_or_below(change.key.as_bytes(), SUBTREE) {
                                visit(change);
                            }
                        })
                    })
                }));
            }
        }
        let measure = Measure::lower(
            format!("{} matches among {} batches", count(matches), count(batches)),
            "ms",
        );
        measured.figures.extend(bench.take_turns(vec![measure], sides)?);
    }
    for one in opened {
        one.peer.close()?;
    }
    Ok(measured)
}

/// Reads the subtree's changes, in milliseconds.
fn measure(
    matches: u64,
    read: impl FnOnce(&mut dyn FnMut(&Change<'_>)) -> Result<()>,
) -> Result<Vec<Option<f64>>> {
    let mut values = 0;
    let mut weight = 0;
    let time = timed(|| {
        read(&mut |change| {
            values += u64::from(change.kind == Kind::SetValue);
            weight += change.weigh();
        })
    })?;
    ensure!(values == matches, "{values} values were shown of {matches}");
    std::hint::black_box(weight);
    Ok(vec![Some(millis(time))])
}
