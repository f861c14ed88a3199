//! The example of the README: a port, a batch, and the notification.

use clusdb::{Batch, KeyPath, Store, Value};

fn main() -> clusdb::Result<()> {
    let store = Store::open("cluster.db")?;
    let resources = KeyPath::parse(r"Cluster\Resources")?;
    let port = store.port("audit", &resources)?; // opens it, or creates it at the present

    let mut batch = Batch::at(&resources);
    batch
        .create_key("IP1")?
        .set_value("Address", Value::sz("10.0.0.7"))?;
    let commit = store.commit(batch)?; // durable when it returns
    assert_eq!(commit.sequence(), Some(1));

    let notification = port.get()?; // waits; all changes since the last get
    for batch in notification.batches() {
        for change in batch.changes() {
            println!("{} {change}", batch.sequence());
        }
    }
    notification.acknowledge()?; // the cursor is saved; survives restarts
    Ok(())
}
