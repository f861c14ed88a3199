//! Where a store may be, and that nothing leads out of it: links, names of ports, access, network file systems.

#[path = "support/events.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod events;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clusdb::env::{Env, File, FileSystem, OsEnv};
use clusdb::{Batch, Error, KeyPath, NameError, OpenedFrom, Reader, Store, Value};
use tempfile::TempDir;

const SEGMENT: &str = "journal/00000000000000000001.segment";

/// A closed store with 600 batches, a port and a tree.
fn store() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    let store = Store::open(&path).unwrap();
    for number in 0..600 {
        set(&store, number).unwrap();
    }
    drop(store.port("p", &KeyPath::root()).unwrap());
    store.close().unwrap();
    (home, path)
}

fn set(store: &Store, number: u32) -> clusdb::Result<()> {
    let mut batch = Batch::at(&KeyPath::root());
    batch.set_value("v", Value::dword(number))?;
    store.commit(batch)?;
    Ok(())
}

/// Puts a link in the place of what is there, which moves out of the store.
fn link_away(home: &TempDir, path: &Path) -> PathBuf {
    let outside = home.path().join("outside");
    fs::rename(path, &outside).unwrap();
    symlink(&outside, path).unwrap();
    outside
}

/// Every file at and below a path, with its bytes.
fn contents(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    if !path.is_dir() {
        return vec![(path.to_owned(), fs::read(path).unwrap())];
    }
    let entries = fs::read_dir(path).unwrap();
    let mut all: Vec<_> = entries
        .flat_map(|entry| contents(&entry.unwrap().path()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_link_in_the_place_of_a_file_or_folder_is_refused_by_name_and_nothing_is_written_through_it() {
    for name in ["store", "lock", "head", "journal", SEGMENT, "ports"] {
        let (home, path) = store();
        let link = path.join(name);
        let outside = link_away(&home, &link);
        let before = contents(&outside);
        let open_reader = || Reader::open(&path).map(drop);
        let open: [&dyn Fn() -> clusdb::Result<()>; 2] = [&|| Store::open(&path).map(drop), &open_reader];
        for (index, open) in open.into_iter().enumerate() {
            if name == "lock" && index == 1 {
                // A reader does not lock.
                open().unwrap();
                continue;
            }
            let error = open().unwrap_err();
            assert!(
                matches!(&error, Error::SymbolicLink { path } if *path == link),
                "{name}: {error}"
            );
            assert_eq!(error.word(), "symbolic_link");
            assert!(error.to_string().contains(link.to_str().unwrap()), "{error}");
        }
        assert_eq!(contents(&outside), before, "{name}");
        assert!(link.is_symlink(), "{name}");
    }
}

/// Before there is a store file, nothing in the directory may lead elsewhere either.
#[test]
fn a_creation_does_not_follow_links() {
    for name in ["lock", "journal", "ports"] {
        let home = tempfile::tempdir().unwrap();
        let (path, outside) = (home.path().join("store"), home.path().join("outside"));
        fs::create_dir(&path).unwrap();
        match name {
            "lock" => fs::write(&outside, "years of work").unwrap(),
            _ => fs::create_dir(&outside).unwrap(),
        }
        symlink(&outside, path.join(name)).unwrap();
        let before = contents(&outside);
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, Error::SymbolicLink { .. }), "{name}: {error}");
        assert_eq!(contents(&outside), before, "{name}");
    }
    // One that leads nowhere would make a file there.
    let home = tempfile::tempdir().unwrap();
    let (path, outside) = (home.path().join("store"), home.path().join("outside"));
    fs::create_dir(&path).unwrap();
    symlink(&outside, path.join("lock")).unwrap();
    assert!(matches!(
        Store::open(&path).unwrap_err(),
        Error::SymbolicLink { .. }
    ));
    assert!(!outside.exists());
}

#[test]
fn a_link_where_a_file_is_written_aside_is_removed_and_not_followed() {
    let (home, path) = store();
    let outside = home.path().join("outside");
    fs::write(&outside, "years of work").unwrap();
    for name in ["head.unfinished", "store.unfinished", "ports/q.port.unfinished"] {
        symlink(&outside, path.join(name)).unwrap();
    }
    let store = Store::open(&path).unwrap();
    let next = path
        .join("journal")
        .join(format!("{:020}.segment.unfinished", 601));
    symlink(&outside, &next).unwrap();
    symlink(&outside, path.join("ports/r.port.unfinished")).unwrap();
    store.port("q", &KeyPath::root()).unwrap();
    store.port("r", &KeyPath::root()).unwrap();
    let mut large = Batch::at(&KeyPath::root());
    for number in 0..20 {
        large
            .set_value(&format!("v{number}"), Value::binary(vec![7; 1 << 20]))
            .unwrap();
    }
    store.commit(large).unwrap();
    assert_eq!(store.stat().unwrap().segments, 2);
    store.close().unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"years of work");
    assert!(contents(&path).iter().all(|(path, _)| !path.is_symlink()));
}

/// As one that is damaged: the store goes on without it.
#[test]
fn a_port_that_is_a_link_is_refused_when_it_is_opened_and_can_be_removed() {
    for name in ["p.port", ".lock"] {
        let (home, path) = store();
        let outside = link_away(&home, &path.join("ports").join(name));
        let before = contents(&outside);
        let store = Store::open(&path).unwrap();
        set(&store, 1).unwrap();
        let reader = Reader::open(&path).unwrap();
        let link = path.join("ports").join(name);
        let is_ours = |error: &Error| matches!(error, Error::SymbolicLink { path } if *path == link);
        for error in [
            store.port("p", &KeyPath::root()).unwrap_err(),
            reader.port("p", &KeyPath::root()).unwrap_err(),
        ] {
            assert!(is_ours(&error), "{error}");
        }
        if name == "p.port" {
            assert!(is_ours(&store.open_port("p").unwrap_err()));
            store.remove_port("p").unwrap();
            assert!(!link.is_symlink());
        }
        store.close().unwrap();
        assert_eq!(contents(&outside), before, "{name}");
    }
}

/// Nothing is lost without a tree: one that leads elsewhere is set aside as it is, and the state is the journal's.
#[test]
fn a_tree_that_is_a_link_or_holds_one_is_set_aside_and_not_followed() {
    for name in ["tree.1", "tree.1/db", "tree.1/conf", "tree.1/blobs"] {
        let (home, path) = store();
        assert_eq!(
            Store::open(&path).unwrap().stat().unwrap().opened_from,
            OpenedFrom::Tree
        );
        let outside = link_away(&home, &path.join(name));
        let before = contents(&outside);
        let (opened, told) = events::record(|| {
            let store = Store::open(&path).unwrap();
            assert_eq!(store.get(&KeyPath::root(), "v").unwrap(), Some(Value::dword(599)));
            store.stat().unwrap().opened_from
        });
        assert_eq!(opened, OpenedFrom::Journal, "{name}");
        assert!(told.contains("is a symbolic link"), "{told}");
        assert_eq!(contents(&outside), before, "{name}");
        assert!(!path.join("tree.1").exists() && path.join("tree.1.aside").exists());
        // The next one to be set aside removes it: the link, and not what it leads to.
        link_away_again(&home, &path);
        Store::open(&path).unwrap().close().unwrap();
        assert_eq!(contents(&outside), before, "{name}");
    }
}

/// The tree that was made meanwhile goes the same way.
fn link_away_again(home: &TempDir, path: &Path) {
    let tree = path.join("tree.2");
    let away = home.path().join("again");
    fs::rename(&tree, &away).unwrap();
    symlink(&away, &tree).unwrap();
}

/// The way to the store is the caller's own.
#[test]
fn the_directory_of_a_store_may_be_reached_through_a_link() {
    let (home, path) = store();
    let link = home.path().join("link");
    symlink(&path, &link).unwrap();
    let store = Store::open(&link).unwrap();
    set(&store, 7).unwrap();
    assert_eq!(Reader::open(&link).unwrap().stat().unwrap().durable_sequence, 601);
    assert!(matches!(Store::open(&path).unwrap_err(), Error::InUse { .. }));
}

#[test]
#[cfg(feature = "cli")]
fn the_command_line_tells_of_a_link_with_its_word() {
    let (home, path) = store();
    link_away(&home, &path.join("head"));
    for arguments in [&["get", "Key", "v"][..], &["set", "Key", "v", "x"], &["stat"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_clusdb"));
        command
            .arg("--store")
            .arg(&path)
            .args(["-o", "jsonl"])
            .args(arguments);
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.starts_with(r#"{"error":"symbolic_link","message":"#),
            "{told}"
        );
    }
}

#[test]
fn all_of_a_store_is_its_owners_alone() {
    let (_home, path) = store();
    drop(Store::open(&path).unwrap());
    fn check(path: &Path) {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}", path.display());
        // What sled makes is as the process would have it; nobody else gets there.
        if path.is_dir() && !path.file_name().unwrap().as_bytes().starts_with(b"tree.") {
            fs::read_dir(path)
                .unwrap()
                .for_each(|entry| check(&entry.unwrap().path()));
        }
    }
    check(&path);
    assert!(path.join("tree.1").is_dir() && path.join("journal").is_dir() && path.join("ports").is_dir());
}

#[test]
fn no_name_of_a_port_leaves_its_folder() {
    let (home, path) = store();
    let before = contents(home.path());
    let store = Store::open(&path).unwrap();
    let outside = home.path().join("outside.port").to_str().unwrap().to_owned();
    let long = "p".repeat(100_000);
    let names = [
        "",
        ".",
        "..",
        "../p",
        "../../outside",
        "a/b",
        "a/../p",
        "./p",
        "p/",
        "p/.",
        "/p",
        "/etc/passwd",
        &outside,
        "p\0",
        "p\0.x",
        "\0",
        "a\\b",
        "..\\p",
        "p\n",
        " p",
        "p ",
        "p\u{2f}q",
        "\u{ff0f}",
        "\u{2025}",
        "~",
        "~root",
        "p:q",
        "*",
        "p\u{7f}",
        ".p",
        ".lock",
        "-\u{0}",
        "%2e%2e",
        "$HOME",
    ];
    for name in names {
        for error in [
            store.port(name, &KeyPath::root()).unwrap_err(),
            store.open_port(name).unwrap_err(),
            store.remove_port(name).unwrap_err(),
        ] {
            assert!(
                matches!(&error, Error::Name(NameError::PortName { .. })),
                "{name:?}: {error}"
            );
        }
    }
    assert!(matches!(
        store.port(&long, &KeyPath::root()).unwrap_err(),
        Error::Name(NameError::Limit(_))
    ));
    // Odd, and names of files in the folder all the same.
    for name in ["-", "--", "a..", "p.port", "_", &"q".repeat(64)] {
        drop(store.port(name, &KeyPath::root()).unwrap());
        store.remove_port(name).unwrap();
    }
    store.close().unwrap();
    let names =
        |contents: &[(PathBuf, Vec<u8>)]| contents.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    let is_tree = |path: &PathBuf| path.to_str().unwrap().contains("tree.");
    let mut after = names(&contents(home.path()));
    after.retain(|path| !is_tree(path));
    let mut before = names(&before);
    before.retain(|path| !is_tree(path));
    assert_eq!(after, before);
}

/// What lies in the folder under a name that no port can have is no port, and is not opened.
#[test]
fn files_with_other_names_in_the_folder_of_ports_are_left_alone() {
    let (_home, path) = store();
    let port = fs::read(path.join("ports/p.port")).unwrap();
    let odd: Vec<OsString> = vec![
        "..port".into(),
        ".hidden.port".into(),
        "a b.port".into(),
        "a\\b.port".into(),
        "\u{ff0e}\u{ff0e}.port".into(),
        format!("{}.port", "q".repeat(65)).into(),
        OsStr::from_bytes(b"\xff\xfe.port").to_owned(),
        "p.PORT".into(),
        "port".into(),
    ];
    for name in &odd {
        fs::write(path.join("ports").join(name), &port).unwrap();
    }
    let store = Store::open(&path).unwrap();
    let names: Vec<_> = store.ports().unwrap().into_iter().map(|port| port.name).collect();
    assert_eq!(names, ["p"]);
    assert_eq!(store.stat().unwrap().ports, 1);
    store.close().unwrap();
    for name in &odd {
        assert_eq!(fs::read(path.join("ports").join(name)).unwrap(), port, "{name:?}");
    }
}

/// The real files, on a file system that calls itself something else.
#[derive(Debug)]
struct Elsewhere(FileSystem);

impl Env for Elsewhere {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsEnv.create_dir(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        OsEnv.list_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsEnv.sync_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        OsEnv.create_file(path)
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        OsEnv.open_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsEnv.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        OsEnv.remove_file(path)
    }

    fn file_system(&self, path: &Path) -> io::Result<FileSystem> {
        OsEnv.file_system(path).map(|_| self.0)
    }

    fn now(&self) -> i64 {
        OsEnv.now()
    }

    fn fill_random(&self, buffer: &mut [u8]) -> io::Result<()> {
        OsEnv.fill_random(buffer)
    }
}

#[test]
fn a_network_file_system_is_refused_by_name_unless_it_is_allowed() {
    let (home, there) = store();
    let missing = home.path().join("missing");
    let on = |file_system| Store::options().env(Arc::new(Elsewhere(file_system)));
    let nfs = || on(FileSystem::Network("NFS"));
    let refused = |error: &Error, at: &Path| {
        let is_named = matches!(error, Error::NetworkFileSystem { path, name: "NFS" } if path == at);
        assert!(is_named && error.to_string().contains("NFS"), "{error}");
        assert_eq!(error.word(), "network_file_system");
    };
    refused(&nfs().open(&there).unwrap_err(), &there);
    refused(&nfs().open_reader(&there).unwrap_err(), &there);
    refused(&nfs().open(&missing).unwrap_err(), home.path());
    assert!(!missing.exists(), "nothing is made there");
    let told = events::record(|| {
        nfs().network_file_system(true).open_reader(&there).unwrap();
        let store = nfs().network_file_system(true).open(&missing).unwrap();
        set(&store, 1).unwrap();
    })
    .1;
    assert!(told.contains("WARN") && told.contains("NFS"), "{told}");
    let told = events::record(|| drop(on(FileSystem::UserSpace).open(&there).unwrap())).1;
    assert!(told.contains("WARN") && told.contains("FUSE"), "{told}");
    let told = events::record(|| drop(Store::options().open(&there).unwrap())).1;
    assert!(!told.contains("file system") && !told.contains("FUSE"), "{told}");
}
