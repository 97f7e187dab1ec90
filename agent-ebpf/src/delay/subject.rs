//! What is at a point: a file, a request, or a directory in which a name is looked up.

use agent_common::{catalogue::slot, offsets::Offsets, probes::block::op};
use aya_ebpf::helpers::bpf_get_current_task;

use super::kernel::{at, direct_field, field, has, offsets};

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
    /// Nothing, of a system call.
    Call,
    Nothing,
}

impl Given {
    /// Whether the point was chosen by the number of a system call.
    #[inline(always)]
    pub fn by_number(self) -> bool {
        matches!(self, Self::Descriptor | Self::Registers | Self::Call)
    }
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
            6 => Self::Call,
            _ => Self::Nothing,
        }
    }
}

/// What is there, of which nothing is read before a filter asks for it.
pub struct Subject {
    given: Given,
    word: u64,
}

impl Subject {
    #[inline(always)]
    pub const fn new(given: Given, word: u64) -> Self {
        Self { given, word }
    }

    /// The request, or null.
    #[inline(always)]
    pub fn request(&self) -> u64 {
        match self.given {
            Given::Request => self.word,
            _ => 0,
        }
    }

    /// The file, or null.
    #[inline(always)]
    fn file(&self, offsets: &Offsets) -> u64 {
        match self.given {
            Given::File => self.word,
            Given::Descriptor => file_of(offsets, self.word as u32),
            Given::Registers => {
                let fd: u64 = field(self.word, offsets.registers_first);
                file_of(offsets, fd as u32)
            }
            _ => 0,
        }
    }

    /// Place of the operation; `op::COUNT` if it has none.
    #[inline(always)]
    pub fn op(&self, offsets: &Offsets, point: u32) -> u32 {
        match point {
            slot::VFS_READ => op::READ,
            slot::VFS_WRITE => op::WRITE,
            slot::VFS_FSYNC => op::FLUSH,
            slot::BLOCK_ISSUE => op::of_flags(field(self.word, offsets.request_flags)),
            _ => op::COUNT,
        }
    }

    /// The two devices (`major << 20 | minor`) that it is on: of a request the partition and the disk, of a file
    /// the file system's and, of a block device's node, the device's own. 0 is none.
    #[inline(always)]
    pub fn devices(&self, offsets: &Offsets) -> (u32, u32) {
        let request = self.request();
        if request != 0 {
            return request_devices(offsets, request);
        }
        let file = self.file(offsets);
        if file == 0 {
            let (dentry, _) = self.place(offsets);
            let sb: u64 = field(dentry, offsets.dentry_sb);
            return (field(sb, offsets.sb_device), 0);
        }
        // Not the dentry's, which for a file of an overlay is another.
        let inode: u64 = field(file, offsets.file_inode);
        let sb: u64 = field(inode, offsets.inode_sb);
        let mode: u16 = field(inode, offsets.inode_mode);
        let own: u32 = if u32::from(mode) & S_IFMT == S_IFBLK {
            field(inode, offsets.inode_device)
        } else {
            0
        };
        (field(sb, offsets.sb_device), own)
    }

    /// Where its path begins: a `struct dentry` and the `struct mount` through which it was opened, or null.
    #[inline(always)]
    pub fn path(&self, offsets: &Offsets) -> (u64, u64) {
        let (dentry, inner) = self.place(offsets);
        match inner {
            0 => (dentry, 0),
            inner => (dentry, inner.wrapping_sub(offsets.mount_inner)),
        }
    }

    /// A `struct dentry`, and the `struct vfsmount` through which it was found, or null.
    #[inline(always)]
    fn place(&self, offsets: &Offsets) -> (u64, u64) {
        match self.given {
            Given::Dentry => (self.word, 0),
            Given::Path => (
                field(self.word, offsets.path_dentry),
                field(self.word, offsets.path_mount),
            ),
            _ => {
                let file = self.file(offsets);
                (
                    field(file, offsets.file_dentry),
                    field(file, offsets.file_mount),
                )
            }
        }
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

/// The file that is the first argument of a system call of `task`, or null. Only where reads are direct.
#[inline(always)]
pub fn file_of_call(offsets: &Offsets, task: u64, registers: u64) -> u64 {
    let fd: u64 = direct_field(registers, offsets.registers_first);
    let files: u64 = direct_field(task, offsets.task_files);
    let table: u64 = direct_field(files, offsets.files_table);
    let length: u32 = direct_field(table, offsets.table_length);
    if fd as u32 >= length {
        return 0;
    }
    let files: u64 = direct_field(table, offsets.table_files);
    direct_field(files, (fd as u32 as u64) << 3)
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

/// Bytes that it is about: what the request has, or the call asks for. `size` is what the twin passed on.
#[inline(always)]
pub fn size(given: Given, word: u64, size: u64) -> u64 {
    let offsets = offsets();
    match given {
        Given::Registers => field(word, offsets.registers_third),
        Given::Request => field::<u32>(word, offsets.request_length).into(),
        _ => size,
    }
}
