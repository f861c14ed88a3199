//! Runs the command line as a caller does: arguments, standard input, exit code, lines of JSON.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a store in it that no verb has made yet.
pub struct Home {
    folder: TempDir,
}

/// What one call gave.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    pub fn new() -> Home {
        Home {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The command with this store and JSON lines, ready for more arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clusdb"));
        command.env_remove("CLUSDB_STORE").current_dir(self.folder.path());
        command.arg("--store").arg(self.store()).args(["-o", "jsonl"]);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(
            self.command()
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .unwrap(),
        )
    }

    pub fn run_with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Ran {
        let mut command = self.command();
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A verb that refuses its arguments does not read its input.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        Ran::from(child.wait_with_output().unwrap())
    }

    /// Commits these commands as one batch at the root.
    pub fn batch(&self, commands: &[Value]) -> Ran {
        let lines: String = commands.iter().map(|command| format!("{command}\n")).collect();
        self.run_with_input(&["batch", "-"], lines)
    }

    /// Everything that the store holds and has held; nothing if there is none.
    pub fn everything(&self) -> (String, String) {
        (
            self.run(&["log"]).stdout,
            self.run(&["ls", "", "--recursive"]).stdout,
        )
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// The lines of a call that succeeded.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stderr, "");
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The lines without what differs from run to run.
    #[track_caller]
    pub fn changes(&self) -> Vec<Value> {
        let mut lines = self.lines();
        for line in &mut lines {
            let fields = line.as_object_mut().unwrap();
            fields.remove("time").expect("each change has a time");
            fields
                .remove("sequence")
                .expect("each change has a sequence number");
        }
        lines
    }

    /// The error object of a call that failed with this code; nothing on standard output.
    #[track_caller]
    pub fn error(&self, code: i32, word: &str) -> Value {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{}", self.stderr);
        let error: Value = serde_json::from_str(&self.stderr).unwrap_or_else(|_| panic!("{}", self.stderr));
        assert_eq!(error["error"], word, "{error}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
        error
    }
}

/// The folder of real inputs; none where there is none, which is said once.
pub fn inputs() -> Option<PathBuf> {
    let folder = match std::env::var_os("CLUSDB_INPUTS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/inputs"),
    };
    if !folder.join("system-hive.reg.xz").exists() {
        eprintln!("no real inputs at {}: passed over", folder.display());
        return None;
    }
    if Command::new("xz").arg("--version").output().is_err() {
        eprintln!("no xz to read the real inputs: passed over");
        return None;
    }
    Some(folder)
}

pub fn unpack(folder: &Path, name: &str) -> Vec<u8> {
    let output = Command::new("xz")
        .arg("-dc")
        .arg(folder.join(name))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}
