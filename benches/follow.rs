//! From a commit to a follower in another process, beside a bare futex ping between two processes; and a follower's walk of
//! what is pending beside the writer's own: `cargo bench --bench follow`.
//!
//! The store is in `/dev/shm`, where a sync costs nothing: what is measured is from the call of `commit` to the return of the
//! follower's `get`, the disk left out. The ping goes from a store of the time into a shared page to the return of the wait.
//! Between two of either the other side has the time to fall asleep. Linux alone.

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod support;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;
    use std::process::{Child, Command};
    use std::sync::atomic::Ordering;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use clusdb::env::{Env, OsEnv, PAGE_BYTES, Page};
    use clusdb::{Batch, KeyPath, Port, Reader, Store, Value};
    use rustix::thread::futex::{self, Flags};

    use crate::support::{Figures, median_micros, timed};

    const ROUNDS: usize = 9;
    const PINGS: u64 = 300;
    const ASLEEP: Duration = Duration::from_micros(300);
    /// Words of the page: when it was sent, how long it took, and how many were taken.
    const SENT: usize = 0;
    const TOOK: usize = 1;
    const TAKEN: usize = 2;
    const PING: usize = 3;
    /// How often the follower has been told to walk.
    const WALK: usize = 4;
    const CHANGES: u32 = 200_000;

    pub fn main() {
        let arguments: Vec<_> = std::env::args().collect();
        match arguments.iter().position(|argument| argument == "--child") {
            Some(at) => child(&arguments[at + 1], Path::new(&arguments[at + 2])),
            None => parent(),
        }
    }

    fn nanos() -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
        now.as_nanos() as u64
    }

    fn map(folder: &Path) -> Page {
        let file = OsEnv.open_file(&folder.join("page")).expect("a page");
        file.map_page().expect("a map")
    }

    fn took(page: &Page, sent: u64) {
        took_nanos(page, nanos().saturating_sub(sent));
    }

    fn took_nanos(page: &Page, nanos: u64) {
        page.word(TOOK).store(nanos, Ordering::Release);
        page.word(TAKEN).fetch_add(1, Ordering::Release);
    }

    fn child(role: &str, folder: &Path) {
        let page = map(folder);
        if role == "ping" {
            let ping = page.half(PING);
            let mut seen = ping.load(Ordering::Acquire);
            page.word(TAKEN).fetch_add(1, Ordering::Release);
            loop {
                while ping.load(Ordering::Acquire) == seen {
                    let _ = futex::wait(ping, Flags::empty(), seen, None);
                }
                seen = ping.load(Ordering::Acquire);
                took(&page, page.word(SENT).load(Ordering::Acquire));
            }
        }
        let reader = Reader::open(folder.join("store")).expect("a store");
        if role == "walk" {
            let port = reader.open_port("theirs").expect("a port");
            let mut told = 0;
            loop {
                took_nanos(&page, walk(&port));
                told += 1;
                while page.word(WALK).load(Ordering::Acquire) < told {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        let port = reader.port("bench", &KeyPath::root()).expect("a port");
        page.word(TAKEN).fetch_add(1, Ordering::Release);
        loop {
            let notification = port.get().expect("a notification");
            let batch = notification.batches().last().expect("a batch");
            let change = batch.changes().last().expect("a change");
            let value = change.value().expect("a value");
            let sent = u64::from_le_bytes(value.data.try_into().expect("8 bytes"));
            took(&page, sent);
        }
    }

    /// Gets and walks all that is pending, and goes back to the beginning. In nanoseconds.
    fn walk(port: &Port) -> u64 {
        let (sum, took) = timed(|| {
            let mut sum = 0;
            while let Some(got) = port.try_get().expect("a notification") {
                let changes = got.batches().flat_map(|batch| batch.changes());
                sum += changes.map(|change| change.key().len() as u64).sum::<u64>();
            }
            sum
        });
        assert!(sum > u64::from(CHANGES));
        port.rewind().expect("a rewind");
        took.as_nanos() as u64
    }

    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn start(role: &str, folder: &Path, page: &Page) -> Ended {
        let before = page.word(TAKEN).load(Ordering::Acquire);
        let program = std::env::current_exe().expect("this program");
        let child = Command::new(program).args(["--child", role]).arg(folder).spawn();
        wait_until(page, before + 1);
        Ended(child.expect("a child"))
    }

    fn wait_until(page: &Page, taken: u64) {
        while page.word(TAKEN).load(Ordering::Acquire) < taken {
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn measure(page: &Page, send: &dyn Fn()) -> f64 {
        let one = |_| {
            std::thread::sleep(ASLEEP);
            let before = page.word(TAKEN).load(Ordering::Acquire);
            send();
            wait_until(page, before + 1);
            Duration::from_nanos(page.word(TOOK).load(Ordering::Acquire))
        };
        median_micros(&(0..PINGS).map(one).collect::<Vec<_>>())
    }

    fn parent() {
        let folder = tempfile::tempdir_in("/dev/shm").expect("memory");
        let folder = folder.path();
        std::fs::write(folder.join("page"), vec![0; PAGE_BYTES]).expect("a page");
        let page = map(folder);
        let store = || {
            let options = Store::options().tree(false);
            options.open(folder.join("store")).expect("a store")
        };
        wakes(&store(), folder, &page);
        std::fs::remove_dir_all(folder.join("store")).expect("a folder");
        walks(&store(), folder, &page);
    }

    fn wakes(store: &Store, folder: &Path, page: &Page) {
        let (follower, pinged) = (start("follow", folder, page), start("ping", folder, page));
        let commit = || {
            let mut batch = Batch::at(&KeyPath::root());
            batch.set_value("sent", Value::qword(nanos())).expect("a command");
            store.commit(batch).expect("a commit");
        };
        let ping = || {
            page.word(SENT).store(nanos(), Ordering::Release);
            page.half(PING).fetch_add(1, Ordering::Release);
            let _ = futex::wake(page.half(PING), Flags::empty(), 1);
        };
        let mut figures = Figures::new("commit to wake in another process, p50", "µs");
        for _ in 0..ROUNDS {
            figures.round(|| measure(page, &commit), || measure(page, &ping));
        }
        figures.print();
        drop((follower, pinged));
    }

    fn walks(store: &Store, folder: &Path, page: &Page) {
        let open = |name| store.port(name, &KeyPath::root()).expect("a port");
        let own = open("own");
        drop(open("theirs"));
        for number in 0..CHANGES {
            let key = format!(r"Cluster\Resources\Resource{:03}", number % 500);
            let mut batch = Batch::at(&KeyPath::parse(&key).expect("a path"));
            batch.create_key("").expect("a command");
            batch.set_value("sent", Value::dword(number)).expect("a command");
            store.commit(batch).expect("a commit");
        }
        let follower = start("walk", folder, page);
        let mut figures = Figures::new("a follower's get and walk (raw: the writer's own)", "ms");
        let theirs = || {
            let before = page.word(TAKEN).load(Ordering::Acquire);
            page.word(WALK).fetch_add(1, Ordering::Release);
            wait_until(page, before + 1);
            page.word(TOOK).load(Ordering::Acquire) as f64 / 1e6
        };
        walk(&own);
        for _ in 0..ROUNDS {
            figures.round(theirs, || walk(&own) as f64 / 1e6);
        }
        figures.print();
        drop(follower);
    }
}
