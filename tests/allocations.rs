//! What allocates nothing, counted by an allocator: walking a notification, for 1,000,000 changes; a get.

use clusdb::{AsValueName, Batch, KeyPath, Store, Value, ValueName};

const BATCHES: u64 = 1000;
const CHANGES: u64 = 1_000_000;

fn store_with_pending_changes(folder: &tempfile::TempDir) -> (Store, clusdb::Port) {
    let store = Store::open(folder.path().join("store")).unwrap();
    let port = store.port("p", &KeyPath::parse("Cluster").unwrap()).unwrap();
    for number in 0..BATCHES {
        let mut batch = Batch::at(&KeyPath::parse(&format!("Cluster\\Key{}", number % 10)).unwrap());
        batch.create_key("").unwrap();
        for name in 1..CHANGES / BATCHES {
            batch
                .set_value(&format!("value{name}"), Value::qword(number))
                .unwrap();
        }
        store.commit(batch).unwrap();
    }
    (store, port)
}

#[test]
fn a_million_pending_changes_are_got_and_walked_with_a_handful_of_allocations() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, port) = store_with_pending_changes(&folder);
    let mut notification = None;
    // The first also makes the index of what nobody has asked for before: some lists that grow.
    let first = allocation_counter::measure(|| notification = port.try_get().unwrap());
    port.rewind().unwrap();
    let get = allocation_counter::measure(|| notification = port.try_get().unwrap());
    let notification = notification.unwrap();
    let mut seen = (0, 0, 0);
    let walk = allocation_counter::measure(|| {
        for batch in notification.batches() {
            seen.0 += 1;
            for change in batch.changes() {
                seen.1 += 1;
                let bytes = change.value().map_or(0, |value| value.data.len());
                seen.2 += change.key().len() + change.name().map_or(0, str::len) + bytes;
            }
        }
    });
    assert_eq!((seen.0, seen.1), (BATCHES, CHANGES));
    assert!(seen.2 > 20_000_000, "all fields were read");
    // A list of mapped spans, one or two for each segment; nothing for each batch, nor for each change.
    assert!(get.count_total < 100, "{} allocations in get", get.count_total);
    assert!(
        first.count_total < 1000,
        "{} allocations in the first",
        first.count_total
    );
    assert_eq!(walk.count_total, 0, "walking");
}

/// Whether the value or its key is there or not, is short or long, and however its name is given.
#[test]
fn a_get_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let key = KeyPath::parse("Cluster\\Résumé").unwrap();
    let mut batch = Batch::at(&key);
    batch.create_key("").unwrap();
    for number in 0..100 {
        let name = format!("Größe {number}");
        batch.set_value(&name, Value::binary([7; 100])).unwrap();
    }
    let longest_short = "n".repeat(126);
    batch.set_value(&longest_short, Value::dword(7)).unwrap();
    store.commit(batch).unwrap();

    let (large, small) = (Value::binary([7; 100]), Value::dword(7));
    let other = KeyPath::parse("Cluster\\Resume").unwrap();
    let long = "N".repeat(1000);
    let parsed = |name: &str| ValueName::parse(name).unwrap();
    fn get(store: &Store, key: &KeyPath, name: &(impl AsValueName + ?Sized)) -> Option<Value> {
        let mut found = None;
        let allocated = allocation_counter::measure(|| found = store.get(key, name).unwrap());
        assert_eq!(allocated.count_total, 0, "{:?}", name.as_written());
        found
    }
    assert_eq!(get(&store, &key, "größe 7"), Some(large.clone()));
    assert_eq!(get(&store, &key, &"GRÖßE 7".to_owned()), Some(large.clone()));
    assert_eq!(get(&store, &key, &parsed("größe 99")), Some(large));
    assert_eq!(get(&store, &key, &longest_short), Some(small));
    assert_eq!(get(&store, &key, "größe 100"), None);
    assert_eq!(get(&store, &key, &long), None);
    assert_eq!(get(&store, &key, &parsed(&long.to_lowercase())), None);
    assert_eq!(get(&store, &other, "größe 7"), None);
}
