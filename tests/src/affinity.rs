//! Which CPUs a thread may run on.

use std::io::Error;

use anyhow::{Result, ensure};

/// The CPUs that the calling thread may run on.
#[must_use]
pub fn cpus() -> Vec<usize> {
    // SAFETY: a set of bits, all 0.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as is said; 0 is the calling thread.
    unsafe { libc::sched_getaffinity(0, size_of_val(&allowed), &raw mut allowed) };
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: `cpu` is below the size of the set.
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &allowed) })
        .collect()
}

/// Has the calling thread run on `cpu` only.
///
/// # Errors
/// There is no such CPU, or the thread may not run there.
pub fn go_to(cpu: usize) -> Result<()> {
    send(0, cpu)
}

/// Has a thread run on `cpu` only; 0 is the calling one.
///
/// # Errors
/// There is no such CPU, or the thread may not run there.
pub fn send(thread: libc::pid_t, cpu: usize) -> Result<()> {
    ensure!(cpu < libc::CPU_SETSIZE as usize, "no CPU {cpu}");
    // SAFETY: a set of bits, all 0.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` is below the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut one) };
    // SAFETY: the set is as large as is said.
    let set = unsafe { libc::sched_setaffinity(thread, size_of_val(&one), &raw const one) };
    ensure!(
        set == 0,
        "failed to go to CPU {cpu}: {}",
        Error::last_os_error()
    );
    Ok(())
}

/// Has a process run before all that is not urgent, and what it will fork too; 0 is the calling thread.
///
/// # Errors
/// It may not.
pub fn urge(process: libc::pid_t) -> Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: plain data that lives for the time of the call.
    let set = unsafe { libc::sched_setscheduler(process, libc::SCHED_FIFO, &raw const priority) };
    ensure!(
        set == 0,
        "failed to run {process} before others: {}",
        Error::last_os_error()
    );
    Ok(())
}
