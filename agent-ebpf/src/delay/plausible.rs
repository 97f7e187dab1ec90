//! Which rules a hit may satisfy at all: what is cheap to tell, for every hit to be told first. What is left goes through
//! `filters`, which know for certain.
//!
//! A call is what costs here, even of a helper that does nothing: where a kernel guards its returns (AMD's Safe RET), each
//! takes as long as five reads. So there are few.

use agent_common::rules::{Control, Kind, Quick, Set};

use aya_ebpf::helpers::bpf_get_current_uid_gid;

use super::{
    CONTROL, cgroups,
    filters::{current_comm, is_wanted, may_be_of_size},
    kernel::{direct_field, has, is_direct, offsets},
    subject::file_of_call,
    tree::may_be_under,
};

/// Those of `rules` that the current task may satisfy, with what [`super::kernel::current`] tells of it.
#[inline(always)]
pub fn of_task(control: &Control, rules: Set, task: u64, group: u32) -> Set {
    let mut rules = rules;
    let by = |kind: Kind| control.by[kind as usize];
    if rules & by(Kind::Pid) != 0 && !is_wanted(Quick::Pid, group.into(), 0) {
        rules &= !by(Kind::Pid);
    }
    if rules & by(Kind::Uid) != 0 && !is_wanted(Quick::Uid, user(task), 0) {
        rules &= !by(Kind::Uid);
    }
    if rules & by(Kind::Comm) != 0 {
        let (first, second) = command(task);
        if !is_wanted(Quick::Comm, first, second) {
            rules &= !by(Kind::Comm);
        }
    }
    if rules & by(Kind::Cgroup) != 0
        && let Some(found) = cgroups::remembered(control, task)
    {
        rules &= !by(Kind::Cgroup) | found;
    }
    rules
}

/// The same out of line, for programs at functions, of which there are many. A global function, see `ruled`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn plausible(rules: u64, group: u32) -> u64 {
    of_task(CONTROL.get(), rules, 0, group)
}

/// The current task's real user: what the helper tells, which asks the user namespace that the kernel began with.
#[inline(always)]
fn user(task: u64) -> u64 {
    if task == 0 || !is_direct() {
        return bpf_get_current_uid_gid() & 0xffff_ffff;
    }
    let offsets = offsets();
    let credentials: u64 = direct_field(task, offsets.task_credentials);
    direct_field::<u32>(credentials, offsets.credentials_user).into()
}

/// The current task's command, as [`current_comm`] has it. Kernels that can be read directly fill what the name leaves with
/// zeroes (`__set_task_comm`, fs/exec.c), as the helper does.
#[inline(always)]
fn command(task: u64) -> (u64, u64) {
    if task == 0 || !is_direct() {
        let key = current_comm();
        return (key.value, key.more);
    }
    let offsets = offsets();
    let first: u64 = direct_field(task, offsets.task_command);
    let second: u64 = direct_field(task, offsets.task_command + 8);
    (u64::from_le(first), u64::from_le(second))
}

/// Those of `rules` that a system call of `task` may satisfy by its file and size; all, where reads are not direct.
#[inline(always)]
pub fn of_call(control: &Control, rules: Set, task: u64, registers: u64) -> Set {
    let by = |kind: Kind| control.by[kind as usize];
    let by_file = by(Kind::Size) | by(Kind::Device) | by(Kind::Under);
    if rules & by_file == 0 || task == 0 || !is_direct() {
        return rules;
    }
    let mut rules = rules;
    let offsets = offsets();
    if rules & by(Kind::Size) != 0 {
        let size = direct_field(registers, offsets.registers_third);
        if !may_be_of_size(control, size) {
            rules &= !by(Kind::Size);
        }
    }
    if rules & (by(Kind::Device) | by(Kind::Under)) == 0 {
        return rules;
    }
    let file = file_of_call(offsets, task, registers);
    if rules & by(Kind::Device) != 0 {
        let inode: u64 = direct_field(file, offsets.file_inode);
        let sb: u64 = direct_field(inode, offsets.inode_sb);
        let device: u32 = direct_field(sb, offsets.sb_device);
        // That of the node of a device; of others it is 0.
        let own: u32 = direct_field(inode, offsets.inode_device);
        if !may_be(device) && (own == 0 || !may_be(own)) {
            rules &= !by(Kind::Device);
        }
    }
    if rules & by(Kind::Under) != 0 {
        let dentry = direct_field(file, offsets.file_dentry);
        let mount = direct_field::<u64>(file, offsets.file_mount);
        if !may_be_under(dentry, mount.wrapping_sub(offsets.mount_inner)) {
            rules &= !by(Kind::Under);
        }
    }
    rules
}

/// Those of `rules` that a request may satisfy by itself, where reads are direct. Few instructions, as between two
/// requests the caches are full of other things.
#[inline(always)]
pub fn of_request(control: &Control, rules: Set, request: u64) -> Set {
    if !is_direct() {
        return rules;
    }
    let offsets = offsets();
    let mut rules = rules;
    let by_size = rules & control.by[Kind::Size as usize];
    if by_size != 0 {
        let size: u32 = direct_field(request, offsets.request_length);
        if !may_be_of_size(control, size.into()) {
            rules &= !by_size;
        }
    }
    let by_device = rules & control.by[Kind::Device as usize];
    let together = offsets.disk_minor == offsets.disk_major + 4;
    if by_device == 0 || !has(offsets.request_part) || !together {
        return rules;
    }
    let part: u64 = direct_field(request, offsets.request_part);
    let part: u32 = direct_field(part, offsets.part_device);
    let queue: u64 = direct_field(request, offsets.request_queue);
    let disk: u64 = direct_field(queue, offsets.queue_disk);
    let numbers: u64 = u64::from_le(direct_field(disk, offsets.disk_major));
    let disk = (numbers as u32) << 20 | (numbers >> 32) as u32;
    if may_be(disk) || part != disk && may_be(part) {
        return rules;
    }
    rules & !by_device
}

#[inline(always)]
fn may_be(device: u32) -> bool {
    is_wanted(Quick::Device, device.into(), 0)
}
