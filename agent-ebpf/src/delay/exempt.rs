//! Whom no rule delays.

use agent_common::{
    catalogue::slot,
    offsets::Offsets,
    rules::{Control, Set},
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_smp_processor_id};

use super::{
    AGENT_TGID, CONTROL,
    kernel::{at, field, offsets},
};

/// The rules for which whoever is here is exempt: the agent's own program is from all, so that its commands are never
/// slow; PID 1 from those that do not name it; and an interrupt from all.
///
/// A global function, see `ruled`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn exempt_rules(slot: u32) -> u64 {
    let (control, offsets) = (CONTROL.get(), offsets());
    if slot >= slot::FUNCTIONS && in_interrupt(control) {
        return Set::MAX;
    }
    let group = (bpf_get_current_pid_tgid() >> 32) as u32;
    if group == AGENT_TGID.load() {
        // Where a hit was asked about that before, its answer came from where BTF says that it is.
        return Set::MAX;
    }
    let rules = if group == 1 { !control.init } else { 0 };
    if control.agent_inode != 0 && runs_agent(control, offsets) {
        return Set::MAX;
    }
    rules
}

/// Whether the current task runs the agent's program, under whatever name.
#[inline(always)]
fn runs_agent(control: &Control, offsets: &Offsets) -> bool {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let memory: u64 = field(task, offsets.task_memory);
    if memory == 0 {
        return false;
    }
    let file: u64 = field(memory, offsets.memory_program);
    let inode: u64 = field(file, offsets.file_inode);
    if field::<u64>(inode, offsets.inode_number) != control.agent_inode {
        return false;
    }
    let sb: u64 = field(inode, offsets.inode_sb);
    u64::from(field::<u32>(sb, offsets.sb_device)) == control.agent_device
}

/// Bits of the count for hard interrupts and NMIs (`include/linux/preempt.h`, since 5.8).
const INTERRUPTS: u32 = 0x00ff_0000;

/// Whether this is a hard interrupt or an NMI. The other points are never reached in one: file operations and the
/// block layer's dispatch may sleep or run with interrupts on. A kprobe that is a breakpoint, and not ftrace's, is an
/// NMI by the kernel's books, so nothing is delayed there.
#[inline(always)]
fn in_interrupt(control: &Control) -> bool {
    if control.preempt_count == 0 {
        return true;
    }
    // SAFETY: a helper without arguments.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    let offset: u64 = at(control.cpu_offsets.wrapping_add(cpu * 8));
    let count: u32 = at(control.preempt_count.wrapping_add(offset));
    count & INTERRUPTS != 0
}
