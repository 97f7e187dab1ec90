use std::{fs, os::unix::fs::symlink};

use agent_common::probes::{PROBES, block};

use super::*;
use crate::report::dump::InFlight;

/// A directory that stands for `/`, with these files.
struct Root(PathBuf);

impl Root {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("iolag-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(root)
    }

    /// Makes this the disk of that number.
    fn disk(&self, number: &str, name: &str) {
        let numbers = self.0.join("sys/dev/block");
        fs::create_dir_all(&numbers).unwrap();
        drop(fs::remove_file(numbers.join(number)));
        symlink(format!("../../block/{name}"), numbers.join(number)).unwrap();
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn interrupts_and_softirqs_have_the_kernel_s_names() {
    let table = "           CPU0       CPU1\n 36:          0    2594457 PCI-MSIX   1-edge      \
                 virtio1-req.0\nLOC:    1662942    1828560   Local timer interrupts\n";
    let root = Root::new("interrupts", &[("proc/interrupts", table)]);
    let mut names = Names::new(&root.0);
    assert_eq!(names.vector(irq::kind::HARDIRQ, 36), "irq/36-virtio1-req.0");
    assert_eq!(names.vector(irq::kind::HARDIRQ, 37), "irq/37");
    assert_eq!(names.vector(irq::kind::SOFTIRQ, 3), "NET_RX");
    assert_eq!(names.vector(irq::kind::SOFTIRQ, 10), "10");
}

#[test]
fn a_cgroup_that_was_removed_keeps_its_path() {
    use std::os::unix::fs::MetadataExt as _;

    let mounts = "30 22 0:26 / /cgroup rw - cgroup2 cgroup2 rw\n";
    let root = Root::new("cgroups", &[("proc/self/mountinfo", mounts)]);
    let group = root.0.join("cgroup/a/b");
    fs::create_dir_all(&group).unwrap();
    let id = fs::metadata(&group).unwrap().ino();
    let mut names = Names::new(&root.0);
    assert_eq!(names.cgroup(id), "/a/b");
    fs::remove_dir(&group).unwrap();
    names.look_again();
    assert_eq!(names.cgroup(id), "/a/b");
    assert_eq!(names.cgroup(u64::MAX), format!("id:{}", u64::MAX));
}

#[test]
fn a_disk_keeps_its_name_until_another_has_its_number() {
    let root = Root::new("disks", &[]);
    root.disk("8:16", "sdb");
    let mut names = Names::new(&root.0);
    let number = 8 << 20 | 16;
    assert_eq!(names.device(number), "sdb");
    fs::remove_file(root.0.join("sys/dev/block/8:16")).unwrap();
    names.look_again();
    assert_eq!(names.device(number), "sdb");
    root.disk("8:16", "sdz");
    names.look_again();
    assert_eq!(names.device(number), "sdz");
    assert_eq!(names.device(8 << 20), "8:0");
}

#[test]
fn requests_in_flight_are_of_the_probe_block_only() {
    let files = [
        ("sys/block/vdb/inflight", "       3        4\n"),
        ("sys/block/vda/inflight", "       0        0\n"),
    ];
    let root = Root::new("inflight", &files);
    let busy = InFlight {
        device: "vdb".into(),
        reads: 3,
        writes: 4,
    };
    for probe in PROBES {
        let found = in_flight(probe, &root.0);
        let is_block = probe.name == block::NAME;
        assert_eq!(found.first(), is_block.then_some(&busy), "{}", probe.name);
    }
}
