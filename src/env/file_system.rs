//! Which file systems belong to a network, by the numbers that the kernel gives them.

use std::io;
use std::path::Path;

/// The kind of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileSystem {
    /// One of this machine, or one that is not known to be another kind.
    Local,
    /// FUSE: a program serves it, from this machine or over a network.
    UserSpace,
    /// One of a network or a cluster, by its name.
    Network(&'static str),
}

/// As statfs(2) and the kernel's `magic.h` have them.
const FUSE: u32 = 0x6573_5546;
const NETWORK: [(u32, &str); 16] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x013f_cafe, "OrangeFS"),
];

impl FileSystem {
    /// By the number that statfs gives.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    fn of_magic(magic: u32) -> FileSystem {
        let network = NETWORK.iter().find(|(known, _)| *known == magic);
        match network {
            Some((_, name)) => FileSystem::Network(name),
            None if magic == FUSE => FileSystem::UserSpace,
            None => FileSystem::Local,
        }
    }

    /// Of what the path leads to.
    #[cfg(target_os = "linux")]
    pub(super) fn of(path: &Path) -> io::Result<FileSystem> {
        // The numbers have 32 bits; some machines give them with a sign, and wider.
        let magic = rustix::fs::statfs(path)?.f_type as u32;
        Ok(FileSystem::of_magic(magic))
    }

    /// Elsewhere it is not looked at.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn of(_: &Path) -> io::Result<FileSystem> {
        Ok(FileSystem::Local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_a_network_are_known_by_their_numbers() {
        for (magic, expected) in [
            (0x6969, FileSystem::Network("NFS")),
            (0xff53_4d42, FileSystem::Network("CIFS")),
            (0x0102_1997, FileSystem::Network("9p")),
            (0x6573_5546, FileSystem::UserSpace),
            // ext4, tmpfs, btrfs, xfs
            (0xef53, FileSystem::Local),
            (0x0102_1994, FileSystem::Local),
            (0x9123_683e, FileSystem::Local),
            (0x5846_5342, FileSystem::Local),
        ] {
            assert_eq!(FileSystem::of_magic(magic), expected, "{magic:x}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_systems_own_numbers_are_read() {
        assert_eq!(FileSystem::of(Path::new("/proc")).unwrap(), FileSystem::Local);
        let nowhere = FileSystem::of(Path::new("/nowhere at all")).unwrap_err();
        assert_eq!(nowhere.kind(), io::ErrorKind::NotFound);
    }
}
