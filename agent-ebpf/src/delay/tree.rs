//! Whether a file is under a directory that a rule names.

use core::ffi::c_void;

use agent_common::{
    offsets::Offsets,
    rules::{Control, Kind, Set, Wanted},
};
use aya_ebpf::helpers::generated::bpf_loop;

use crate::{
    filters::wanted,
    kernel::{field, offsets},
    subject::Subject,
};

/// Ancestors that are asked, of all mounts together.
const STEPS: u32 = 512;

struct Walk {
    dentry: u64,
    mount: u64,
    /// Rules that are sought, and those found.
    sought: Set,
    found: Set,
}

/// Those of `sought` that name a directory above the file. The way goes up to the root of the file system, also past
/// the directory that a bind mount shows, and on from where that file system is mounted.
#[inline(always)]
pub fn above(control: &Control, offsets: &Offsets, subject: &Subject, sought: Set) -> Set {
    let (dentry, mount) = subject.path(offsets);
    let mut walk = Walk {
        dentry,
        mount,
        sought,
        found: control.zero,
    };
    // SAFETY: `step` has the type that bpf_loop calls, and `walk` outlives the call.
    unsafe { bpf_loop(STEPS, step as *mut c_void, (&raw mut walk).cast(), 0) };
    walk.found
}

/// One directory: 1 ends the walk.
unsafe extern "C" fn step(_index: u64, walk: *mut c_void) -> i64 {
    // SAFETY: bpf_loop passes on the pointer that `above` gave it: a live `Walk` on its stack.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    let Some(offsets) = offsets() else {
        return 1;
    };
    if walk.dentry == 0 {
        return 1;
    }
    let inode: u64 = field(walk.dentry, offsets.dentry_inode);
    let sb: u64 = field(walk.dentry, offsets.dentry_sb);
    let device: u32 = field(sb, offsets.sb_device);
    let number: u64 = field(inode, offsets.inode_number);
    walk.found |= wanted(&Wanted::new(Kind::Under, number, device.into())) & walk.sought;
    if walk.found == walk.sought {
        return 1;
    }
    let parent: u64 = field(walk.dentry, offsets.dentry_parent);
    if parent != walk.dentry {
        walk.dentry = parent;
        return 0;
    }
    if walk.mount == 0 {
        return 1;
    }
    let above: u64 = field(walk.mount, offsets.mount_parent);
    if above == walk.mount {
        return 1;
    }
    walk.dentry = field(walk.mount, offsets.mount_point);
    walk.mount = above;
    0
}
