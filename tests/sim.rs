//! The simulated disk itself: it takes what a disk may take, and keeps what a sync promises.

#[path = "support/sim.rs"]
#[allow(dead_code, reason = "shared with the tests of the store")]
mod sim;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clusdb::env::{Env, File, PAGE_BYTES};
use sim::{Disk, Fault, Loss, Plan, SECTOR_BYTES, Sim};

fn boot() -> Sim {
    Sim::boot(&Disk::default(), 0, Plan::Nothing)
}

/// A file whose name and content are durable.
fn durable_file(sim: &Sim, name: &str, content: &[u8]) -> Arc<dyn File> {
    let file = sim.create_file(&sim.path(name)).unwrap();
    file.write_at(content, 0).unwrap();
    file.sync().unwrap();
    sim.sync_dir(&sim.path("")).unwrap();
    file
}

fn content(disk: &Disk, name: &str) -> Option<Vec<u8>> {
    let mut files = disk.list();
    let (_, content) = files.find(|(path, _)| *path == Path::new(name))?;
    content.map(<[u8]>::to_vec)
}

/// All that the file can be after a loss of power, as far as a thousand seeds show.
fn outcomes(sim: &Sim, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let disk = sim.disk();
    let random = (0..1000).map(Loss::Some);
    let losses = [Loss::All, Loss::Nothing].into_iter().chain(random);
    losses.map(|loss| content(&disk.after(loss), name)).collect()
}

#[test]
fn what_is_synced_is_there_whatever_is_lost() {
    let sim = boot();
    sim.create_dir(&sim.path("d")).unwrap();
    sim.sync_dir(&sim.path("")).unwrap();
    let file = sim.create_file(&sim.path("d/aside")).unwrap();
    file.write_at(&[1; 3000], 0).unwrap();
    file.write_at(&[2; 3000], 2000).unwrap();
    file.sync().unwrap();
    sim.rename(&sim.path("d/aside"), &sim.path("d/f")).unwrap();
    sim.sync_dir(&sim.path("d")).unwrap();
    let expected = [[1; 2000].to_vec(), [2; 3000].to_vec()].concat();
    assert_eq!(outcomes(&sim, "d/f"), [Some(expected)].into());
    assert_eq!(outcomes(&sim, "d/aside"), [None].into());
}

#[test]
fn a_write_that_is_not_synced_can_be_lost_done_or_torn_at_sectors_and_within_one() {
    let sim = boot();
    let file = durable_file(&sim, "f", &[0; 2048]);
    file.write_at(&[1; 1024], 512).unwrap();
    let outcomes = outcomes(&sim, "f");
    let ones = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == 1).count();
    let of = |sectors: [usize; 4]| {
        outcomes.iter().flatten().any(|content| {
            let seen: Vec<_> = content.chunks(SECTOR_BYTES).map(ones).collect();
            seen == sectors
        })
    };
    assert!(of([0, 0, 0, 0]), "lost");
    assert!(of([0, 512, 512, 0]), "done");
    assert!(of([0, 512, 0, 0]) && of([0, 0, 512, 0]), "in any order");
    let is_cut = |content: &Vec<u8>| !ones(content).is_multiple_of(SECTOR_BYTES);
    assert!(outcomes.iter().flatten().any(is_cut), "cut within a sector");
    for content in outcomes.iter().flatten() {
        assert_eq!(content.len(), 2048);
        assert_eq!(ones(&content[..512]) + ones(&content[1536..]), 0);
        for sector in content.chunks(SECTOR_BYTES) {
            assert!(sector.is_sorted_by(|a, b| a >= b), "new, then old");
        }
    }
}

#[test]
fn two_writes_to_one_sector_reach_the_disk_in_order_and_those_to_two_in_any() {
    let sim = boot();
    let file = durable_file(&sim, "f", &[0; 1024]);
    file.write_at(&[1], 0).unwrap();
    file.write_at(&[2], 1).unwrap();
    file.write_at(&[3], 512).unwrap();
    let seen: BTreeSet<_> = outcomes(&sim, "f")
        .iter()
        .flatten()
        .map(|content| (content[0], content[1], content[512]))
        .collect();
    let possible = [(0, 0), (1, 0), (1, 2)];
    let expected = possible.iter().flat_map(|(a, b)| [(*a, *b, 0), (*a, *b, 3)]);
    assert_eq!(seen, expected.collect());
}

#[test]
fn a_length_that_is_not_synced_can_be_lost_or_be_there_without_its_data() {
    let sim = boot();
    let file = durable_file(&sim, "f", &[1; 4096]);
    file.write_at(&[2; 8192], 4096).unwrap();
    let outcomes = outcomes(&sim, "f");
    let lengths: BTreeSet<_> = outcomes.iter().flatten().map(Vec::len).collect();
    assert_eq!(lengths, [4096, 8192, 12288].into());
    let has = |wanted: fn(&[u8]) -> bool| outcomes.iter().flatten().any(|content| wanted(&content[4096..]));
    assert!(has(|tail| tail.contains(&0)), "zeroes");
    assert!(has(|tail| tail.iter().any(|byte| *byte > 2)), "anything");
    assert!(
        outcomes
            .iter()
            .flatten()
            .all(|content| content[..4096] == [1; 4096])
    );
}

#[test]
fn a_name_that_is_not_synced_can_be_lost_though_its_file_is_synced() {
    let sim = boot();
    let file = sim.create_file(&sim.path("f")).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(outcomes(&sim, "f"), [None, Some(b"x".to_vec())].into());
}

#[test]
fn a_renaming_that_is_not_synced_leaves_the_old_file_or_the_new_and_so_does_a_removal() {
    let sim = boot();
    durable_file(&sim, "f", b"old");
    durable_file(&sim, "aside", b"new");
    sim.rename(&sim.path("aside"), &sim.path("f")).unwrap();
    assert_eq!(
        outcomes(&sim, "f"),
        [Some(b"old".to_vec()), Some(b"new".to_vec())].into()
    );
    sim.sync_dir(&sim.path("")).unwrap();
    assert_eq!(outcomes(&sim, "f"), [Some(b"new".to_vec())].into());
    sim.remove_file(&sim.path("f")).unwrap();
    assert_eq!(outcomes(&sim, "f"), [None, Some(b"new".to_vec())].into());
}

#[test]
fn a_file_that_is_renamed_before_its_sync_can_be_empty_under_its_new_name() {
    let sim = boot();
    sim.create_file(&sim.path("aside"))
        .unwrap()
        .write_at(b"new", 0)
        .unwrap();
    sim.rename(&sim.path("aside"), &sim.path("f")).unwrap();
    sim.sync_dir(&sim.path("")).unwrap();
    assert!(outcomes(&sim, "f").contains(&Some(Vec::new())));
    assert!(!outcomes(&sim, "f").contains(&None));
}

#[test]
fn what_is_in_a_folder_whose_name_is_lost_is_lost_with_it() {
    let sim = boot();
    sim.create_dir(&sim.path("d")).unwrap();
    let file = sim.create_file(&sim.path("d/f")).unwrap();
    file.sync().unwrap();
    sim.sync_dir(&sim.path("d")).unwrap();
    assert_eq!(outcomes(&sim, "d/f"), [None, Some(Vec::new())].into());
    sim.sync_dir(&sim.path("")).unwrap();
    assert_eq!(outcomes(&sim, "d/f"), [Some(Vec::new())].into());
}

#[test]
fn what_a_failed_sync_has_left_is_not_made_durable_by_a_later_one_unless_it_is_written_again() {
    let sim = boot();
    let file = durable_file(&sim, "f", &[0; 1024]);
    file.write_at(&[1; 1024], 0).unwrap();
    sim.plan(Plan::Fails {
        at: sim.count() + 1,
        fault: Fault::LostSync,
    });
    file.sync().unwrap_err();
    file.sync().unwrap();
    assert_eq!(content(&sim.disk().after(Loss::All), "f").unwrap(), [0; 1024]);
    assert_eq!(
        content(&sim.disk(), "f").unwrap(),
        [1; 1024],
        "it is seen all the same"
    );
    file.write_at(&[1], 512).unwrap();
    file.sync().unwrap();
    let left = content(&sim.disk().after(Loss::All), "f").unwrap();
    assert_eq!((&left[..512], &left[512..]), (&[0; 512][..], &[1; 512][..]));
}

#[test]
fn what_is_stored_in_a_mapped_page_is_a_write_of_its_sectors() {
    let sim = boot();
    let file = durable_file(&sim, "f", &[0; PAGE_BYTES]);
    let page = file.map_page().unwrap();
    let outcomes = || -> BTreeSet<_> {
        let outcomes = outcomes(&sim, "f");
        outcomes
            .iter()
            .flatten()
            .map(|content| (content[0], content[4088]))
            .collect()
    };
    page.word(0).store(u64::from_le_bytes([1; 8]), Ordering::Relaxed);
    page.word(511)
        .store(u64::from_le_bytes([2; 8]), Ordering::Relaxed);
    assert_eq!(outcomes(), [(0, 0), (1, 0), (0, 2), (1, 2)].into());
    file.sync().unwrap();
    assert_eq!(outcomes(), [(1, 2)].into());
}

#[test]
fn after_a_crash_nothing_is_done_and_nothing_is_seen() {
    for is_done in [false, true] {
        let sim = boot();
        let file = durable_file(&sim, "f", &[0; PAGE_BYTES]);
        let page = file.map_page().unwrap();
        let at = sim.count() + 1;
        sim.plan(Plan::Crash { at, is_done });
        assert_eq!(
            file.write_at(&[1], 0).unwrap_err().kind(),
            ErrorKind::ConnectionAborted
        );
        page.word(511).store(7, Ordering::Relaxed);
        file.write_at(&[2], 1).unwrap_err();
        file.sync().unwrap_err();
        file.length().unwrap_err();
        sim.list_dir(&sim.path("")).unwrap_err();
        sim.remove_file(&sim.path("f")).unwrap_err();
        let left = content(&sim.disk(), "f").unwrap();
        assert_eq!((left[0], left[1], left[4088]), (u8::from(is_done), 0, 0));
    }
}

#[test]
fn a_full_disk_refuses_what_makes_a_file_longer_and_nothing_else() {
    let sim = boot();
    let file = durable_file(&sim, "f", &[0; 10]);
    sim.plan(Plan::Full { from: 1 });
    let kind = |done: std::io::Result<()>| done.map_err(|error| error.kind());
    assert_eq!(kind(file.write_at(&[1; 3], 8)), Err(ErrorKind::StorageFull));
    assert_eq!(kind(sim.create_dir(&sim.path("d"))), Err(ErrorKind::StorageFull));
    assert_eq!(kind(file.write_at(&[1; 2], 8)), Ok(()));
    sim.plan(Plan::Nothing);
    assert_eq!(kind(file.write_at(&[1; 3], 8)), Ok(()));
}

#[test]
fn half_of_a_short_write_is_done() {
    let sim = boot();
    let file = durable_file(&sim, "f", &[0; 4]);
    sim.plan(Plan::Fails {
        at: sim.count() + 1,
        fault: Fault::ShortWrite,
    });
    file.write_at(&[1; 4], 0).unwrap_err();
    assert_eq!(content(&sim.disk(), "f").unwrap(), [1, 1, 0, 0]);
    let mut seen = [9; 4];
    file.read_at(&mut seen, 0).unwrap();
    assert_eq!(seen, [1, 1, 0, 0]);
}

#[test]
fn the_next_life_finds_the_files_that_are_left_and_a_flipped_bit() {
    let sim = boot();
    durable_file(&sim, "f", b"abc");
    let mut disk = sim.disk().after(Loss::All);
    disk.flip_bit(Path::new("f"), 8);
    let next = Sim::boot(&disk, 1, Plan::Nothing);
    let mut seen = [0; 3];
    let file = next.open_file(&next.path("f")).unwrap();
    file.read_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"acc");
    let mut moments: Vec<_> = (0..100).map(|_| next.now()).collect();
    assert!(!moments.is_sorted(), "its clock jumps");
    moments.dedup();
    assert_eq!(moments.len(), 100);
}
