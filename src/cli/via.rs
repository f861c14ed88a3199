//! A batch by way of the daemon that owns the store: one line to its socket, one line back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use clusdb::json::{BatchLine, Committed, Reply};

use crate::failure::{Failure, Result};

/// A reply is a number, or an error with its message.
const MAX_REPLY_BYTES: u64 = 1 << 20;

/// Sends the batch and waits for what became of it.
pub fn send(socket: &Path, batch: &BatchLine) -> Result<Committed> {
    let stream = UnixStream::connect(socket);
    let stream = stream.map_err(|error| Failure::io("connect to a daemon at", socket, &error))?;
    let reply = exchange(&stream, batch)
        .map_err(|error| Failure::io("learn what became of it from", socket, &error))?;
    match reply.parse()? {
        Reply::Committed(committed) => Ok(committed),
        Reply::Failed(failed) => Err(failed.into()),
    }
}

fn exchange(mut stream: &UnixStream, batch: &BatchLine) -> io::Result<String> {
    // A daemon that refuses the line without reading all of it answers all the same.
    let written = writeln!(stream, "{batch}").and_then(|()| stream.shutdown(Shutdown::Write));
    let mut reply = String::new();
    BufReader::new(stream.take(MAX_REPLY_BYTES)).read_line(&mut reply)?;
    match reply.ends_with('\n') {
        true => Ok(reply),
        false => {
            written?;
            let message = "it ended without a reply: the log tells whether the batch was committed";
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
        }
    }
}
