use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::PathBuf,
};

use super::*;

/// A host with a disk of two partitions, cgroups of both versions, and a few processes.
struct Host(PathBuf);

const MOUNTS: &str = "\
20 1 0:21 / /proc rw - proc proc rw
21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 1 0:40 /@ /srv rw - btrfs /dev/sda2 rw,space_cache
23 1 0:50 / /tmp rw - tmpfs tmpfs rw
30 1 0:30 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:32 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
33 30 0:33 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";

impl Host {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("iolag-{name}-{}", std::process::id()));
        let host = Self(root);
        for directory in [
            "srv/data",
            "sys/fs/cgroup/cpu,cpuacct/batch",
            "sys/fs/cgroup/blkio/batch",
            "sys/fs/cgroup/systemd/user.slice",
            "sys/fs/cgroup/unified/user.slice/app",
        ] {
            fs::create_dir_all(host.0.join(directory)).unwrap();
        }
        symlink("cpu,cpuacct", host.0.join("sys/fs/cgroup/cpu")).unwrap();
        host.says("proc/self/mountinfo", MOUNTS);
        host.says(
            "proc/7/status",
            "Name:\tfio\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\n",
        );
        host.says(
            "proc/8/status",
            "Name:\tfio\nState:\tR (running)\nTgid:\t7\nPid:\t8\n",
        );
        host.says(
            "proc/9/status",
            "Name:\tfio\nState:\tZ (zombie)\nTgid:\t9\nPid:\t9\n",
        );
        host.says("srv/file", "");
        for (name, dev) in [
            ("sda", "8:0"),
            ("sda/sda1", "8:1"),
            ("sda/sda2", "8:2"),
            ("cciss!c0d0", "104:0"),
        ] {
            let directory = format!("sys/devices/{name}");
            host.says(&format!("{directory}/dev"), &format!("{dev}\n"));
            if name.contains('/') {
                host.says(&format!("{directory}/partition"), "1\n");
            }
            let last = name.rsplit('/').next().unwrap();
            for link in [
                format!("sys/class/block/{last}"),
                format!("sys/dev/block/{dev}"),
            ] {
                let link = host.0.join(link);
                fs::create_dir_all(link.parent().unwrap()).unwrap();
                symlink(host.0.join(&directory), link).unwrap();
            }
        }
        fs::create_dir_all(host.0.join("sys/devices/sda/queue")).unwrap();
        host
    }

    fn says(&self, file: &str, text: &str) {
        let file = self.0.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn resolve(&self, filters: &Filters) -> Result<Resolved, Failure> {
        resolve(filters, &self.0)
    }

    fn inode(&self, path: &str) -> u64 {
        fs::metadata(self.0.join(path)).unwrap().ino()
    }

    fn refused(&self, filters: &Filters, words: &[&str]) {
        let failure = self.resolve(filters).unwrap_err();
        assert_eq!(failure.code, USAGE, "{failure}");
        assert!(failure.hint.is_some(), "{failure}");
        for word in words {
            assert!(failure.to_string().contains(word), "no {word}: {failure}");
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn processes_are_alive_and_whole() {
    let host = Host::new("resolve-pid");
    let pid = |pid| Filters {
        pids: vec![pid],
        ..Filters::default()
    };
    assert_eq!(host.resolve(&pid(7)).unwrap().pids, [7]);
    host.refused(
        &pid(8),
        &["--pid 8 is a thread of the process 7", "--pid 7"],
    );
    host.refused(&pid(9), &["--pid 9", "has ended"]);
    host.refused(&pid(10), &["--pid 10", "no such process"]);
}

#[test]
fn cgroups_are_known_by_directory_and_hierarchy() {
    let host = Host::new("resolve-cgroup");
    let cgroup = |path: &str| Filters {
        cgroups: vec![path.into()],
        ..Filters::default()
    };
    for (path, directory, controller) in [
        (
            "/user.slice/app",
            "sys/fs/cgroup/unified/user.slice/app",
            None,
        ),
        ("/", "sys/fs/cgroup/unified", None),
        (
            "/sys/fs/cgroup/unified/user.slice",
            "sys/fs/cgroup/unified/user.slice",
            None,
        ),
        (
            "/sys/fs/cgroup/cpu/batch",
            "sys/fs/cgroup/cpu,cpuacct/batch",
            Some("cpu"),
        ),
        (
            "/sys/fs/cgroup/blkio/batch",
            "sys/fs/cgroup/blkio/batch",
            Some("blkio"),
        ),
    ] {
        let expected = CgroupId {
            hierarchy: controller.map_or(Hierarchy::Unified, |name| {
                Hierarchy::Controller(name.into())
            }),
            id: host.inode(directory),
        };
        assert_eq!(
            host.resolve(&cgroup(path)).unwrap().cgroups,
            [expected],
            "{path}"
        );
    }
    for (path, words) in [
        (
            "/sys/fs/cgroup/systemd/user.slice",
            ["systemd has no controller", "v2"],
        ),
        ("/gone.slice", ["--cgroup /gone.slice", "no such cgroup"]),
        ("/srv/data", ["--cgroup /srv/data", "something else"]),
        ("/srv/file", ["--cgroup /srv/file", "no directory"]),
    ] {
        host.refused(&cgroup(path), &words);
    }
}

#[test]
fn devices_have_their_partitions_and_file_systems() {
    let host = Host::new("resolve-device");
    let device = |name: &str| Filters {
        devices: vec![name.into()],
        ..Filters::default()
    };
    let disk = vec![number(0, 40), number(8, 0), number(8, 1), number(8, 2)];
    for name in ["sda", "/dev/sda", "8:0"] {
        assert_eq!(host.resolve(&device(name)).unwrap().devices, disk, "{name}");
    }
    let part = host.resolve(&device("sda1")).unwrap().devices;
    assert_eq!(part, [number(8, 1)]);
    let part = host.resolve(&device("/dev/sda2")).unwrap().devices;
    assert_eq!(part, [number(0, 40), number(8, 2)]);
    let other = host.resolve(&device("/dev/cciss/c0d0")).unwrap().devices;
    assert_eq!(other, [number(104, 0)]);
    for name in [
        "sdb",
        "/dev/sdb",
        "9:0",
        "8:4294967295",
        "..",
        "a/b",
        "/dev/",
        ":",
    ] {
        host.refused(&device(name), &["--device", "no such block device"]);
    }
    host.refused(&device("/srv/file"), &["not a block device"]);
    host.refused(&device("/srv/data"), &["not a block device", "--under"]);
    let real = resolve(&device("/dev/null"), Path::new("/")).unwrap_err();
    assert!(real.message.contains("not a block device"), "{real}");
}

#[test]
fn directories_are_inodes_of_super_blocks() {
    let host = Host::new("resolve-under");
    let under = |path: PathBuf| Filters {
        under: vec![path],
        ..Filters::default()
    };
    let data = host.0.join("srv/data");
    let found = resolve(&under(data), Path::new("/")).unwrap().under;
    assert_eq!(found.len(), 1);
    assert!(found[0].0 > 0);
    let inside = host.resolve(&under("/srv/data".into())).unwrap().under;
    assert_eq!(inside[0].0, found[0].0);
    host.refused(
        &under("/srv/file".into()),
        &["--under /srv/file", "not a directory"],
    );
    host.refused(
        &under("/srv/gone".into()),
        &["--under /srv/gone", "no such directory"],
    );
    host.refused(&under("/srv/file/x".into()), &["--under /srv/file/x"]);
}

#[test]
fn the_rest_is_as_it_was_given() {
    let filters = Filters {
        uids: vec![0, 1000],
        comms: vec!["fio".into()],
        ops: vec!["flush".into(), "read".into()],
        size: Some((1, 2)),
        ..Filters::default()
    };
    // Needs nothing of the host.
    let resolved = resolve(&filters, Path::new("/nonexistent")).unwrap();
    assert_eq!(resolved.uids, [0, 1000]);
    assert_eq!(&resolved.comms[0], b"fio\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!((resolved.ops, resolved.size), (vec![2, 0], Some((1, 2))));
    assert_eq!(
        resolve(&Filters::default(), Path::new("/x")).unwrap(),
        Resolved::default()
    );
}
