//! What is at a point: a file, a request, or a directory in which a name is looked up.

use agent_common::{catalogue::slot, offsets::Offsets, probes::block::op};
use aya_ebpf::helpers::bpf_get_current_task;

use crate::kernel::{at, field, has, offsets};

/// What the first word that a twin passes on is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Given {
    /// A `struct file`, or null.
    File,
    /// A `struct dentry`.
    Dentry,
    /// A `struct path`.
    Path,
    /// A `struct request`.
    Request,
    /// A descriptor.
    Descriptor,
    /// The registers of a system call whose first argument is a descriptor and the third a size.
    Registers,
    Nothing,
}

impl From<u32> for Given {
    #[inline(always)]
    fn from(number: u32) -> Self {
        match number {
            0 => Self::File,
            1 => Self::Dentry,
            2 => Self::Path,
            3 => Self::Request,
            4 => Self::Descriptor,
            5 => Self::Registers,
            _ => Self::Nothing,
        }
    }
}

pub struct Subject {
    /// Of the above; null if there is none.
    pub file: u64,
    pub dentry: u64,
    /// Of a dentry: the `struct vfsmount` through which it was found.
    pub mount: u64,
    pub request: u64,
    pub op: u32,
}

impl Subject {
    #[inline(always)]
    pub fn new(offsets: &Offsets, point: u32, given: Given, word: u64) -> Self {
        let mut subject = Self {
            file: 0,
            dentry: 0,
            mount: 0,
            request: 0,
            op: op::COUNT,
        };
        match given {
            Given::File => subject.file = word,
            Given::Dentry => subject.dentry = word,
            Given::Path => {
                subject.dentry = field(word, offsets.path_dentry);
                subject.mount = field(word, offsets.path_mount);
            }
            Given::Descriptor => subject.file = file_of(offsets, word as u32),
            Given::Registers => {
                let fd: u64 = field(word, offsets.registers_first);
                subject.file = file_of(offsets, fd as u32);
            }
            Given::Request => {
                subject.request = word;
                subject.op = op::of_flags(field(word, offsets.request_flags));
            }
            Given::Nothing => {}
        }
        match point {
            slot::VFS_READ => subject.op = op::READ,
            slot::VFS_WRITE => subject.op = op::WRITE,
            slot::VFS_FSYNC => subject.op = op::FLUSH,
            _ => {}
        }
        subject
    }

    /// The two devices (`major << 20 | minor`) that it is on: of a request the partition and the disk, of a file
    /// the file system's and, of a block device's node, the device's own. 0 is none.
    #[inline(always)]
    pub fn devices(&self, offsets: &Offsets) -> (u32, u32) {
        if self.request != 0 {
            return request_devices(offsets, self.request);
        }
        if self.file != 0 {
            // Not the dentry's, which for a file of an overlay is another.
            let inode: u64 = field(self.file, offsets.file_inode);
            let sb: u64 = field(inode, offsets.inode_sb);
            let mode: u16 = field(inode, offsets.inode_mode);
            let own: u32 = if u32::from(mode) & S_IFMT == S_IFBLK {
                field(inode, offsets.inode_device)
            } else {
                0
            };
            return (field(sb, offsets.sb_device), own);
        }
        let sb: u64 = field(self.dentry, offsets.dentry_sb);
        (field(sb, offsets.sb_device), 0)
    }

    /// Where its path begins: a `struct dentry` and the `struct mount` through which it was opened, or null.
    #[inline(always)]
    pub fn path(&self, offsets: &Offsets) -> (u64, u64) {
        let (dentry, inner): (u64, u64) = if self.file == 0 {
            (self.dentry, self.mount)
        } else {
            (
                field(self.file, offsets.file_dentry),
                field(self.file, offsets.file_mount),
            )
        };
        let mount = match inner {
            0 => 0,
            inner => inner.wrapping_sub(offsets.mount_inner),
        };
        (dentry, mount)
    }
}

/// `include/uapi/linux/stat.h`.
const S_IFMT: u32 = 0o170_000;
const S_IFBLK: u32 = 0o060_000;

#[inline(always)]
fn request_devices(offsets: &Offsets, request: u64) -> (u32, u32) {
    let part: u32 = if has(offsets.request_part) && has(offsets.part_device) {
        match field::<u64>(request, offsets.request_part) {
            0 => 0,
            part => field(part, offsets.part_device),
        }
    } else {
        0
    };
    let disk: u64 = if has(offsets.queue_disk) {
        field(field(request, offsets.request_queue), offsets.queue_disk)
    } else {
        field(request, offsets.request_disk)
    };
    let major: u32 = field(disk, offsets.disk_major);
    let minor: u32 = field(disk, offsets.disk_minor);
    (part, major << 20 | minor)
}

/// The current task's file of that descriptor, or null.
#[inline(always)]
fn file_of(offsets: &Offsets, fd: u32) -> u64 {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let table: u64 = field(field(task, offsets.task_files), offsets.files_table);
    if fd >= field::<u32>(table, offsets.table_length) {
        return 0;
    }
    let files: u64 = field(table, offsets.table_files);
    at(files.wrapping_add(u64::from(fd) * 8))
}

/// The third argument of a system call, by its registers.
#[inline(always)]
pub fn third(registers: u64) -> u64 {
    match offsets() {
        Some(offsets) => field(registers, offsets.registers_third),
        None => 0,
    }
}

/// What is left to do of a request (bytes).
#[inline(always)]
pub fn length(request: u64) -> u64 {
    match offsets() {
        Some(offsets) => field::<u32>(request, offsets.request_length).into(),
        None => 0,
    }
}
