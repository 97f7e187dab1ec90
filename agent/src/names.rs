//! Names for the numbers that the kernel side records, read under a root path that tests replace.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use agent_common::{
    probes::{Field, Probe, irq},
    series::Key,
};

use crate::report::dump::{InFlight, Labels};

/// Looks names up, and remembers them for as long as it lives: make one for each dump.
pub struct Names {
    root: PathBuf,
    cgroups: Option<HashMap<u64, String>>,
    devices: HashMap<u32, String>,
    file_systems: Option<HashMap<u32, String>>,
    interrupts: Option<HashMap<u32, String>>,
}

impl Names {
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            cgroups: None,
            devices: HashMap::new(),
            file_systems: None,
            interrupts: None,
        }
    }

    /// The labels of a series. `None` is the series of what found no place of its own.
    #[must_use]
    pub fn labels(
        &mut self,
        probe: &Probe,
        fields: &[Field],
        key: Option<&Key>,
        cpu: Option<u32>,
    ) -> Labels {
        fields
            .iter()
            .map(|field| {
                let name = match (field, key) {
                    (Field::Cpu, _) => cpu.map_or_else(|| "all".into(), |cpu| cpu.to_string()),
                    (_, None) => "other".into(),
                    (Field::Device, Some(key)) => self.device(key.device),
                    (Field::Op, Some(key)) => op(probe, key.op),
                    (Field::Fs, Some(key)) => self.file_system(key.device, key.magic),
                    (Field::Cgroup, Some(key)) => self.cgroup(key.cgroup),
                    (Field::Comm, Some(key)) => comm(&key.comm),
                    (Field::Vector, Some(key)) => self.vector(key.magic, key.op),
                    (Field::Function, Some(key)) => key.op.to_string(),
                };
                (field.name().to_owned(), name)
            })
            .collect()
    }

    /// A block device's name, or `major:minor` if it is none or has gone.
    fn device(&mut self, device: u32) -> String {
        if device == 0 {
            return NONE.into();
        }
        let root = &self.root;
        self.devices
            .entry(device)
            .or_insert_with(|| {
                let (major, minor) = (device >> 20, device & 0xf_ffff);
                let number = format!("{major}:{minor}");
                fs::read_link(root.join("sys/dev/block").join(&number))
                    .ok()
                    .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()))
                    .unwrap_or(number)
            })
            .clone()
    }

    /// A softirq as in /proc/softirqs, or `irq/NUMBER-NAME` as the kernel names threads of interrupts.
    fn vector(&mut self, kind: u32, number: u32) -> String {
        if kind == irq::kind::SOFTIRQ {
            let name = irq::SOFTIRQS.get(number as usize);
            return name.map_or_else(|| number.to_string(), |name| (*name).into());
        }
        let root = &self.root;
        let names = self.interrupts.get_or_insert_with(|| interrupts(root));
        match names.get(&number) {
            Some(name) => format!("irq/{number}-{name}"),
            None => format!("irq/{number}"),
        }
    }

    /// The path of a cgroup below the unified hierarchy's root, or `id:N` if it has gone.
    fn cgroup(&mut self, id: u64) -> String {
        let root = &self.root;
        self.cgroups
            .get_or_insert_with(|| cgroups(root))
            .get(&id)
            .cloned()
            .unwrap_or_else(|| format!("id:{id}"))
    }

    /// The type of the file system on a device as it is mounted, or what its magic number tells.
    fn file_system(&mut self, device: u32, magic: u32) -> String {
        if device == 0 && magic == 0 {
            return NONE.into();
        }
        let root = &self.root;
        self.file_systems
            .get_or_insert_with(|| mounted(root))
            .get(&device)
            .cloned()
            .or_else(|| {
                let known = MAGIC.iter().find(|(number, _)| *number == magic)?;
                Some(known.1.to_owned())
            })
            .unwrap_or_else(|| format!("{magic:#x}"))
    }
}

/// What has no device or file: an open that failed, a bad descriptor, a request without a disk.
const NONE: &str = "none";

/// File systems that are in no mount table, or not in ours (`include/uapi/linux/magic.h`).
const MAGIC: [(u32, &str); 22] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0xf2f5_2010, "f2fs"),
    (0x794c_7630, "overlay"),
    (0x6573_5546, "fuse"),
    (0x6969, "nfs"),
    (0x4d44, "vfat"),
    (0x7371_7368, "squashfs"),
    (0x8584_58f6, "ramfs"),
    (0x6367_7270, "cgroup2"),
    (0x0027_e0eb, "cgroup"),
    (0x7472_6163, "tracefs"),
    (0x6e73_6673, "nsfs"),
    (0x534f_434b, "sockfs"),
    (0x5049_5045, "pipefs"),
    (0x0904_1934, "anon_inodefs"),
    (0x0102_1994, "tmpfs"),
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x1373, "devpts"),
    (0x6462_6720, "debugfs"),
];

fn op(probe: &Probe, op: u32) -> String {
    match probe.ops.get(op as usize) {
        Some(name) => (*name).into(),
        None => op.to_string(),
    }
}

fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(16);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Where the unified hierarchy is mounted, by the mount table: it may lie beside version 1's.
fn unified(root: &Path) -> Option<PathBuf> {
    let table = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    table.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let target = before.split(' ').nth(4)?;
        (after.split(' ').next()? == "cgroup2").then(|| root.join(target.trim_start_matches('/')))
    })
}

/// Paths of all cgroups by id, which is the inode number of their directory.
fn cgroups(root: &Path) -> HashMap<u64, String> {
    let mut found = HashMap::new();
    let Some(top) = unified(root) else {
        return found;
    };
    let mut left = vec![top.clone()];
    while let Some(directory) = left.pop() {
        if let Ok(metadata) = fs::metadata(&directory) {
            let path = directory.strip_prefix(&top).unwrap_or(&directory);
            found.insert(metadata.ino(), format!("/{}", path.display()));
        }
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        left.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    found
}

/// Names of interrupts by number: the last word of their line; of a shared one the last of its handlers.
fn interrupts(root: &Path) -> HashMap<u32, String> {
    let table = fs::read_to_string(root.join("proc/interrupts")).unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let name = rest.split_whitespace().last()?;
            Some((number.trim().parse().ok()?, name.to_owned()))
        })
        .collect()
}

/// Types of mounted file systems by the device number of their superblock.
fn mounted(root: &Path) -> HashMap<u32, String> {
    let table = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let (major, minor) = before.split(' ').nth(2)?.split_once(':')?;
            let device = major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?;
            Some((device, after.split(' ').next()?.to_owned()))
        })
        .collect()
}

/// Requests in flight of each device that has any, or had any before, by the kernel's own count.
#[must_use]
pub fn in_flight(root: &Path) -> Vec<InFlight> {
    let Ok(devices) = fs::read_dir(root.join("sys/block")) else {
        return Vec::new();
    };
    let mut all: Vec<InFlight> = devices
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path().join("inflight")).ok()?;
            let mut numbers = text.split_whitespace().map(str::parse::<u64>);
            Some(InFlight {
                device: entry.file_name().to_string_lossy().into_owned(),
                reads: numbers.next()?.ok()?,
                writes: numbers.next()?.ok()?,
            })
        })
        .filter(|device| device.reads + device.writes > 0)
        .collect();
    all.sort_by(|a, b| a.device.cmp(&b.device));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_and_softirqs_have_the_kernel_s_names() {
        let root = std::env::temp_dir().join(format!("iolag-names-{}", std::process::id()));
        fs::create_dir_all(root.join("proc")).unwrap();
        let table = "           CPU0       CPU1\n 36:          0    2594457 PCI-MSIX   1-edge      \
                     virtio1-req.0\nLOC:    1662942    1828560   Local timer interrupts\n";
        fs::write(root.join("proc/interrupts"), table).unwrap();
        let mut names = Names::new(&root);
        assert_eq!(names.vector(irq::kind::HARDIRQ, 36), "irq/36-virtio1-req.0");
        assert_eq!(names.vector(irq::kind::HARDIRQ, 37), "irq/37");
        assert_eq!(names.vector(irq::kind::SOFTIRQ, 3), "NET_RX");
        assert_eq!(names.vector(irq::kind::SOFTIRQ, 10), "10");
        fs::remove_dir_all(root).unwrap();
    }
}
