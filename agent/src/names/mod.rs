//! Names for the numbers that the kernel side records.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use agent_common::{
    probes::{Field, Probe, irq},
    series::Key,
};

pub use self::host::in_flight;
use crate::report::dump::Labels;

mod host;
#[cfg(test)]
mod tests;

/// Looks names up. What it was asked for and found keeps its name when it has gone: what was recorded of it
/// is still shown. A number that something else has by now is given that one's name.
pub struct Names {
    root: PathBuf,
    now: Tables,
    known: HashMap<Number, String>,
}

/// What was looked up since [`Names::look_again`].
#[derive(Default)]
struct Tables {
    cgroups: Option<HashMap<u64, String>>,
    devices: HashMap<u32, Option<String>>,
    file_systems: Option<HashMap<u32, String>>,
    interrupts: Option<HashMap<u32, String>>,
}

/// What has a name for a while.
#[derive(PartialEq, Eq, Hash)]
enum Number {
    Device(u32),
    Cgroup(u64),
    FileSystem { device: u32, magic: u32 },
    Interrupt(u32),
}

impl Names {
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            now: Tables::default(),
            known: HashMap::new(),
        }
    }

    /// The next names are looked up anew: for each dump once.
    pub fn look_again(&mut self) {
        self.now = Tables::default();
    }

    /// The name that was found, or the one that was known before.
    fn remember(&mut self, number: Number, found: Option<String>) -> Option<String> {
        match found {
            Some(name) => {
                self.known.insert(number, name.clone());
                Some(name)
            }
            None => self.known.get(&number).cloned(),
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

    /// A block device's name, or `major:minor` if it is none or had gone before it was asked for.
    fn device(&mut self, device: u32) -> String {
        if device == 0 {
            return NONE.into();
        }
        let (major, minor) = (device >> 20, device & 0xf_ffff);
        let devices = &mut self.now.devices;
        let found = devices
            .entry(device)
            .or_insert_with(|| host::block_device(&self.root, major, minor))
            .clone();
        self.remember(Number::Device(device), found)
            .unwrap_or_else(|| format!("{major}:{minor}"))
    }

    /// A softirq as in /proc/softirqs, or `irq/NUMBER-NAME` as the kernel names threads of interrupts.
    fn vector(&mut self, kind: u32, number: u32) -> String {
        if kind == irq::kind::SOFTIRQ {
            let name = irq::SOFTIRQS.get(number as usize);
            return name.map_or_else(|| number.to_string(), |name| (*name).into());
        }
        let names = &mut self.now.interrupts;
        let names = names.get_or_insert_with(|| host::interrupts(&self.root));
        let found = names.get(&number).cloned();
        match self.remember(Number::Interrupt(number), found) {
            Some(name) => format!("irq/{number}-{name}"),
            None => format!("irq/{number}"),
        }
    }

    /// The path of a cgroup below the unified hierarchy's root, or `id:N` if it had gone before it was asked
    /// for.
    fn cgroup(&mut self, id: u64) -> String {
        let paths = &mut self.now.cgroups;
        let paths = paths.get_or_insert_with(|| host::cgroups(&self.root));
        let found = paths.get(&id).cloned();
        self.remember(Number::Cgroup(id), found)
            .unwrap_or_else(|| format!("id:{id}"))
    }

    /// The type of the file system on a device as it is mounted, or was, or what its magic number tells.
    fn file_system(&mut self, device: u32, magic: u32) -> String {
        if device == 0 && magic == 0 {
            return NONE.into();
        }
        let types = &mut self.now.file_systems;
        let types = types.get_or_insert_with(|| host::mounted(&self.root));
        let found = types.get(&device).cloned();
        self.remember(Number::FileSystem { device, magic }, found)
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
