//! The command line's words.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A crash-safe configuration registry: keys, typed values, atomic batches, and ports that follow every change.
///
/// A store is a directory. Writing verbs make it; reading verbs expect it. Keys are paths such as
/// 'Cluster\Resources\IP1' (or Cluster/Resources/IP1); each holds values with a name, a type and data.
#[derive(Debug, Parser)]
#[command(name = "clusdb", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// Directory of the store.
    #[arg(long, global = true, value_name = "DIR", env = "CLUSDB_STORE")]
    pub store: Option<PathBuf>,
    /// text is for people, json is one document, jsonl is one object a line and a promise to programs.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub output: Format,
    /// Wait this long for a store that is in use.
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub wait: Option<Duration>,
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  clusdb tour                                              what it does, shown in a throw-away store
  clusdb --store cluster.db set Cluster/Name '' main       set the default value of a key
  clusdb --store cluster.db port create audit Cluster      follow a key and all below it from now on
  clusdb --store cluster.db watch audit --once             all changes since the last time

Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 condition failed, 5 store in use, 6 damage.";

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
    Jsonl,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Take in a .reg file, as one batch
    Import(Import),
    /// Set a value, making its key where it is missing
    Set(Set),
    /// Delete a key with all below it, or one value
    Del(Del),
    /// Commit commands given as JSON lines, as one batch
    Batch(Batch),
    /// Show a value
    Get(Get),
    /// Read several values at one moment, given as JSON lines
    Read(Read),
    /// Show what is known of a key: numbers, longest names, largest data, last write
    Info(Info),
    /// List the values and keys below a key
    Ls(Ls),
    /// Create, list and remove ports
    #[command(subcommand)]
    Port(Port),
    /// Show the changes that a port has not acknowledged yet, and follow it
    Watch(Watch),
    /// Show the journal: every change, oldest first
    Log(Log),
    /// Show figures of the store
    Stat,
    /// Make a snapshot: the whole state in one file, to open from and to trim behind
    Snapshot,
    /// Copy the store into a folder; a later backup into the same copies what is new
    Backup(Backup),
    /// Make a store from a backup, with an epoch of its own
    Restore(Restore),
    /// Look at the whole store for faults; exit code 6 if there is one
    Check(Check),
    /// Remove the part of the journal that two snapshots, and all ports, no longer need
    Trim,
    /// Show the main job on sample data: commit, SIGKILL, reopen, and the notification is still there
    Tour(Tour),
}

#[derive(Debug, Args)]
pub struct Import {
    /// A .reg file (UTF-16, UTF-8 or REGEDIT4), or - for standard input.
    pub file: PathBuf,
    /// Put this key before each path of the file.
    #[arg(long, value_name = "KEY")]
    pub at: Option<String>,
    /// Make each topmost key of the file equal to the file: what the file does not have is deleted.
    #[arg(long)]
    pub replace: bool,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Set {
    pub key: String,
    /// Name of the value; '' is the key's default value.
    pub name: String,
    /// Text; a number, decimal or 0x…; hex digits for binary and other types; one argument a string for multi_sz.
    #[arg(conflicts_with = "data_file")]
    pub data: Vec<String>,
    /// none, sz, expand_sz, binary, dword, dword_big_endian, link, multi_sz, qword, or a number.
    #[arg(long = "type", value_name = "T", default_value = "sz")]
    pub value_type: String,
    /// Take the data from a file as it is; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub data_file: Option<PathBuf>,
    /// Outside of any batch: as durable, in the log, and never shown by a port.
    #[arg(long)]
    pub plain: bool,
}

#[derive(Debug, Args)]
pub struct Del {
    pub key: String,
    /// Name of the value; without it, the key and all below it.
    pub name: Option<String>,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Outside of any batch: never shown by a port; what is not there, and a key that has keys below it, is an error.
    #[arg(long, conflicts_with = "dry_run")]
    pub plain: bool,
}

#[derive(Debug, Args)]
pub struct Batch {
    /// One command a line, such as {"command":"create_key","key":"Resources\\IP1"}; - is standard input.
    pub file: PathBuf,
    /// The file holds the protocol's bytes, a CLUSTER_REG_BATCH_UPDATE, instead of lines.
    #[arg(long)]
    pub wire: bool,
    /// The key that the commands' keys are relative to; the root by default.
    #[arg(long, value_name = "KEY")]
    pub at: Option<String>,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Hand the batch to the daemon that owns the store and listens on this Unix socket.
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["wire", "dry_run"])]
    pub via: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Get {
    pub key: String,
    /// Name of the value; the key's default value without it.
    #[arg(default_value = "")]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct Read {
    /// Lines like {"key":"Cluster\\Resources","name":"Address"}; - for the standard input.
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Info {
    pub key: String,
}

#[derive(Debug, Args)]
pub struct Ls {
    pub key: String,
    /// All that is below, depth first.
    #[arg(short, long)]
    pub recursive: bool,
}

#[derive(Debug, Subcommand)]
pub enum Port {
    /// Create a port on a key: it will show the batches committed from now on
    Create {
        /// 1 to 64 of A-Z a-z 0-9 . _ -
        name: String,
        key: String,
    },
    /// List the ports: key, what is acknowledged, and how many batches are pending
    Ls,
    /// Remove a port
    Rm { name: String },
}

#[derive(Debug, Args)]
pub struct Watch {
    /// Name of the port.
    pub name: String,
    /// One notification, then exit.
    #[arg(long)]
    pub once: bool,
    /// Exit when nothing has come for this long.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Leave the cursor where it is: the same comes again.
    #[arg(long)]
    pub no_acknowledge: bool,
    /// The registry's own stream: value_deleted with the old data, then the command.
    #[arg(long)]
    pub commands: bool,
    /// The protocol's bytes: with --once one CLUSTER_REG_BATCH_UPDATE as it is; with -o jsonl an object for each batch, in
    /// base64.
    #[arg(long, conflicts_with = "commands")]
    pub wire: bool,
    /// Run this command for each notification, with the lines on its standard input. The notification is acknowledged when it
    /// exits with 0; with any other code the following ends, with that code.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Log {
    /// The first sequence number to show.
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    pub from: u64,
    /// The last sequence number to show.
    #[arg(long, value_name = "SEQ", default_value_t = u64::MAX, hide_default_value = true)]
    pub to: u64,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// A folder that is missing, empty, or holds an earlier backup of this store.
    pub folder: PathBuf,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The folder of the backup.
    pub folder: PathBuf,
    /// Set a store that is there aside, as DIR.replaced-N, and keep its ports.
    #[arg(long)]
    pub replace: bool,
}

#[derive(Debug, Args)]
pub struct Check {
    /// Make the state of all records, and compare snapshots and tree with it.
    #[arg(long)]
    pub deep: bool,
    /// Make a damaged store open again, by what is left of it. Asks first; keeps what it takes away.
    #[arg(long)]
    pub repair: bool,
    /// Do not ask.
    #[arg(long, requires = "repair")]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct Tour {
    /// The part of the tour that is killed.
    #[arg(long, hide = true)]
    pub child: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
