//! Whom each filter is for, and whom not: see `iolag_tests::scope`. By functions, and for what this host may not have,
//! the same is tried in virtual machines.

use std::{fs, path::Path, process::Command};

use iolag_tests::{
    loop_device::LoopDevice,
    scope::{Stage, run},
};

use crate::place::Place;

fn tried(names: &[&str]) {
    let Some(place) = Place::new() else {
        return;
    };
    let memory = Path::new("/dev/shm");
    let dirs = (place.dir.as_path(), memory);
    let mut stage = Stage::new(&place.program, None, dirs).unwrap();
    stage.fio = std::env::var_os("IOLAG_FIO").map(|_| fio as fn() -> Command);
    let device = names
        .contains(&"requests by device")
        .then(|| second_device(memory));
    stage.other_device = match &device {
        Some(Ok(device)) => Some(device.path().to_owned()),
        Some(Err(error)) => {
            println!("skipped: no second device: {error:#}");
            None
        }
        None => None,
    };
    for name in names {
        if let Err(error) = run(&stage, name) {
            panic!("{error:#}");
        }
    }
}

fn second_device(memory: &Path) -> anyhow::Result<LoopDevice> {
    let file = memory.join(format!("iolag-scope-loop-{}", std::process::id()));
    let device = LoopDevice::new(&file);
    // The device has it, as long as it lasts.
    fs::remove_file(&file)?;
    device
}

fn fio() -> Command {
    Command::new(std::env::var_os("IOLAG_FIO").expect("was there a moment ago"))
}

#[test]
fn a_rule_for_a_process_delays_its_threads_and_no_children() {
    tried(&["pid"]);
}

#[test]
fn a_rule_for_later_children_follows_them() {
    tried(&["children", "exec", "namespaces"]);
}

#[test]
fn a_rule_for_a_command_delays_that_name_alone() {
    tried(&["comm"]);
}

#[test]
fn a_rule_for_a_uid_delays_that_user_alone() {
    tried(&["uid"]);
}

#[test]
fn a_rule_with_several_filters_delays_who_satisfies_all() {
    tried(&["all filters"]);
}

#[test]
fn a_rule_for_a_cgroup_delays_who_is_in_it_now() {
    tried(&["cgroup", "cgroup moved"]);
}

#[test]
fn a_rule_for_a_device_delays_its_files_alone() {
    tried(&["device"]);
}

#[test]
fn a_rule_for_an_operation_or_size_delays_that_alone() {
    tried(&["op", "size"]);
}

#[test]
fn a_32_bit_call_is_not_taken_for_the_64_bit_one_of_its_number() {
    tried(&["32 bits"]);
}

#[test]
fn a_call_of_fsync_is_delayed_once() {
    tried(&["fsync"]);
}

#[test]
fn a_rule_for_a_directory_delays_what_is_below_it_now() {
    tried(&["under", "under renamed", "under mounts"]);
}

#[test]
fn a_rule_at_lookups_delays_those_in_its_directory() {
    tried(&["lookup"]);
}

#[test]
fn a_rule_for_requests_goes_by_who_submitted_them() {
    tried(&["requests by task", "requests by cgroup"]);
}

#[test]
fn a_rule_for_requests_goes_by_what_they_are() {
    tried(&["requests by kind", "requests by device"]);
}

#[test]
fn a_rule_at_a_function_delays_its_callers() {
    tried(&["fn"]);
}
