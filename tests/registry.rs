//! The rules of the registry, one by one, through the store: each test quotes the section of the specification that it is
//! about. `docs/registry.md` has the table of rules and tests.

use clusdb::{
    AcknowledgementRefusal, Batch, CommandKind, ConditionKind, Control, Entry, Error, KeyPath, Port,
    ReadBatch, Store, Value, ValueType, codes,
};

fn path(text: &str) -> KeyPath {
    KeyPath::parse(text).unwrap()
}

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    (folder, store)
}

/// Commits a batch at this key.
fn commit(store: &Store, key: &str, commands: impl FnOnce(&mut Batch) -> Result<(), Error>) -> Option<u64> {
    try_commit(store, key, commands).unwrap()
}

fn try_commit(
    store: &Store,
    key: &str,
    commands: impl FnOnce(&mut Batch) -> Result<(), Error>,
) -> Result<Option<u64>, Error> {
    let mut batch = Batch::at(&path(key));
    commands(&mut batch)?;
    Ok(store.commit(batch)?.sequence())
}

/// What is pending on a port, in the registry's own stream: `sequence command key|name data`, `=` for what changed nothing.
fn stream(port: &Port) -> Vec<String> {
    let Some(notification) = port.try_get().unwrap() else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for batch in notification.batches() {
        for change in batch.commands() {
            let mut line = format!("{} {} {}", batch.sequence(), change.kind().name(), change.key());
            if let Some(name) = change.name() {
                line += &format!("|{name}");
            }
            if let Some(value) = change.value() {
                line += &format!(" {value}");
            }
            if !change.changed() {
                line += " =";
            }
            lines.push(line);
        }
    }
    lines
}

fn index_of(error: &Error) -> usize {
    match error {
        Error::Batch(error) => error.index,
        other => panic!("{other}"),
    }
}

/// Section 1: "Only batches notify. A plain write changes the registry, is as durable as a batch, and never appears."
#[test]
fn only_batches_notify() {
    let (folder, store) = open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    let key = path("K");
    assert!(store.create_key(&key).unwrap());
    store.set_value(&key, "v", Value::dword(1)).unwrap();
    store.set_value(&key, "w", Value::dword(2)).unwrap();
    store.delete_value(&key, "w").unwrap();
    store.create_key(&path("K\\L")).unwrap();
    store.delete_key(&path("K\\L")).unwrap();
    assert_eq!(stream(&port), Vec::<String>::new());
    commit(&store, "K", |batch| {
        batch.set_value("v", Value::dword(3))?;
        Ok(())
    });
    let expected = ["7 value_deleted K|v dword 1", "7 set_value K|v dword 3"];
    assert_eq!(
        stream(&port),
        expected,
        "the old data is what the plain write left"
    );
    drop(port);
    store.close().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    assert_eq!(store.get(&key, "v").unwrap(), Some(Value::dword(3)));
    let log = store.log(1..=9).unwrap();
    let plain: Vec<_> = log.batches().map(|batch| batch.is_plain()).collect();
    assert_eq!(plain, [true, true, true, true, true, true, false]);
}

/// Section 1: "A port opened at time T sees only batches committed after T. No initial contents."
#[test]
fn a_port_shows_only_what_is_committed_after_it_was_opened() {
    let (_folder, store) = open();
    let create = |name: &'static str| {
        commit(&store, "", move |batch| {
            batch.create_key(name)?;
            Ok(())
        })
    };
    create("Before");
    let port = store.port("p", &KeyPath::root()).unwrap();
    assert_eq!(stream(&port), Vec::<String>::new());
    create("After");
    assert_eq!(stream(&port), ["2 create_key After"]);
    assert_eq!(stream(&port), Vec::<String>::new());
}

/// Section 1: "A batch that failed notifies nobody." Section 2: "All or nothing: the first failing command undoes the batch;
/// its index (from 0) is reported."
#[test]
fn a_batch_that_failed_changes_nothing_and_notifies_nobody() {
    let (_folder, store) = open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    let failed = try_commit(&store, "A", |batch| {
        batch.create_key("")?.set_value("v", Value::dword(1))?;
        batch.condition_not_exists("v")?.set_value("w", Value::dword(1))?;
        batch.condition_exists("nothing")?;
        Ok(())
    });
    let error = failed.unwrap_err();
    assert_eq!(index_of(&error), 2, "the first that fails");
    assert_eq!(
        error.code(),
        codes::ERROR_CLUSTER_DATABASE_UPDATE_CONDITION_FAILED
    );
    assert!(!store.contains(&path("A")).unwrap());
    assert_eq!(store.stat().unwrap().durable_sequence, 0);
    assert_eq!(stream(&port), Vec::<String>::new());
}

/// Section 1, ours: "one notification holds every batch since the last call, in commit order, with the batch boundaries
/// visible".
#[test]
fn one_notification_holds_every_batch_since_the_last_call_with_its_boundaries() {
    let (_folder, store) = open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    for name in ["A", "B", "C"] {
        commit(&store, "", |batch| {
            batch.create_key(name)?.create_key("D")?;
            Ok(())
        });
    }
    let notification = port.get().unwrap();
    let batches: Vec<_> = notification
        .batches()
        .map(|batch| (batch.sequence(), batch.changes().count()))
        .collect();
    assert_eq!(batches, [(1, 2), (2, 2), (3, 2)]);
}

/// Section 2, the table: "numbers are part of the contract".
#[test]
fn commands_and_conditions_have_the_registrys_numbers() {
    use CommandKind::{CreateKey, DeleteKey, DeleteValue, SetValue, ValueDeleted};
    let changes = [SetValue, CreateKey, DeleteKey, DeleteValue, ValueDeleted];
    assert_eq!(changes.map(|kind| kind as u32), [1, 2, 3, 4, 6]);
    use ConditionKind::{
        Exists, IsEqual, IsGreaterThan, IsLessThan, IsNotEqual, KeyExists, KeyNotExists, NotExists,
    };
    let conditions = [
        Exists,
        NotExists,
        IsEqual,
        IsNotEqual,
        IsGreaterThan,
        IsLessThan,
        KeyExists,
        KeyNotExists,
    ];
    assert_eq!(
        conditions.map(|kind| kind as u32),
        [11, 12, 13, 14, 15, 16, 17, 18]
    );
    assert_eq!([Control::Synchronous as u32, Control::Isolated as u32], [1, 2]);
    let types = [
        ValueType::NONE,
        ValueType::SZ,
        ValueType::EXPAND_SZ,
        ValueType::BINARY,
        ValueType::DWORD,
        ValueType::DWORD_BIG_ENDIAN,
        ValueType::LINK,
        ValueType::MULTI_SZ,
        ValueType::QWORD,
    ];
    assert_eq!(types.map(|value_type| value_type.0), [0, 1, 2, 3, 4, 5, 6, 7, 11]);
}

/// Section 2: CREATE_KEY: "create, or open if it exists (never an error); becomes the current key". "CREATE_KEY makes missing
/// parents; it stays one command." Section 3: "CREATE_KEY of an existing key is shown as well."
#[test]
fn create_key_makes_or_opens_a_key_with_its_parents_and_makes_it_current() {
    let (_folder, store) = open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    for _ in 0..2 {
        commit(&store, "", |batch| {
            batch.create_key("A\\B\\C")?.set_value("v", Value::dword(1))?;
            Ok(())
        });
    }
    let expected = [
        "1 create_key A\\B\\C",
        "1 set_value A\\B\\C|v dword 1",
        "2 create_key A\\B\\C =",
        "2 value_deleted A\\B\\C|v dword 1 =",
        "2 set_value A\\B\\C|v dword 1 =",
    ];
    assert_eq!(stream(&port), expected);
    assert!(store.contains(&path("A\\B")).unwrap());
}

/// Section 2: DELETE_KEY is "recursive; a missing key is not an error; clears the current key". Section 3: "DELETE_KEY is one
/// command, not one for each lost value"; of a missing key it is shown as well.
#[test]
fn delete_key_takes_all_below_in_one_command_and_a_missing_key_is_no_error() {
    let (_folder, store) = open();
    commit(&store, "A", |batch| {
        batch.create_key("B\\C")?.set_value("v", Value::dword(1))?;
        batch.create_key("")?.set_value("w", Value::dword(1))?;
        Ok(())
    });
    let port = store.port("p", &KeyPath::root()).unwrap();
    let delete = || {
        commit(&store, "", |batch| {
            batch.delete_key("A")?;
            Ok(())
        })
    };
    delete();
    delete();
    assert_eq!(stream(&port), ["2 delete_key A", "3 delete_key A ="]);
    for key in ["A", "A\\B", "A\\B\\C"] {
        assert!(!store.contains(&path(key)).unwrap(), "{key}");
    }
    let mut batch = Batch::at(&KeyPath::root());
    batch.delete_key("A").unwrap();
    let refused = batch.set_value("v", Value::dword(1)).unwrap_err();
    assert_eq!(Error::from(refused).code(), codes::ERROR_INVALID_PARAMETER);
}

/// Section 2: DELETE_VALUE: "a missing value is not an error". Section 3: "Nothing is merged: every command appears, also a
/// DELETE_VALUE that found nothing and a SET that changed nothing."
#[test]
fn nothing_is_merged_and_what_changed_nothing_is_shown_with_a_flag() {
    let (_folder, store) = open();
    commit(&store, "A", |batch| {
        batch.create_key("")?.set_value("v", Value::dword(1))?;
        Ok(())
    });
    let port = store.port("p", &KeyPath::root()).unwrap();
    commit(&store, "A", |batch| {
        batch.delete_value("nothing")?.set_value("v", Value::dword(1))?;
        batch
            .set_value("v", Value::dword(2))?
            .set_value("v", Value::dword(1))?;
        batch.create_key("")?;
        Ok(())
    });
    let expected = [
        "2 delete_value A|nothing =",
        "2 value_deleted A|v dword 1 =",
        "2 set_value A|v dword 1 =",
        "2 value_deleted A|v dword 1",
        "2 set_value A|v dword 2",
        "2 value_deleted A|v dword 2",
        "2 set_value A|v dword 1",
        "2 create_key A =",
    ];
    assert_eq!(stream(&port), expected);
}

/// Section 2: CONTROL_COMMAND; every commit is synchronous and isolated. Section 3: "Conditions and control commands: not
/// shown (they change nothing)."
#[test]
fn conditions_and_control_commands_are_accepted_and_not_shown() {
    let (_folder, store) = open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    commit(&store, "A", |batch| {
        batch.control(Control::Synchronous).control(Control::Isolated);
        batch
            .condition_key_not_exists("")?
            .create_key("")?
            .condition_key_exists("")?;
        Ok(())
    });
    assert_eq!(stream(&port), ["1 create_key A"]);
    let nothing = commit(&store, "A", |batch| {
        batch.control(Control::Isolated);
        Ok(())
    });
    assert_eq!(nothing, None);
}

/// Section 2, ours: the base of paths is "the batch key (the only reading that works after DELETE_KEY)"; `""` is the batch
/// key; "a batch's key need not exist until a command needs it"; "a trailing `\` is refused".
#[test]
fn paths_are_relative_to_the_batch_key_whatever_the_current_key_is() {
    let (_folder, store) = open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    commit(&store, "A", |batch| {
        batch.condition_key_not_exists("")?.delete_value("v")?;
        batch
            .create_key("B")?
            .create_key("C")?
            .condition_key_exists("B")?;
        batch.delete_key("B")?.create_key("D")?.delete_key("")?;
        Ok(())
    });
    let expected = [
        "1 delete_value A|v =",
        "1 create_key A\\B",
        "1 create_key A\\C",
        "1 delete_key A\\B",
        "1 create_key A\\D",
        "1 delete_key A",
    ];
    assert_eq!(stream(&port), expected);
    let mut batch = Batch::at(&path("A"));
    for refused in ["B\\", "\\B", "B\\\\C", "\\"] {
        let error = Error::from(batch.create_key(refused).unwrap_err());
        assert_eq!(error.code(), codes::ERROR_INVALID_PARAMETER, "{refused}");
    }
}

/// Section 2, ours: "SET_VALUE is error 2 with its index; DELETE_VALUE finds nothing, which is no error"; "the root itself
/// can't be deleted (error 5), and may hold values".
#[test]
fn set_value_needs_its_key_and_the_root_is_always_there() {
    let (_folder, store) = open();
    let error = try_commit(&store, "A", |batch| {
        batch.delete_value("v")?.set_value("v", Value::dword(1))?;
        Ok(())
    })
    .unwrap_err();
    assert_eq!((index_of(&error), error.code()), (1, codes::ERROR_FILE_NOT_FOUND));
    let mut batch = Batch::at(&KeyPath::root());
    let error = Error::from(batch.delete_key("").unwrap_err());
    assert_eq!(error.code(), codes::ERROR_ACCESS_DENIED);
    batch.set_value("", Value::sz("of the root")).unwrap();
    store.commit(batch).unwrap();
    assert_eq!(
        store.get(&KeyPath::root(), "").unwrap(),
        Some(Value::sz("of the root"))
    );
}

/// Section 3: "preceded by VALUE_DELETED with the old data. A value of length zero counts as having data"; "VALUE_DELETED
/// carries the old type too".
#[test]
fn the_old_data_comes_before_each_command_with_its_type_and_of_length_zero_too() {
    let (_folder, store) = open();
    let port = store.port("p", &path("A")).unwrap();
    commit(&store, "A", |batch| {
        batch
            .create_key("")?
            .set_value("v", Value::new(ValueType::LINK, *b""))?;
        batch.set_value("v", Value::dword(1))?.delete_value("v")?;
        Ok(())
    });
    let expected = [
        "1 create_key A",
        "1 set_value A|v link",
        "1 value_deleted A|v link",
        "1 set_value A|v dword 1",
        "1 value_deleted A|v dword 1",
        "1 delete_value A|v",
    ];
    assert_eq!(
        stream(&port)
            .iter()
            .map(|line| line.trim_end())
            .collect::<Vec<_>>(),
        expected
    );
}

/// Section 3: "Names are shown as they are stored; writing an existing value or opening an existing key under another
/// spelling keeps the stored one."
#[test]
fn names_are_shown_as_they_are_stored() {
    let (_folder, store) = open();
    commit(&store, "", |batch| {
        batch.create_key("Straße")?.set_value("Größe", Value::dword(1))?;
        Ok(())
    });
    let port = store.port("p", &path("STRAßE")).unwrap();
    commit(&store, "", |batch| {
        batch.create_key("sTRAßE")?.set_value("GRÖßE", Value::dword(2))?;
        batch.delete_value("größe")?.delete_value("NICHTS")?;
        Ok(())
    });
    let expected = [
        "2 create_key Straße =",
        "2 value_deleted Straße|Größe dword 1",
        "2 set_value Straße|Größe dword 2",
        "2 value_deleted Straße|Größe dword 2",
        "2 delete_value Straße|Größe",
        "2 delete_value Straße|NICHTS =",
    ];
    assert_eq!(stream(&port), expected);
}

/// Section 3, ours: "the port sees the commands inside, under the batch's sequence number; a batch with none inside is not
/// shown". "A port's key need not exist when the port is opened."
#[test]
fn a_port_sees_of_a_batch_what_lies_in_its_subtree() {
    let (_folder, store) = open();
    let port = store.port("p", &path("A\\B")).unwrap();
    commit(&store, "", |batch| {
        batch.create_key("A")?.set_value("v", Value::dword(1))?;
        batch.create_key("A\\B")?.set_value("v", Value::dword(2))?;
        batch.create_key("A\\Bx")?.set_value("v", Value::dword(3))?;
        batch.create_key("A\\B\\C")?;
        Ok(())
    });
    commit(&store, "A\\Bx", |batch| {
        batch.set_value("v", Value::dword(4))?;
        Ok(())
    });
    commit(&store, "A\\B\\C", |batch| {
        batch.set_value("v", Value::dword(5))?;
        Ok(())
    });
    let expected = [
        "1 create_key A\\B",
        "1 set_value A\\B|v dword 2",
        "1 create_key A\\B\\C",
        "3 set_value A\\B\\C|v dword 5",
    ];
    assert_eq!(stream(&port), expected);
}

/// Section 3, ours: "DELETE_KEY of an ancestor of the port's key: shown, since everything below is gone. The port lives on,
/// and sees the key being created again."
#[test]
fn a_deleted_ancestor_is_shown_below_it_and_the_port_sees_the_key_created_again() {
    let (_folder, store) = open();
    commit(&store, "", |batch| {
        batch.create_key("A\\B\\C")?.set_value("v", Value::dword(1))?;
        Ok(())
    });
    let port = store.port("p", &path("A\\B\\C")).unwrap();
    commit(&store, "", |batch| {
        batch.delete_key("a")?;
        Ok(())
    });
    commit(&store, "", |batch| {
        batch.create_key("A\\B")?;
        Ok(())
    });
    commit(&store, "", |batch| {
        batch.delete_key("A\\B\\Cx")?.create_key("A\\B\\C")?;
        batch.delete_key("A\\B\\C")?;
        Ok(())
    });
    commit(&store, "A\\B\\C", |batch| {
        batch.create_key("")?;
        Ok(())
    });
    let expected = [
        "2 delete_key A",
        "4 create_key A\\B\\C",
        "4 delete_key A\\B\\C",
        "5 create_key A\\B\\C",
    ];
    assert_eq!(stream(&port), expected);
}

/// Section 3: several ports on one key, each with a cursor of its own.
#[test]
fn several_ports_on_one_key_do_not_take_from_one_another() {
    let (_folder, store) = open();
    let (one, other) = (
        store.port("one", &path("A")).unwrap(),
        store.port("other", &path("a")).unwrap(),
    );
    for number in 0..3 {
        commit(&store, "A", |batch| {
            batch.create_key("")?.set_value("v", Value::dword(number))?;
            Ok(())
        });
        if number == 0 {
            one.get().unwrap().acknowledge().unwrap();
        }
    }
    assert_eq!(stream(&one).len() + 2, stream(&other).len());
    assert_eq!((one.acknowledged(), other.acknowledged()), (1, 0));
}

/// Two threads on one port: each batch goes to one of them, and what is saved has nothing open before it.
#[test]
fn two_threads_on_one_port_share_the_batches_between_them() {
    let (_folder, store) = open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    let total = 200;
    let seen: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let port = port.clone();
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    loop {
                        let got = match port.get() {
                            Ok(got) => got,
                            Err(Error::PortClosed { .. }) => return seen,
                            Err(error) => panic!("{error}"),
                        };
                        seen.extend(got.batches().map(|batch| batch.sequence()));
                        match got.acknowledge() {
                            Ok(()) | Err(Error::PortClosed { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        for number in 0..total {
            commit(&store, "", |batch| {
                batch.set_value("v", Value::dword(number))?;
                Ok(())
            });
        }
        while port.acknowledged() < u64::from(total) {
            std::thread::yield_now();
        }
        port.close();
        takers.into_iter().map(|taker| taker.join().unwrap()).collect()
    });
    assert!(seen.iter().all(|seen| seen.is_sorted()), "each in order");
    let mut all = seen.concat();
    all.sort_unstable();
    assert_eq!(all, (1..=u64::from(total)).collect::<Vec<_>>());
}

/// Section 3: "Text and data stay valid until the notification is closed, also after later gets and after the port is closed."
#[test]
fn a_notification_stays_valid_after_later_gets_and_after_its_port() {
    let (_folder, store) = open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    let set = |number| {
        commit(&store, "", |batch| {
            batch.set_value("v", Value::dword(number))?;
            Ok(())
        })
    };
    set(1);
    let first = port.get().unwrap();
    let batch = first.batches().next().unwrap();
    let change = batch.changes().next().unwrap();
    set(2);
    port.get().unwrap().acknowledge().unwrap();
    port.close();
    drop(port);
    store.close().unwrap();
    assert_eq!(change.value().unwrap().to_value(), Value::dword(1));
}

/// Section 4: "Each added (subkey, value name) gives exactly one reply, in the same order: type and data, or an error code of
/// its own (2 = not found). Subkey empty = the batch key, name empty = the default value."
#[test]
fn a_read_batch_gives_one_reply_for_each_read_in_order() {
    let (_folder, store) = open();
    commit(&store, "A", |batch| {
        batch.create_key("")?.set_value("", Value::sz("default"))?;
        batch.create_key("B")?.set_value("v", Value::dword(1))?;
        Ok(())
    });
    let mut reads = ReadBatch::at(&path("A"));
    for (subkey, name) in [("B", "V"), ("", ""), ("nil", "v"), ("", "nil"), ("b", "v")] {
        reads.add(subkey, name).unwrap();
    }
    let replies: Vec<_> = store.read(&reads).unwrap();
    let results: Vec<_> = replies
        .iter()
        .map(|reply| clusdb::wire::WireReply::from(reply).result)
        .collect();
    let expected = [
        Ok(Value::dword(1)),
        Ok(Value::sz("default")),
        Err(codes::ERROR_FILE_NOT_FOUND),
        Err(codes::ERROR_FILE_NOT_FOUND),
        Ok(Value::dword(1)),
    ];
    assert_eq!(results, expected);
}

/// Section 5: "CreateKey/OpenKey (created/opened is reported) · DeleteKey (error 5 if subkeys exist; values do not block) ·
/// DeleteValue (missing: error 2)".
#[test]
fn plain_calls_report_what_the_registry_reports() {
    let (_folder, store) = open();
    let code = |result: Result<clusdb::Commit, Error>| result.unwrap_err().code();
    assert!(store.create_key(&path("A\\B")).unwrap(), "created");
    assert!(!store.create_key(&path("a\\b")).unwrap(), "opened");
    assert_eq!(code(store.delete_key(&path("A"))), codes::ERROR_ACCESS_DENIED);
    store.set_value(&path("A\\B"), "v", Value::dword(1)).unwrap();
    store.delete_key(&path("A\\B")).unwrap();
    assert_eq!(code(store.delete_key(&path("A\\B"))), codes::ERROR_FILE_NOT_FOUND);
    assert_eq!(
        code(store.delete_value(&path("A"), "v")),
        codes::ERROR_FILE_NOT_FOUND
    );
    assert_eq!(
        code(store.delete_value(&path("nil"), "v")),
        codes::ERROR_FILE_NOT_FOUND
    );
    assert_eq!(
        code(store.set_value(&path("nil"), "v", Value::dword(1))),
        codes::ERROR_FILE_NOT_FOUND
    );
    assert_eq!(
        code(store.delete_key(&KeyPath::root())),
        codes::ERROR_ACCESS_DENIED
    );
}

/// Section 5: "QueryValue (no buffer: success and the size; too small: 234 and the size; missing: 2)".
#[test]
fn query_value_tells_the_size_and_fills_the_callers_buffer() {
    let (_folder, store) = open();
    store.create_key(&path("A")).unwrap();
    store.set_value(&path("A"), "v", Value::qword(7)).unwrap();
    let query = |name: &str, buffer: Option<&mut [u8]>| store.query_value(&path("a"), name, buffer);
    assert_eq!(query("V", None).unwrap(), (ValueType::QWORD, 8));
    let mut small = [9; 7];
    let error = query("V", Some(&mut small)).unwrap_err();
    assert_eq!(error.code(), codes::ERROR_MORE_DATA);
    assert!(
        matches!(error, Error::BufferTooSmall { needed: 8, given: 7 }),
        "{error}"
    );
    assert_eq!(small, [9; 7], "nothing was written");
    let mut large = [9; 10];
    assert_eq!(query("V", Some(&mut large)).unwrap(), (ValueType::QWORD, 8));
    assert_eq!(large, [7, 0, 0, 0, 0, 0, 0, 0, 9, 9]);
    assert_eq!(
        query("nil", None).unwrap_err().code(),
        codes::ERROR_FILE_NOT_FOUND
    );
    let missing = store.query_value(&path("nil"), "v", None).unwrap_err();
    assert_eq!(missing.code(), codes::ERROR_FILE_NOT_FOUND);
}

/// Section 5: "EnumKey / EnumValue (index 0..n-1 in any stable order; end: 259)", and as iterators.
#[test]
fn keys_and_values_are_enumerated_by_iterators_as_by_index() {
    let (_folder, store) = open();
    let key = path("A");
    commit(&store, "A", |batch| {
        for name in ["b", "A", "ß", "c"] {
            batch.create_key(name)?;
        }
        batch
            .create_key("")?
            .set_value("y", Value::dword(1))?
            .set_value("X", Value::dword(2))?;
        Ok(())
    });
    let keys: Vec<_> = store.subkeys(&key).unwrap().collect();
    assert_eq!(
        keys.iter().map(KeyPath::as_str).collect::<Vec<_>>(),
        ["A\\A", "A\\b", "A\\c", "A\\ß"]
    );
    assert_eq!(store.subkeys(&key).unwrap().len(), 4);
    for (index, expected) in keys.iter().enumerate() {
        let found = store.subkey(&key, index).unwrap().unwrap();
        assert_eq!(found.as_str(), expected.as_str());
    }
    assert_eq!(store.subkey(&key, 4).unwrap(), None);
    let values: Vec<_> = store.values(&key).unwrap().collect();
    let names: Vec<_> = values
        .iter()
        .map(|entry| match entry {
            Entry::Value { name, .. } => &**name,
            Entry::Key { .. } => panic!("{entry:?}"),
        })
        .collect();
    assert_eq!(names, ["X", "y"]);
    for (index, expected) in values.iter().enumerate() {
        assert_eq!(store.value(&key, index).unwrap().as_ref(), Some(expected));
    }
    assert_eq!(store.value(&key, 2).unwrap(), None);
    let missing = path("nil");
    assert!(matches!(store.subkeys(&missing), Err(Error::KeyNotFound { .. })));
    assert!(matches!(store.values(&missing), Err(Error::KeyNotFound { .. })));
}

/// Section 6: "Value names may contain `\`", "any other number is kept as it is", "an SZ without its NUL is stored and given
/// back so".
#[test]
fn names_with_backslashes_unknown_types_and_odd_data_are_kept_as_they_are() {
    let (_folder, store) = open();
    let odd = [
        ("a\\b\\", Value::new(ValueType(4_000_000_000), *b"x")),
        ("no nul", Value::new(ValueType::SZ, *b"a\0b\0")),
        ("odd", Value::new(ValueType::MULTI_SZ, *b"abc")),
        ("short", Value::new(ValueType::DWORD, *b"ab")),
    ];
    commit(&store, "A", |batch| {
        batch.create_key("")?;
        for (name, value) in &odd {
            batch.set_value(name, value.clone())?;
        }
        Ok(())
    });
    for (name, value) in odd {
        assert_eq!(store.get(&path("A"), name).unwrap(), Some(value), "{name}");
    }
    assert!(
        !store.contains(&path("A\\a")).unwrap(),
        "a value's name is no path"
    );
}

/// Section 8: "a double close after an error crashing"; "the caller's buffers kept instead of copied when a command is added".
#[test]
fn closing_twice_is_no_error_and_a_command_keeps_a_copy_of_what_it_was_given() {
    let (_folder, store) = open();
    let mut buffer = *b"kept";
    let mut batch = Batch::at(&KeyPath::root());
    batch.set_value("v", Value::binary(&buffer[..])).unwrap();
    buffer.fill(0);
    store.commit(batch).unwrap();
    assert_eq!(
        store.get(&KeyPath::root(), "v").unwrap(),
        Some(Value::binary(*b"kept"))
    );
    let port = store.port("p", &KeyPath::root()).unwrap();
    port.close();
    port.close();
    assert_eq!(port.try_get().unwrap_err().code(), codes::ERROR_NO_MORE_ITEMS);
    store.close().unwrap();
    store.close().unwrap();
    assert_eq!(
        store.get(&KeyPath::root(), "v").unwrap_err().code(),
        codes::ERROR_INVALID_HANDLE
    );
}

/// A refusal says which of its reasons it is.
#[test]
fn a_refused_acknowledgement_has_its_code_and_its_reason() {
    let (_folder, store) = open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    commit(&store, "", |batch| {
        batch.set_value("v", Value::dword(1))?;
        Ok(())
    });
    let got = port.get().unwrap();
    port.rewind().unwrap();
    let error = got.acknowledge().unwrap_err();
    assert_eq!(error.code(), codes::ERROR_INVALID_OPERATION);
    assert!(matches!(
        error,
        Error::AcknowledgementRefused {
            reason: AcknowledgementRefusal::Superseded,
            ..
        }
    ));
}
