//! Directories, as the kernel side meets them among a file's ancestors: by inode and super block.

use std::{
    fs::{self, File, Metadata},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use super::{Mount, below, number_of, refused, unreadable};
use crate::failure::Failure;

/// The directory's inode number and its super block's device. `stat` may tell other ones: btrfs gives each
/// subvolume a device of its own, and a file system may show other inode numbers than it has within.
pub fn find(root: &Path, mounts: &[Mount], path: &Path) -> Result<(u64, u32), Failure> {
    let shown = path.display();
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(below(root, path));
    let directory = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refused(
            format!("--under {shown}: there is no such directory"),
            "has it gone? Name one that is there",
        ),
        io::ErrorKind::NotADirectory => not_a_directory(path),
        _ => unreadable("--under", path, &error),
    })?;
    let found = directory
        .metadata()
        .map_err(|error| unreadable("--under", path, &error))?;
    if !found.is_dir() {
        return Err(not_a_directory(path));
    }
    let number = within(&directory, &found, mounts);
    let holds =
        |mount: &&Mount| mount.device == number.1 && SUBVOLUMES.contains(&mount.kind.as_str());
    if let Some(mount) = mounts.iter().find(holds) {
        return Err(refused(
            format!(
                "--under {shown}: on {} its number is not its own",
                mount.kind
            ),
            "subvolumes number their files alike: filter by --cgroup, --comm or --device",
        ));
    }
    Ok(number)
}

/// File systems of which parts with one super block have files of the same numbers: others would be delayed too.
const SUBVOLUMES: [&str; 2] = ["btrfs", "bcachefs"];

/// The inode number and the super block's device of this process's program; none if it cannot be told.
pub fn own_program(root: &Path) -> Option<(u64, u32)> {
    identity(root, &File::open("/proc/self/exe").ok()?)
}

/// The inode number and the super block's device of a file, as [`find`] tells them.
pub fn identity(root: &Path, file: &File) -> Option<(u64, u32)> {
    let found = file.metadata().ok()?;
    Some(within(file, &found, &super::mounts::read(root).ok()?))
}

/// A file's inode number and its super block's device.
fn within(file: &File, found: &Metadata, mounts: &[Mount]) -> (u64, u32) {
    // Ours, whatever the root.
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()));
    let info = info.unwrap_or_default();
    // Since Linux 5.14 (3845f256a8b5).
    let inode = field(&info, "ino:").unwrap_or_else(|| found.ino());
    let mount = field(&info, "mnt_id:");
    let mount = mounts.iter().find(|known| Some(known.id) == mount);
    let device = mount.map_or_else(|| number_of(found.dev()), |mount| mount.device);
    (inode, device)
}

fn not_a_directory(path: &Path) -> Failure {
    refused(
        format!("--under {} is not a directory", path.display()),
        "name the directory that it is in",
    )
}

fn field(info: &str, name: &str) -> Option<u64> {
    let value = info.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_numbers_are_not_a_files_own_it_is_refused() {
        let here = std::env::temp_dir();
        let mut mounts = super::super::mounts::read(Path::new("/")).unwrap();
        find(Path::new("/"), &mounts, &here).unwrap();
        for mount in &mut mounts {
            mount.kind = "btrfs".into();
        }
        let failure = find(Path::new("/"), &mounts, &here).unwrap_err();
        assert!(failure.message.contains("--under"), "{failure}");
        assert!(failure.message.contains("btrfs"), "{failure}");
    }

    #[test]
    fn what_the_kernel_tells_of_a_descriptor() {
        let info = "pos:\t0\nflags:\t012000000\nmnt_id:\t27\nino:\t2883585\n";
        assert_eq!(field(info, "mnt_id:"), Some(27));
        assert_eq!(field(info, "ino:"), Some(2_883_585));
        assert_eq!(field("mnt_id:\t27\n", "ino:"), None);
    }
}
