//! The measuring probes against truths that iolag did not write, on this host. The checks themselves are in
//! `iolag_tests::truth`.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use iolag_tests::{
    refusal::assert_refused,
    truth::{Place, block, iostats, irq, memory, oom, sched, tasks, vfs},
};

fn fio() -> Command {
    Command::new(std::env::var_os("IOLAG_FIO").expect("checked before"))
}

/// Runs a check in a directory on a real disk.
fn check(run: fn(&Place<'_>) -> Result<()>) {
    let Some(place) = super::place::Place::new() else {
        return;
    };
    if std::env::var_os("IOLAG_FIO").is_none() {
        println!("skipped: IOLAG_FIO is not set, run cargo xtask test");
        return;
    }
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let result = run(&Place {
        program: &place.program,
        fio,
        dir,
        emulated: false,
    });
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

#[test]
fn block_counts_lie_between_two_readings_of_diskstats() {
    check(block::counts_lie_between_two_readings_of_diskstats);
}

#[test]
fn block_injected_delays_show_in_queue_and_total_only() {
    check(block::injected_delays_show_in_queue_and_total_only);
}

#[test]
fn block_anchor_3_queue_device_and_total_are_always_there() {
    check(block::anchor_3_queue_device_and_total_are_always_there);
}

#[test]
fn block_books_balance_when_tasks_die_and_series_run_out() {
    check(block::books_balance_when_tasks_die_and_series_run_out);
}

#[test]
fn block_requests_without_accounting_show_no_wrong_times() {
    check(iostats::requests_without_accounting_show_no_wrong_times);
}

#[test]
fn vfs_counts_are_exact() {
    check(|place| vfs::counts_are_exact(place, "tp"));
}

#[test]
fn anchor_8_vfs_sees_fsync_and_fdatasync() {
    check(|place| vfs::anchor_8_fsync_and_fdatasync_are_seen(place, "tp"));
}

#[test]
fn vfs_says_that_it_does_not_see_lookups() {
    check(|place| vfs::lookups_that_miss_are_counted(place, "tp"));
}

#[test]
fn vfs_shows_injected_delays_and_nowhere_else() {
    check(|place| vfs::injected_delays_show_and_nowhere_else(place, "tp"));
}

#[test]
fn vfs_shows_delays_attached_later() {
    check(|place| vfs::delays_attached_later_show_at_tracepoints_only(place, "tp"));
}

#[test]
fn vfs_latencies_agree_with_fio() {
    check(|place| vfs::latencies_agree_with_fio(place, "tp"));
}

#[test]
fn anchor_6_vfs_books_balance_when_tasks_die_inside() {
    check(|place| vfs::anchor_6_books_balance_when_tasks_die_inside(place, "tp"));
}

#[test]
fn vfs_loses_nothing_with_ten_thousand_cgroups() {
    check(|place| vfs::ten_thousand_cgroups_lose_nothing(place, "tp"));
}

#[test]
fn vfs_operations_older_than_the_probe_are_no_loss() {
    check(|place| vfs::operations_older_than_the_probe_are_no_loss(place, "tp"));
}

/// The probe `fn` on a kernel that has neither kprobes nor fentry; one that has is tested in QEMU.
#[test]
fn functions_are_refused_with_the_kernels_reasons() {
    let Some(place) = super::place::Place::new() else {
        return;
    };
    let hist = |probe: &str| place.call(&["hist", probe, "0.1", "1"]);
    assert_refused(&hist("fn"), 2, &["needs a function"]);
    assert_refused(&hist("fn:vfs_reed"), 2, &["unknown function", "vfs_read"]);
    assert_refused(&hist("vfs:vfs_read"), 2, &["takes no function"]);
    let known = hist("fn:vfs_read");
    if known.status.success() {
        println!("this kernel can");
        return;
    }
    assert_refused(&known, 3, &["fentry vfs_read", "kprobe vfs_read"]);
}

#[test]
fn oom_kills_lie_between_two_readings_of_vmstat() {
    check(oom::oom_kills_lie_between_two_readings);
}

#[test]
fn anchor_9_oom_is_the_victims_not_the_askers() {
    check(oom::anchor_9_oom_is_the_victims_not_the_askers);
}

#[test]
fn memcg_reclaim_is_seen_and_the_books_balance() {
    check(memory::memcg_reclaim_is_seen_and_the_books_balance);
}

#[test]
fn major_faults_are_as_many_as_getrusage_says() {
    check(memory::major_faults_are_as_many_as_getrusage_says);
}

#[test]
fn anchor_4_sched_switches_lie_between_two_readings_of_ctxt() {
    check(sched::anchor_4_switches_lie_between_two_readings_of_ctxt);
}

#[test]
fn sched_waits_agree_with_schedstat() {
    check(sched::waits_agree_with_schedstat);
}

#[test]
fn anchor_5_sched_waits_belong_to_the_task_that_waited() {
    check(sched::anchor_5_waits_belong_to_the_task_that_waited);
}

#[test]
fn anchors_6_and_11_sched_tasks_that_are_gone_leave_nothing() {
    check(sched::anchors_6_and_11_tasks_that_are_gone_leave_nothing);
}

#[test]
fn sched_tasks_agree_with_their_own_schedstat() {
    check(tasks::tasks_agree_with_their_own_schedstat);
}

#[test]
fn irq_softirqs_lie_between_two_readings_of_proc() {
    check(irq::softirqs_lie_between_two_readings_of_proc);
}

#[test]
fn anchor_7_softirqs_inside_a_program_are_seen() {
    check(irq::anchor_7_softirqs_inside_a_program_are_seen);
}

#[test]
fn irq_interrupts_lie_between_two_readings_of_proc() {
    check(irq::interrupts_lie_between_two_readings_of_proc);
}
