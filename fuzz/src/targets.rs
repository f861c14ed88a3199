//! The targets and their laws.

use clusdb::json::{BatchLine, Reply};
use clusdb::model::{KeyPath, Limits, Overlay, RecordView, State, evaluate};
use clusdb::{Batch, ReadBatch, wire};

use crate::batches::Commands;
use crate::plans;
use crate::reg::SectionKind;
use crate::{json as json_face, reg as reg_face, stores};

/// Frames and segments through recovery: a store whose files were changed opens and works, or is refused by name.
pub fn recovery(data: &[u8]) {
    stores::open_patched(stores::killed(), data);
}

/// Snapshots, notes on ports and the rest of a store that was trimmed: as by `recovery`.
pub fn kept(data: &[u8]) {
    stores::open_patched(stores::trimmed(), data);
}

/// Sidecars: whatever stands in them, the port shows what is its.
pub fn sidecars(data: &[u8]) {
    stores::follow_patched(data);
}

/// Operations with a fault plan, in the simulated environment: what was promised is kept.
pub fn plans(data: &[u8]) {
    plans::run(data);
}

/// Backups: a damaged one is refused and leaves nothing, or is restored to a store that works.
pub fn backup(data: &[u8]) {
    stores::restore_patched(data);
}

/// Record decoding: what is accepted can be walked to its end, and applied again and again.
pub fn record(data: &[u8]) {
    let Ok(view) = RecordView::verify(data) else {
        return;
    };
    assert_eq!(view.changes().count(), view.len());
    let mut once = State::new();
    once.apply(view, 1);
    let mut twice = once.clone();
    twice.apply(view, 1);
    assert!(twice == once, "applying is idempotent");
    assert_eq!(once.digest(), twice.digest());
}

/// Batch evaluation: pure, and what was decided on an overlay is what is decided on the state itself.
pub fn batch(data: &[u8]) {
    let limits = Limits::default();
    let mut commands = Commands::new(data);
    let mut state = State::new();
    for time in 0..8 {
        let group: Vec<_> = (0..3).map_while(|_| commands.next_batch()).collect();
        let mut overlay = Overlay::new(&state);
        let mut applied = state.clone();
        for batch in &group {
            let decided = overlay.evaluate(batch, &limits);
            assert_eq!(decided, evaluate(&applied, batch, &limits));
            let Ok(record) = decided else { continue };
            RecordView::verify(record.payload()).expect("an evaluated record is valid");
            applied.apply(record.view(), time);
            assert_eq!(
                applied.walk("", true).expect("the root").len() as u64,
                applied.key_count() + applied.value_count()
            );
        }
        state = applied;
    }
}

/// The protocol's bytes, as each of the four things that they can be: what is accepted is written as the same bytes, and what is
/// written is read as the same thing.
pub fn wire(data: &[u8]) {
    let key = KeyPath::root();
    if let Ok(batch) = Batch::from_wire(&key, data) {
        let written = batch.to_wire().expect("what was read can be written");
        assert_eq!(written, data);
        let again = Batch::from_wire(&key, &written).expect("what was written can be read");
        assert_eq!(format!("{again:?}"), format!("{batch:?}"));
        _ = evaluate(&State::new(), &batch, &Limits::default());
    }
    if let Ok(batch) = ReadBatch::from_wire(&key, data) {
        let written = batch.to_wire().expect("what was read can be written");
        assert_eq!(written, data);
        assert_eq!(State::new().read(&batch).len(), batch.len());
    }
    if let Ok(replies) = wire::decode_replies(data) {
        let written = wire::encode_replies(&replies).expect("what was read can be written");
        assert_eq!(written, data);
        assert_eq!(wire::decode_replies(&written).as_ref(), Ok(&replies));
    }
    if let Ok(commands) = wire::decode_notification(data) {
        let written = wire::encode_commands(&commands).expect("what was read can be written");
        assert_eq!(written, data);
        assert_eq!(wire::decode_notification(&written).as_ref(), Ok(&commands));
    }
    // And the other way: a batch made from the bytes is read as it was written.
    let mut made = Commands::new(data);
    while let Some(batch) = made.next_batch() {
        let written = batch.to_wire().expect("small data");
        let read = Batch::from_wire(batch.key(), &written).expect("what was written can be read");
        assert_eq!(format!("{read:?}"), format!("{batch:?}"));
    }
}

/// `.reg` files: read, or refused with a line that the file has.
pub fn reg(data: &[u8]) {
    match reg_face::read(data) {
        Err(error) => {
            let lines = data.iter().filter(|byte| b"\r\n".contains(byte)).count() as u64 + 1;
            assert!((1..=lines).contains(&error.line), "{error} of {lines}");
            assert!(!error.to_string().is_empty());
        }
        Ok(sections) => {
            let mut batch = Batch::at(&KeyPath::root());
            for section in sections {
                match section.kind {
                    SectionKind::Delete => _ = batch.delete_key(&section.key),
                    SectionKind::Create(entries) => {
                        _ = batch.create_key(&section.key);
                        for entry in entries {
                            _ = match entry.data {
                                Some(data) => {
                                    let value =
                                        clusdb::Value::new(clusdb::ValueType(data.value_type), data.bytes);
                                    batch.set_value(&entry.name, value).map(|_| ())
                                }
                                None => batch.delete_value(&entry.name).map(|_| ()),
                            };
                        }
                    }
                }
            }
            _ = evaluate(&State::new(), &batch, &Limits::default());
        }
    }
}

/// JSON lines: each is a command or is refused; what was accepted can be evaluated, and shown.
pub fn json(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(reply) = text.parse::<Reply>() {
        assert_eq!(reply.to_string().parse(), Ok(reply));
    }
    let mut line: BatchLine = text.parse().unwrap_or_default();
    for command in text.lines() {
        if line.add(command).is_ok() && line.to_batch().is_err() {
            line = BatchLine::default();
        }
    }
    let Ok(batch) = line.to_batch() else { return };
    let read: BatchLine = line.to_string().parse().expect("a line that was written");
    assert_eq!(
        format!("{:?}", read.to_batch().expect("the same batch")),
        format!("{batch:?}")
    );
    if let Ok(record) = evaluate(&State::new(), &batch, &Limits::default()) {
        for change in record.view().changes() {
            let shown = serde_json::to_string(&json_face::ChangeJson::from(change)).expect("a line of JSON");
            serde_json::from_str::<serde_json::Value>(&shown).expect("JSON that can be read");
        }
    }
}
