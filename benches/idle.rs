//! Durable commits beside idle ports that somebody waits on, and beside none: `cargo bench --bench idle`.
//!
//! Each of the 10,000 ports is on a key of its own at depth 8, and a get of it is awaited; a commit touches none of them. In
//! the last rows the ports' store, and the one without, are in `/dev/shm`, so that the time is the processor's.

mod support;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use clusdb::{KeyPath, Notification, Port, Store};
use support::{Figures, batch_of_10, folder, median_micros, timed};

const ROUNDS: u64 = 9;
const COMMITS: u64 = 400;

fn main() {
    let disk = folder();
    on("", disk.path());
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        let memory = tempfile::tempdir_in(memory).expect("memory");
        on(", in memory", memory.path());
    }
}

fn on(place: &str, folder: &Path) {
    for count in [100, 10_000] {
        let open = |name: &str| {
            let options = Store::options().tree(false).keep(false);
            options
                .open(folder.join(format!("{name}{count}")))
                .expect("a new store")
        };
        let (store, bare) = (open("idle"), open("bare"));
        let ports: Vec<_> = (0..count).map(|number| port(&store, number)).collect();
        let mut gets: Vec<Get<'_>> = ports
            .iter()
            .map(|port| Box::pin(port.get_async()) as Get<'_>)
            .collect();
        for get in &mut gets {
            let waits = get.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(waits, Poll::Pending));
        }
        let mut figures = Figures::new(
            format!("commit beside {count} idle ports, p50{place} (raw: none)"),
            "µs",
        );
        for _ in 0..ROUNDS {
            figures.round(|| commits(&store), || commits(&bare));
        }
        figures.print();
        drop(gets);
    }
}

type Get<'a> = Pin<Box<dyn Future<Output = clusdb::Result<Notification>> + 'a>>;

fn port(store: &Store, number: usize) -> Port {
    let path = format!(r"Cluster\Groups\Group{:02}\A\B\C\D\Port{number:05}", number % 50);
    let key = KeyPath::parse(&path).expect("a path");
    store.port(&format!("port{number}"), &key).expect("a new port")
}

fn commits(store: &Store) -> f64 {
    let commit = |number| {
        let batch = batch_of_10(0, number);
        timed(|| store.commit(batch).expect("a commit")).1
    };
    median_micros(&(0..COMMITS).map(commit).collect::<Vec<_>>())
}
