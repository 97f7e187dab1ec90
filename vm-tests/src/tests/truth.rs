//! The measuring probes against truths that iolag did not write, on a stock kernel. The checks themselves are
//! in `iolag_tests::truth`.

use std::{path::Path, time::Duration};

use anyhow::Result;
use iolag_tests::truth::{Place, block, function, iostats, irq, memory, oom, sched, tasks, vfs};

use crate::guest;

fn run(check: &dyn Fn(&Place<'_>) -> Result<()>) -> Result<()> {
    check(&Place {
        program: Path::new("/iolag"),
        fio: guest::fio,
        dir: "/mnt".into(),
        emulated: true,
    })
}

pub fn block_counts() -> Result<()> {
    run(&block::counts_lie_between_two_readings_of_diskstats)
}

pub fn vfs_fentry() -> Result<()> {
    vfs_through("fentry")
}

pub fn vfs_kprobe() -> Result<()> {
    vfs_through("kprobe")
}

pub fn vfs_tp() -> Result<()> {
    vfs_through("tp")
}

pub fn vfs_books_fentry() -> Result<()> {
    vfs_books_through("fentry")
}

pub fn vfs_books_kprobe() -> Result<()> {
    vfs_books_through("kprobe")
}

pub fn vfs_books_tp() -> Result<()> {
    vfs_books_through("tp")
}

type Check = fn(&Place<'_>, &str) -> Result<()>;

fn all(checks: &[Check], backend: &str) -> Result<()> {
    checks
        .iter()
        .try_for_each(|check| run(&|place| check(place, backend)))
}

pub fn block_oracle() -> Result<()> {
    run(&block::injected_delays_show_in_queue_and_total_only)
}

pub fn block_anchor_3() -> Result<()> {
    run(&block::anchor_3_queue_device_and_total_are_always_there)
}

pub fn block_books() -> Result<()> {
    run(&block::books_balance_when_tasks_die_and_series_run_out)
}

/// On a disk of a module.
pub fn block_iostats() -> Result<()> {
    guest::load_module("loop", "")?;
    guest::wait_for("/dev/loop-control", Duration::from_secs(10))?;
    run(&iostats::requests_without_accounting_show_no_wrong_times)
}

/// What the probe `vfs` says of latency, the delays and the probe attached through one backend.
fn vfs_through(backend: &str) -> Result<()> {
    let _patching = guest::OneCpu::new()?;
    all(
        &[
            vfs::counts_are_exact,
            vfs::anchor_8_fsync_and_fdatasync_are_seen,
            vfs::lookups_that_miss_are_counted,
            vfs::injected_delays_show_and_nowhere_else,
            vfs::latencies_agree_with_fio,
        ],
        backend,
    )
}

/// What its ledger says, and what the order of attaching does.
fn vfs_books_through(backend: &str) -> Result<()> {
    let _patching = guest::OneCpu::new()?;
    all(
        &[
            vfs::operations_older_than_the_probe_are_no_loss,
            vfs::anchor_6_books_balance_when_tasks_die_inside,
            vfs::ten_thousand_cgroups_lose_nothing,
            vfs::delays_attached_later_show_at_tracepoints_only,
        ],
        backend,
    )
}

pub fn functions() -> Result<()> {
    for backend in ["fentry", "kprobe"] {
        run(&|place| function::functions_are_counted_and_timed(place, backend))?;
    }
    run(&function::functions_that_cannot_be_traced_are_refused)
}

pub fn memory_oom_counts() -> Result<()> {
    run(&oom::oom_kills_lie_between_two_readings)
}

pub fn memory_oom_victim() -> Result<()> {
    run(&oom::anchor_9_oom_is_the_victims_not_the_askers)
}

pub fn memory_reclaim() -> Result<()> {
    run(&memory::memcg_reclaim_is_seen_and_the_books_balance)
}

pub fn memory_faults() -> Result<()> {
    run(&memory::major_faults_are_as_many_as_getrusage_says)
}

pub fn memory_oom_alone() -> Result<()> {
    run(&oom::a_kill_is_followed_without_an_agent)
}

pub fn sched_switches() -> Result<()> {
    run(&sched::anchor_4_switches_lie_between_two_readings_of_ctxt)
}

pub fn sched_schedstat() -> Result<()> {
    run(&sched::waits_agree_with_schedstat)
}

pub fn sched_owner() -> Result<()> {
    run(&sched::anchor_5_waits_belong_to_the_task_that_waited)
}

pub fn sched_tasks() -> Result<()> {
    run(&sched::anchors_6_and_11_tasks_that_are_gone_leave_nothing)
}

pub fn sched_top() -> Result<()> {
    run(&tasks::tasks_agree_with_their_own_schedstat)
}

pub fn sched_offline() -> Result<()> {
    run(&sched::books_balance_when_a_cpu_goes_offline)
}

pub fn irq_softirqs() -> Result<()> {
    run(&irq::softirqs_lie_between_two_readings_of_proc)
}

pub fn irq_interrupts() -> Result<()> {
    run(&irq::interrupts_lie_between_two_readings_of_proc)
}

pub fn irq_anchor_7() -> Result<()> {
    run(&irq::anchor_7_softirqs_inside_a_program_are_seen)
}

pub fn irq_offline() -> Result<()> {
    run(&irq::books_balance_when_a_cpu_goes_offline)
}
