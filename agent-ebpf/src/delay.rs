//! The probe `delay`, see `delay/mod.rs`: for kernels since 5.17.
#![no_std]
#![no_main]

#[path = "delay/mod.rs"]
mod delay;

use agent_ebpf as _;

/// Whether this is the object for kernels without what came after 5.10: `bpf_loop`, `bpf_get_func_ip`, atomic
/// operations that tell what was there before. Which one the kernel can load, user space finds out.
const BOUNDED: bool = false;

/// Programs call GPL-only helpers, so they declare a compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
