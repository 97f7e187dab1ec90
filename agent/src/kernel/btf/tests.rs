//! Sound BTF is taken, and each hostile one refused, within bounded time; by both crates that parse it too.

use std::{fs, path::Path, time::Instant};

use agent_common::quantiles::random;
use aya_obj::btf::BtfKind;
use iolag_tests::btf::{hostile, sound};

use super::{FunctionIds, Vetted, bytes};
use crate::{failure::HOST, kernel::types::KernelTypes};

const RUNNING: &str = "/sys/kernel/btf/vmlinux";

#[test]
fn what_is_hostile_is_refused_with_the_reason() {
    for (name, words, bytes) in hostile() {
        let start = Instant::now();
        let told = Vetted::new(bytes).expect_err(name);
        assert!(told.contains(words), "{name}: {told}");
        assert!(start.elapsed().as_secs() < 5, "{name}");
    }
}

#[test]
fn what_is_sound_is_taken_and_says_where_fields_are() {
    let btf = Vetted::new(sound().bytes()).unwrap();
    btf.aya().unwrap();
    let types = KernelTypes::parse(&btf).unwrap();
    assert_eq!(types.offset("file", "f_path.dentry"), Some(24));
    assert_eq!(types.offset("task_struct", "tgid"), Some(0));
    assert_eq!(types.offset("task_struct", "flags"), Some(4));
    assert_eq!(types.offset("task_struct", "mm"), Some(32));
    assert_eq!(types.offset("task_struct", "nothing"), None);
    assert_eq!(types.enumerator("io_cgrp_id"), Some(3));
    assert_eq!(types.tracepoint_arguments("block_rq_issue"), Some(2));
}

#[test]
fn a_file_that_is_no_btf_is_told_in_one_line() {
    let missing = Vetted::read(Path::new("/nowhere/vmlinux")).unwrap_err();
    assert_eq!(missing.code, HOST);
    assert!(
        missing.message.contains("/nowhere/vmlinux: No such file"),
        "{missing}"
    );
    let endless = Vetted::read(Path::new("/dev/zero")).unwrap_err();
    assert!(endless.message.ends_with("larger than 32 MiB"), "{endless}");
}

/// aya finds the same ids in what is made of them as in all of the kernel's BTF.
#[test]
fn functions_keep_their_ids() {
    if fs::metadata(RUNNING).is_err() {
        println!("skipped: this kernel has no BTF");
        return;
    }
    let vetted = Vetted::read(Path::new(RUNNING)).unwrap();
    let wanted = [
        "vfs_read",
        "vfs_write",
        "blk_mq_start_request",
        "no_function",
    ];
    let functions = FunctionIds::find(&vetted, wanted).unwrap();
    let (all, few) = (vetted.aya().unwrap(), functions.btf().unwrap());
    let id = |btf: &aya::Btf, name| btf.id_by_type_name_kind(name, BtfKind::Func).ok();
    for name in &wanted[..3] {
        assert!(id(&all, name).is_some_and(|id| id > 0), "{name}");
        assert_eq!(id(&all, name), id(&few, name), "{name}");
    }
    assert_eq!(id(&few, "no_function"), None);
    assert_eq!(id(&few, "vfs_open"), None);
    let none = FunctionIds::find(&vetted, []).unwrap().btf().unwrap();
    assert_eq!(id(&none, "vfs_read"), None);
}

/// Where a kernel has BTF: it is taken, and the same with some bytes changed is taken or refused, and then read. What is
/// read takes a second of a test's time, so that most are changed where the vetting finds it.
#[test]
fn the_running_kernels_own_is_taken_and_survives_changes() {
    if fs::metadata(RUNNING).is_err() {
        println!("skipped: this kernel has no BTF");
        return;
    }
    let real = bytes(Path::new(RUNNING)).unwrap();
    let start = Instant::now();
    let vetted = Vetted::new(real.clone()).unwrap();
    println!("{} KiB vetted in {:?}", real.len() >> 10, start.elapsed());
    let types = KernelTypes::parse(&vetted).unwrap();
    assert!(types.offset("task_struct", "tgid").is_some());
    let (mut refused, mut taken) = (0, 0);
    for number in 0..40 {
        let mut bytes = real.clone();
        for change in 0..=number % 4 {
            // Every second one in the header.
            let of = if number % 2 == 0 {
                24
            } else {
                bytes.len() as u64
            };
            let place = random(number, change * 2) % of;
            bytes[place as usize] ^= 1 << (random(number, change * 2 + 1) % 8);
        }
        match Vetted::new(bytes) {
            Err(_) => refused += 1,
            Ok(btf) => {
                taken += 1;
                let _refused = btf.aya();
            }
        }
    }
    println!("{refused} refused, {taken} taken");
    assert!(
        refused > 10 && taken > 0,
        "{refused} refused, {taken} taken"
    );
}
