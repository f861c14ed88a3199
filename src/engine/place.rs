//! Where a store may be: on a file system that keeps its promises.

use std::io::ErrorKind;
use std::path::Path;

use crate::env::FileSystem;
use crate::error::{Error, IoContext, Result};
use crate::options::Options;

/// On a network's file system a lock may hold on one machine alone, a map may show what is old, and a sync may not reach the
/// disk. What is not there yet is on none.
pub(super) fn check_file_system(options: &Options, path: &Path) -> Result<()> {
    let found = match options.env.file_system(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.context("look at the file system of", path)?,
    };
    match found {
        FileSystem::Local => {}
        FileSystem::UserSpace => tracing::warn!(
            path = %path.display(),
            "the store is on FUSE: its locks, memory maps and syncs are as good as the program that serves it"
        ),
        FileSystem::Network(name) if options.network_file_system => tracing::warn!(
            path = %path.display(),
            name,
            "the store is on a network file system, where locks, memory maps and syncs cannot be relied on"
        ),
        FileSystem::Network(name) => {
            return Err(Error::NetworkFileSystem {
                path: path.to_owned(),
                name,
            });
        }
    }
    Ok(())
}
