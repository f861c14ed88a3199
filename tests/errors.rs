//! Each way to fail has its variant and its word; and none of them changes the store.

use std::path::PathBuf;
use std::time::Duration;

use clusdb::{
    Batch, BatchError, CommandError, Error, KeyPath, Limit, LimitExceeded, NameError, Notification, Options,
    Port, Store, Value,
};
use tempfile::TempDir;

struct Fixture {
    folder: TempDir,
    store: Store,
}

impl Fixture {
    /// A store with the key `A` and its value `v`, as batch 1.
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        let mut batch = Batch::at(&key("A"));
        batch
            .create_key("")
            .unwrap()
            .set_value("v", Value::dword(1))
            .unwrap();
        store.commit(batch).unwrap();
        Fixture { folder, store }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Commits what cannot be committed, and checks that nothing came of it.
    fn refuse(&self, batch: Batch) -> BatchError {
        let before = (
            self.store.stat().unwrap(),
            self.store.list_recursive(&KeyPath::root()).unwrap(),
        );
        let error = self.store.commit(batch).unwrap_err();
        let after = (
            self.store.stat().unwrap(),
            self.store.list_recursive(&KeyPath::root()).unwrap(),
        );
        assert_eq!(before, after);
        let Error::Batch(refused) = error else {
            panic!("not a refusal: {error}")
        };
        refused
    }
}

fn key(path: &str) -> KeyPath {
    KeyPath::parse(path).unwrap()
}

fn limit(limit: Limit, maximum: u64, found: u64) -> CommandError {
    CommandError::Limit(LimitExceeded {
        limit,
        maximum,
        found,
    })
}

#[test]
fn handles_can_be_shared_and_sent() {
    fn shared<T: Send + Sync>() {}
    fn cloned<T: Clone + Send + Sync>() {}
    cloned::<Store>();
    cloned::<Port>();
    cloned::<Options>();
    shared::<Notification>();
    shared::<Error>();
}

#[test]
fn a_value_over_the_limit_is_refused_with_its_index_and_both_sizes() {
    let fixture = Fixture::new();
    let mut batch = Batch::at(&key("A"));
    batch.set_value("w", Value::binary(vec![0; 1 << 20])).unwrap();
    batch
        .set_value("w", Value::binary(vec![0; (1 << 20) + 1]))
        .unwrap();
    let refused = fixture.refuse(batch);
    assert_eq!(refused.index, 1);
    assert_eq!(refused.source, limit(Limit::ValueBytes, 1 << 20, (1 << 20) + 1));
    assert_eq!(Error::from(refused).word(), "limit");
}

#[test]
fn a_key_may_be_33_levels_below_another_but_not_by_one_command() {
    let fixture = Fixture::new();
    let levels = |count| vec!["k"; count].join("\\");
    let mut batch = Batch::at(&key("A"));
    batch.create_key(&levels(33)).unwrap();
    assert_eq!(fixture.refuse(batch).source, limit(Limit::CreatedLevels, 32, 33));
    let mut batch = Batch::at(&key("A"));
    batch
        .create_key(&levels(32))
        .unwrap()
        .create_key(&levels(33))
        .unwrap();
    assert!(fixture.store.commit(batch).is_ok());
}

/// Crash story 7: old data counts, so that the record can be larger than the batch.
#[test]
fn a_record_over_the_limit_is_refused_also_when_it_is_the_old_data_that_is_large() {
    let fixture = Fixture::new();
    fixture.store.close().unwrap();
    let store = Store::options()
        .record_limit_bytes(1500)
        .open(fixture.path())
        .unwrap();
    let mut large = Batch::at(&key("A"));
    large.set_value("v", Value::binary(vec![0; 1000])).unwrap();
    store.commit(large.clone()).unwrap();
    let error = store.commit(large).unwrap_err();
    let is_limit = |source: &CommandError| match source {
        CommandError::Limit(exceeded) => exceeded.limit == Limit::RecordBytes && exceeded.maximum == 1500,
        _ => false,
    };
    assert!(
        matches!(&error, Error::Batch(refused) if is_limit(&refused.source)),
        "{error}"
    );
}

#[test]
fn setting_a_value_of_a_missing_key_is_refused_and_deleting_one_is_not() {
    let fixture = Fixture::new();
    let mut batch = Batch::at(&key("B"));
    batch
        .delete_value("v")
        .unwrap()
        .set_value("v", Value::dword(1))
        .unwrap();
    let refused = fixture.refuse(batch);
    assert_eq!(
        (refused.index, &refused.source),
        (1, &CommandError::KeyNotFound { key: "B".into() })
    );
    assert_eq!(Error::from(refused).word(), "not_found");
}

/// Section 2: a false condition undoes the batch, and says which command it was.
#[test]
fn a_condition_that_does_not_hold_undoes_the_batch() {
    let fixture = Fixture::new();
    let mut batch = Batch::at(&key("A"));
    batch
        .set_value("new", Value::dword(1))
        .unwrap()
        .condition_exists("missing")
        .unwrap();
    let refused = fixture.refuse(batch);
    let CommandError::ConditionFailed(failed) = &refused.source else {
        panic!("{refused}");
    };
    assert_eq!((refused.index, failed.kind), (1, clusdb::ConditionKind::Exists));
    assert_eq!(Error::from(refused).word(), "condition_failed");
}

#[test]
fn conditions_alone_are_checked_and_commit_nothing() {
    let fixture = Fixture::new();
    let before = fixture.store.stat().unwrap().durable_sequence;
    let mut batch = Batch::at(&key("A"));
    batch
        .condition_key_exists("")
        .unwrap()
        .control(clusdb::Control::Isolated);
    let commit = fixture.store.commit(batch).unwrap();
    assert_eq!(commit.sequence(), None);
    assert_eq!(fixture.store.stat().unwrap().durable_sequence, before);
}

/// Specification, section 5: each plain write is refused where the registry refuses it.
#[test]
fn a_plain_write_that_is_refused_changes_nothing() {
    let Fixture {
        store,
        folder: _folder,
    } = Fixture::new();
    store.create_key(&key("A\\B")).unwrap();
    let before = (
        store.stat().unwrap(),
        store.list_recursive(&KeyPath::root()).unwrap(),
    );
    let (missing, root) = (key("No"), KeyPath::root());
    let large = Value::binary(vec![0; (1 << 20) + 1]);
    let key_not_found = CommandError::KeyNotFound { key: "No".to_owned() };
    let has_subkeys = CommandError::HasSubkeys { key: "A".to_owned() };
    let value_not_found = CommandError::ValueNotFound {
        key: "A".to_owned(),
        name: "w".to_owned(),
    };
    for (answer, expected, word) in [
        (store.delete_key(&key("A")), has_subkeys, "has_subkeys"),
        (store.delete_key(&root), CommandError::Root, "root"),
        (store.delete_key(&missing), key_not_found.clone(), "not_found"),
        (
            store.set_value(&missing, "v", Value::dword(1)),
            key_not_found.clone(),
            "not_found",
        ),
        (store.delete_value(&missing, "v"), key_not_found, "not_found"),
        (store.delete_value(&key("A"), "w"), value_not_found, "not_found"),
        (
            store.set_value(&key("A"), "v", large),
            limit(Limit::ValueBytes, 1 << 20, (1 << 20) + 1),
            "limit",
        ),
        (
            store.delete_value(&key("A"), "v\0"),
            CommandError::Name(NameError::Nul {
                name: "v\0".to_owned(),
                offset: 1,
            }),
            "name",
        ),
    ] {
        let error = answer.unwrap_err();
        assert_eq!(error.word(), word);
        assert!(
            matches!(&error, Error::Plain(found) if *found == expected),
            "{error}"
        );
    }
    let deep = key(&["k"; 33].join("\\"));
    let error = store.create_key(&deep).unwrap_err();
    assert!(
        matches!(&error, Error::Plain(found) if *found == limit(Limit::CreatedLevels, 32, 33)),
        "{error}"
    );
    let after = (
        store.stat().unwrap(),
        store.list_recursive(&KeyPath::root()).unwrap(),
    );
    assert_eq!(before, after);
}

#[test]
fn names_that_cannot_be_are_refused_before_anything_is_looked_at() {
    let fixture = Fixture::new();
    for (error, word) in [
        (Error::from(KeyPath::parse("A\\").unwrap_err()), "path"),
        (KeyPath::parse("A\0").unwrap_err().into(), "name"),
        (KeyPath::parse(&"k".repeat(256)).unwrap_err().into(), "limit"),
        (fixture.store.port(".p", &key("A")).unwrap_err(), "name"),
        (
            fixture.store.port(&"p".repeat(65), &key("A")).unwrap_err(),
            "limit",
        ),
        (fixture.store.open_port("a/b").unwrap_err(), "name"),
        (fixture.store.remove_port("").unwrap_err(), "name"),
    ] {
        assert!(matches!(error, Error::Name(_)), "{error}");
        assert_eq!(error.word(), word, "{error}");
    }
    let error = Batch::at(&key("A"))
        .set_value(&"n".repeat(16_384), Value::dword(1))
        .unwrap_err();
    let expected = LimitExceeded {
        limit: Limit::ValueNameUnits,
        maximum: 16_383,
        found: 16_384,
    };
    assert_eq!(error.source, CommandError::Name(NameError::Limit(expected)));
}

#[test]
fn what_is_not_there_is_not_found() {
    let fixture = Fixture::new();
    let (missing, empty) = (
        fixture.folder.path().join("missing"),
        fixture.folder.path().join("empty"),
    );
    std::fs::create_dir(&empty).unwrap();
    let errors = [
        fixture.store.list(&key("B")).unwrap_err(),
        fixture.store.open_port("p").unwrap_err(),
        fixture.store.remove_port("p").unwrap_err(),
        Store::options().create(false).open(&missing).unwrap_err(),
        Store::options().create(false).open(&empty).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.word(), "not_found", "{error}");
    }
    assert!(!missing.exists());
    assert_eq!(fixture.store.get(&key("B"), "v").unwrap(), None);
    assert_eq!(fixture.store.get(&key("A"), "w").unwrap(), None);
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::ForeignDirectory { found, .. } if found == "thesis.txt"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let file = folder.path().join("thesis.txt");
    assert!(
        matches!(Store::open(&file).unwrap_err(), Error::Io { .. }),
        "a file is no directory"
    );
}

#[test]
fn a_second_owner_is_refused_and_a_patient_one_gets_its_turn() {
    let fixture = Fixture::new();
    let error = Store::open(fixture.path()).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    let (store, path) = (fixture.store.clone(), fixture.path());
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| Store::options().lock_timeout(Duration::from_secs(60)).open(path));
        store.close().unwrap();
        assert_eq!(
            patient.join().unwrap().unwrap().stat().unwrap().durable_sequence,
            1
        );
    });
}

#[test]
fn a_closed_store_refuses_everything_and_closing_it_again_does_nothing() {
    let Fixture {
        store,
        folder: _folder,
    } = Fixture::new();
    let port = store.port("p", &key("A")).unwrap();
    store.close().unwrap();
    store.close().unwrap();
    let mut batch = Batch::at(&key("A"));
    batch.delete_value("v").unwrap();
    let errors = [
        store.commit(batch.clone()).unwrap_err(),
        store.commit(Batch::at(&key("A"))).unwrap_err(),
        store.dry_run(&batch).unwrap_err(),
        store.get(&key("A"), "v").unwrap_err(),
        store.log(1..=9).unwrap_err(),
        store.port("q", &key("A")).unwrap_err(),
        store.open_port("p").unwrap_err(),
        port.try_get().unwrap_err(),
        port.get().unwrap_err(),
        port.rewind().unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Closed), "{error}");
        assert_eq!(error.word(), "closed");
    }
}

#[test]
fn a_port_has_one_key_and_one_owner() {
    let Fixture {
        store,
        folder: _folder,
    } = Fixture::new();
    let port = store.port("p", &key("A")).unwrap();
    let error = store.port("p", &key("B")).unwrap_err();
    assert!(
        matches!(&error, Error::PortExists { key, asked, .. } if key == "A" && asked == "B"),
        "{error}"
    );
    for error in [
        store.port("p", &key("a")).unwrap_err(),
        store.open_port("p").unwrap_err(),
        store.remove_port("p").unwrap_err(),
    ] {
        assert!(matches!(error, Error::PortInUse { .. }), "{error}");
    }
    port.close();
    assert!(matches!(port.try_get().unwrap_err(), Error::PortClosed { .. }));
    drop(port);
    assert_eq!(
        store.port("p", &key("a")).unwrap().key().as_str(),
        "A",
        "as it was given first"
    );
    store.remove_port("p").unwrap();
    assert!(store.ports().unwrap().is_empty());
}

#[test]
fn an_acknowledgement_after_a_rewind_or_without_its_port_is_refused() {
    let Fixture {
        store,
        folder: _folder,
    } = Fixture::new();
    let port = store.port("p", &key("A")).unwrap();
    let mut batch = Batch::at(&key("A"));
    batch.set_value("v", Value::dword(2)).unwrap();
    store.commit(batch).unwrap();
    let old = port.get().unwrap();
    port.rewind().unwrap();
    assert!(matches!(
        old.acknowledge().unwrap_err(),
        Error::AcknowledgementRefused { .. }
    ));
    let again = port.get().unwrap();
    assert_eq!(again.batches().next().unwrap().sequence(), 2);
    drop(port);
    assert!(matches!(
        again.acknowledge().unwrap_err(),
        Error::PortClosed { .. }
    ));
    assert_eq!(again.len(), 1, "the view stays valid");
}
