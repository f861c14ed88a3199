//! Records: their bytes, what is refused, and decoding beside bincode's.

use super::*;
use crate::model::{State, Value};

fn sample() -> Record {
    let (old, new) = (Value::dword(1), Value::sz("x"));
    let mut record = Record::new();
    record.push_key(CommandKind::CreateKey, "A\\B", true);
    record.push_set_value("A\\B", "v", new.as_ref(), Some(old.as_ref()));
    record.push_delete_value("A", "", None);
    record.push_key(CommandKind::DeleteKey, "A\\B", true);
    record
}

#[test]
fn a_run_holds_consecutive_changes_of_one_key_and_is_never_merged_with_a_later_one() {
    let record = sample();
    let view = record.view();
    let runs: Vec<_> = view.runs().map(|run| (run.key, run.changes().count())).collect();
    assert_eq!(runs, [("A\\B", 2), ("A", 1), ("A\\B", 1)]);
    assert_eq!(view.len(), 4);
    let kinds: Vec<_> = view.changes().map(|change| change.kind() as u8).collect();
    assert_eq!(kinds, [2, 1, 4, 3]);
}

/// The layout of `docs/format.md`, written by hand.
#[test]
fn a_record_has_the_documented_bytes() {
    let value = Value::dword(7);
    let mut record = Record::new();
    record.push_set_value("K", "n", value.as_ref(), None);
    let expected = [
        &[1, 0, 0, 0, 1, 0, 0, 0][..],         // one run, one change
        &[0],                                  // nothing acknowledged
        &[1, 0, 0, 0, 0, 0, 0, 0, b'K'],       // the run's key
        &[1, 0, 0, 0, 29, 0, 0, 0],            // its changes and their bytes
        &[1, 1],                               // SET_VALUE, changed
        &[1, 0, 0, 0, 0, 0, 0, 0, b'n'],       // the value's name
        &[1, 4, 0, 0, 0],                      // a value, DWORD
        &[4, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0], // its data
        &[0],                                  // nothing before
    ]
    .concat();
    assert_eq!(record.payload(), expected);
}

#[test]
fn a_record_may_acknowledge_and_change_nothing() {
    let acknowledgement = Acknowledgement {
        port_id: [9; 16],
        sequence: 258,
    };
    let record = Record::with_capacity(0, Some(acknowledgement));
    let expected = [&[0; 8][..], &[1], &[9; 16], &[2, 1, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(record.payload(), expected);
    let view = RecordView::verify(record.payload()).unwrap();
    assert_eq!(view.acknowledgement(), Some(acknowledgement));
    assert!(!view.is_empty());
    assert_eq!((view.len(), view.changes().count()), (0, 0));
    assert!(Record::new().view().is_empty());
}

#[test]
fn every_cut_and_every_flipped_byte_is_refused_or_walks_without_failing() {
    let payload = sample().payload().to_vec();
    for cut in 0..payload.len() {
        assert!(RecordView::verify(&payload[..cut]).is_err(), "cut at {cut}");
    }
    for offset in 0..payload.len() {
        for bit in 0..8 {
            let mut flipped = payload.clone();
            flipped[offset] ^= 1 << bit;
            if let Ok(view) = RecordView::verify(&flipped) {
                assert_eq!(view.changes().count(), view.len());
            }
        }
    }
}

/// No batch makes such a record; a state that applied it would lose its root, or keys that nothing leads to.
#[test]
fn a_record_of_a_path_that_cannot_be_or_that_deletes_the_root_is_refused() {
    for key in ["\\", "A\\", "A\\\\B", "A\0"] {
        let mut record = Record::new();
        record.push_key(CommandKind::CreateKey, key, true);
        let error = RecordView::verify(record.payload()).unwrap_err();
        assert_eq!(error.expected, "a run of a key with a valid path", "{key:?}");
    }
    for (kind, is_valid) in [(CommandKind::CreateKey, true), (CommandKind::DeleteKey, false)] {
        let mut record = Record::new();
        record.push_key(kind, "", false);
        assert_eq!(RecordView::verify(record.payload()).is_ok(), is_valid, "{kind:?}");
    }
}

/// No batch makes such a record either: the second change says that the value is there, and the first, that it is not.
#[test]
fn a_record_that_contradicts_itself_is_applied_again_without_a_difference() {
    let value = Value::dword(7);
    let mut record = Record::new();
    record.push_delete_value("", "v", None);
    record.push_set_value("", "v", value.as_ref(), Some(value.as_ref()));
    let view = RecordView::verify(record.payload()).unwrap();
    let mut once = State::new();
    once.apply(view, 1);
    let mut twice = once.clone();
    twice.apply(view, 1);
    assert_eq!((&twice, twice.digest()), (&once, once.digest()));
}

#[test]
fn a_record_that_sets_another_value_and_says_that_nothing_changed_is_refused() {
    let (old, new) = (Value::dword(1), Value::dword(2));
    for (previous, changed) in [(None, false), (Some(&old), false)] {
        let mut record = Record::new();
        record.push(Change {
            kind: CommandKind::SetValue,
            key: "K",
            name: "v",
            value: Some(new.as_ref()),
            previous: previous.map(Value::as_ref),
            changed,
        });
        assert!(
            RecordView::verify(record.payload()).is_err(),
            "{previous:?}, {changed}"
        );
    }
}

fn by_bincode<'a, T: BorrowDecode<'a, ()>>(bytes: &mut &'a [u8]) -> Option<T> {
    let (value, length) = bincode::borrow_decode_from_slice(bytes, ENCODING).ok()?;
    *bytes = bytes.get(length..)?;
    Some(value)
}

fn change_by_bincode<'a>(key: &'a str, bytes: &mut &'a [u8]) -> Option<Change<'a>> {
    let encoded: ChangeBytes<'a> = by_bincode(bytes)?;
    let value = |value: ValueBytes<'a>| ValueRef {
        value_type: crate::model::ValueType(value.value_type),
        data: value.data,
    };
    Some(Change {
        kind: CommandKind::from_recorded(encoded.command)?,
        key,
        name: encoded.name,
        value: encoded.value.map(value),
        previous: encoded.previous.map(value),
        changed: encoded.changed,
    })
}

/// A record part by part, by hand and by bincode, for as long as they go.
fn decode_both_ways(bytes: &[u8]) {
    let (mut by_hand, mut reference) = (Decoder::new(bytes), bytes);
    let head = by_hand.record_head();
    let head = head.map(|head| (head.runs, head.changes, head.acknowledgement));
    let expected = by_bincode::<HeadBytes>(&mut reference).map(|head| {
        let acknowledged = head.acknowledgement.map(|own| (own.port_id, own.sequence));
        (head.runs, head.changes, acknowledged)
    });
    assert_eq!(head, expected);
    while head.is_some() {
        let run = by_hand.run_head().map(|run| (run.key, run.changes, run.bytes));
        let expected = by_bincode::<RunBytes<'_>>(&mut reference);
        assert_eq!(run, expected.map(|run| (run.key, run.changes, run.bytes)));
        let Some((key, changes, _)) = run else { return };
        for _ in 0..changes {
            let change = by_hand.change().and_then(|change| change.of_key(key));
            assert_eq!(change, change_by_bincode(key, &mut reference));
            if change.is_none() {
                return;
            }
        }
        assert_eq!(by_hand.rest, reference);
    }
}

#[test]
fn a_record_is_decoded_as_bincode_does_it_cut_and_with_each_bit_flipped() {
    let (old, new) = (Value::binary(*b"old"), Value::sz("new"));
    let acknowledgement = Acknowledgement {
        port_id: [9; 16],
        sequence: 258,
    };
    for acknowledgement in [None, Some(acknowledgement)] {
        let mut record = Record::with_capacity(0, acknowledgement);
        record.push_set_value("K\\ß", "ß and n", new.as_ref(), Some(old.as_ref()));
        record.push_set_value("K\\ß", "", old.as_ref(), None);
        record.push_delete_value("K", "n", Some(new.as_ref()));
        record.push_key(CommandKind::DeleteKey, "K", true);
        let payload = record.payload();
        for cut in 0..=payload.len() {
            decode_both_ways(&payload[..cut]);
        }
        for at in 0..payload.len() {
            for bit in 0..8 {
                let mut flipped = payload.to_vec();
                flipped[at] ^= 1 << bit;
                decode_both_ways(&flipped);
            }
        }
    }
}

#[test]
fn a_malformed_record_names_the_offset_and_what_should_stand_there() {
    let mut payload = sample().payload().to_vec();
    payload.push(0);
    let error = RecordView::verify(&payload).unwrap_err();
    assert_eq!(error.offset, payload.len() - 1);
    assert_eq!(error.expected, "the end of the record");
}
