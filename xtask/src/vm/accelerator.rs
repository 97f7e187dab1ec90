//! KVM or emulation. A /dev/kvm that is there may still be unable to run a kernel, as in a nested virtual machine;
//! the only proof is a boot.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::machine::Machine;
use super::{disk, initramfs, logs, qemu};
use crate::build::Built;
use crate::cache::Cache;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    /// QEMU's own translation, which works everywhere and is several times slower.
    Tcg,
    /// The same with one CPU, whose clock counts its instructions: one is one ns. For counting, not for time.
    Instructions,
}

/// A kernel under KVM is up within a second or two.
const DEADLINE: Duration = Duration::from_secs(15);
const VERDICT: &str = "kvm-verdict";

/// Tries KVM once for each boot of this host, and remembers.
pub fn choose(cache: &Cache, kernel: &Path, built: &Built) -> Result<Accelerator> {
    if fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(Accelerator::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let known = fs::read_to_string(cache.path(VERDICT)).unwrap_or_default();
    match known.trim().strip_prefix(boot.trim()) {
        Some(" boots") => return Ok(Accelerator::Kvm),
        Some(" hangs") => return Ok(Accelerator::Tcg),
        _ => {}
    }
    let boots = boots(cache, kernel, built)?;
    cache.write(
        VERDICT,
        &format!(
            "{} {}\n",
            boot.trim(),
            if boots { "boots" } else { "hangs" }
        ),
    )?;
    eprintln!(
        "vm: {}",
        if boots {
            "KVM works"
        } else {
            "KVM does not boot a kernel here; QEMU emulates"
        }
    );
    Ok(if boots {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    })
}

fn boots(cache: &Cache, kernel: &Path, built: &Built) -> Result<bool> {
    let initrd = logs().join("kvm.cpio");
    initramfs::write(&initrd, built, &kernel.with_file_name("modules"), &[])?;
    let machine = Machine {
        name: "kvm".into(),
        qemu: qemu(cache)?,
        kernel: kernel.to_owned(),
        initrd,
        disk: disk::image(cache)?,
        log: logs().join("kvm.log"),
        tests: vec!["none".into()],
        long: false,
        accelerator: Accelerator::Kvm,
    };
    Ok(machine.run(DEADLINE, false)?.verdict.is_some())
}
