//! A daemon that owns a store, with a way in for an administrator while it runs: a batch is one line of JSON, and so is its
//! reply.
//!
//! ```sh
//! cargo run --release --example daemon -- cluster.db --socket cluster.sock   # until SIGINT or SIGTERM
//! cargo run --release --example daemon -- cluster.db < batches.jsonl         # until the end of the input
//! ```
//!
//! A line is `{"at":"Cluster","commands":[{"command":"create_key","key":"Resources"}]}`, its reply `{"sequence":1}`, `{}` if there was
//! nothing to commit, or `{"error":"limit","message":"…","index":0}`; a reply is given once the batch is durable.
//! `clusdb batch FILE --via cluster.sock` sends one. Batches of several connections are made durable together.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, thread};

use clusdb::Store;
use clusdb::json::{BatchLine, Failed, Reply};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A longer line is refused: it is held in memory.
const MAX_LINE_BYTES: u64 = 64 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    match arguments.as_slice() {
        [folder] => {
            let store = Store::open(folder)?;
            serve(&store, io::stdin().lock(), io::stdout())?;
            store.close()?;
        }
        [folder, option, socket] if option == Path::new("--socket") => listen(&Store::open(folder)?, socket)?,
        _ => return Err("usage: daemon DIR [--socket SOCKET]".into()),
    }
    Ok(())
}

/// Serves each connection in a thread of its own until a signal comes.
fn listen(store: &Store, socket: &Path) -> Result<(), Box<dyn Error>> {
    // Registered first, so that a signal finds somebody who removes the socket.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let listener = bind(socket)?;
    thread::spawn({
        let store = store.clone();
        move || accept(&store, &listener)
    });
    signals.forever().next();
    // What is not answered by now was not promised. A batch that is under way is waited for.
    // The socket first: while the store is open, no other daemon has put its own there.
    fs::remove_file(socket)?;
    store.close()?;
    Ok(())
}

/// Takes the place of a socket that a killed daemon has left: the store is ours, and so is its socket. Only the owner may connect.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    let mut aside = socket.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let listener = UnixListener::bind(&aside)?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))?;
    fs::rename(&aside, socket)?;
    Ok(listener)
}

fn accept(store: &Store, listener: &UnixListener) {
    for stream in listener.incoming() {
        if stream.is_err() {
            // Too many are open: not asked for the next at once.
            thread::sleep(Duration::from_millis(100));
        }
        let store = store.clone();
        thread::spawn(move || {
            let served = stream.and_then(|stream| serve(&store, BufReader::new(&stream), &stream));
            if let Err(error) = served {
                eprintln!("daemon: a connection ended: {error}");
            }
        });
    }
}

/// Answers each line, until there are no more.
fn serve(store: &Store, mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        (&mut input).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
            writeln!(
                output,
                "{}",
                refuse(&format!("a line is at most {MAX_LINE_BYTES} bytes"))
            )?;
            return output.flush();
        }
        // One line for each, whoever reads it.
        writeln!(output, "{}", answer(store, &line))?;
        output.flush()?;
    }
}

fn answer(store: &Store, line: &[u8]) -> Reply {
    let Ok(line) = str::from_utf8(line) else {
        return refuse("the line is not UTF-8");
    };
    match line.parse().and_then(|line: BatchLine| line.to_batch()) {
        Ok(batch) => match store.commit(batch) {
            Ok(commit) => commit.into(),
            Err(error) => error.into(),
        },
        Err(error) => error.into(),
    }
}

fn refuse(message: &str) -> Reply {
    Reply::Failed(Failed {
        error: "json".to_owned(),
        message: message.to_owned(),
        index: None,
    })
}
