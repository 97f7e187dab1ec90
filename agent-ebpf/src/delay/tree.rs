//! Whether a file is under a directory that a rule names.

use agent_common::rules::{Kind, Quick, Set, Wanted};

use super::{
    filters::{is_wanted, wanted},
    kernel::{direct_field, field, offsets},
    repeat::{Round, repeat},
};
use crate::BOUNDED;

/// Ancestors that are asked, of all mounts together: as deep as a path can be that one call names, where the verifier
/// need not go through all of them.
const STEPS: u32 = if BOUNDED { 128 } else { 512 };

/// Directories that are asked before the others are taken for wanted.
const NEAR: u64 = 16;

/// Whether the file may be under any directory that a rule names: a no is certain. Only where reads are direct.
#[inline(always)]
pub fn may_be_under(dentry: u64, mount: u64) -> bool {
    let offsets = offsets();
    let (mut dentry, mut mount) = (dentry, mount);
    let mut step = 0;
    while step < NEAR {
        let inode: u64 = direct_field(dentry, offsets.dentry_inode);
        let number: u64 = direct_field(inode, offsets.inode_number);
        if is_wanted(Quick::Inode, number, 0) {
            // All roots of one kind of file system have one number.
            let sb: u64 = direct_field(dentry, offsets.dentry_sb);
            let device: u32 = direct_field(sb, offsets.sb_device);
            if is_wanted(Quick::Under, number, device.into()) {
                return true;
            }
        }
        let mut parent: u64 = direct_field(dentry, offsets.dentry_parent);
        if parent == dentry {
            let above: u64 = direct_field(mount, offsets.mount_parent);
            if above == mount {
                return false;
            }
            parent = direct_field(mount, offsets.mount_point);
            mount = above;
        }
        dentry = parent;
        // Opaque to LLVM, which would otherwise write all rounds out.
        step = agent_ebpf::opaque(step + 1);
    }
    true
}

struct Walk {
    dentry: u64,
    mount: u64,
    /// Rules that are sought, and those found.
    sought: Set,
    found: Set,
}

/// Those of `sought` that name a directory above the file. The way goes up to the root of the file system, also past
/// the directory that a bind mount shows, and on from where that file system is mounted. A global function, see `ruled`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn above(dentry: u64, mount: u64, sought: u64) -> u64 {
    let mut walk = Walk {
        dentry,
        mount,
        sought,
        found: 0,
    };
    repeat(STEPS, &mut walk);
    walk.found
}

/// One directory.
impl Round for Walk {
    #[inline(always)]
    fn round(&mut self) -> bool {
        let offsets = offsets();
        if self.dentry == 0 {
            return true;
        }
        let inode: u64 = field(self.dentry, offsets.dentry_inode);
        let number: u64 = field(inode, offsets.inode_number);
        if is_wanted(Quick::Inode, number, 0) {
            self.found |= rules_at(self.dentry, number) & self.sought;
            if self.found == self.sought {
                return true;
            }
        }
        let parent: u64 = field(self.dentry, offsets.dentry_parent);
        if parent != self.dentry {
            self.dentry = parent;
            return false;
        }
        if self.mount == 0 {
            return true;
        }
        let above: u64 = field(self.mount, offsets.mount_parent);
        if above == self.mount {
            return true;
        }
        self.dentry = field(self.mount, offsets.mount_point);
        self.mount = above;
        false
    }
}

/// The rules that name this directory, whose inode has that number. A global function, see `smallest_cap`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn rules_at(dentry: u64, number: u64) -> u64 {
    let offsets = offsets();
    let sb: u64 = field(dentry, offsets.dentry_sb);
    let device: u32 = field(sb, offsets.sb_device);
    wanted(&Wanted::new(Kind::Under, number, device.into()))
}
