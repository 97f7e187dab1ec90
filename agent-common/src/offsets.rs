//! Where the fields are that the rules' filters read: from the running kernel's BTF, put into a map of the probe
//! `delay` when the first rule or `set` comes. So an agent starts without looking for them, and the injector loads on a
//! kernel without BTF too: what it loses there is in docs/architecture.md.

/// Fields of the kernel's structures: name, structure and path, for each of those that have been its place.
macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident: $($structure:literal $path:literal)|+;)*) => {
        /// Offsets in bytes; [`crate::probes::ABSENT`] where this kernel has no such field. The only entry of the
        /// map `OFFSETS`.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Offsets { $($(#[$doc])* pub $name: u64,)* }

        impl Offsets {
            /// None is known.
            pub const NONE: Self = Self { $($name: 0,)* };

            /// Asks `find` for each field, given as structure and path, until it finds one.
            #[must_use]
            pub fn new(mut find: impl FnMut(&str, &str) -> Option<u32>) -> Self {
                Self { $($name: {
                    let mut found = None;
                    $(if found.is_none() { found = find($structure, $path); })+
                    u64::from(found.unwrap_or(crate::probes::ABSENT))
                },)* }
            }

            /// Names of fields that this kernel has not.
            pub fn absent(&self) -> impl Iterator<Item = &'static str> {
                [$((stringify!($name), self.$name)),*]
                    .into_iter()
                    .filter(|(_, offset)| *offset == u64::from(crate::probes::ABSENT))
                    .map(|(name, _)| name)
            }
        }
    };
}

offsets! {
    file_inode: "file" "f_inode";
    file_dentry: "file" "f_path.dentry";
    file_mount: "file" "f_path.mnt";
    path_dentry: "path" "dentry";
    path_mount: "path" "mnt";
    inode_sb: "inode" "i_sb";
    inode_number: "inode" "i_ino";
    inode_mode: "inode" "i_mode";
    inode_device: "inode" "i_rdev";
    sb_device: "super_block" "s_dev";
    dentry_parent: "dentry" "d_parent";
    dentry_inode: "dentry" "d_inode";
    dentry_sb: "dentry" "d_sb";
    /// Of the `struct vfsmount` that files point to, in its `struct mount`.
    mount_inner: "mount" "mnt";
    mount_parent: "mount" "mnt_parent";
    mount_point: "mount" "mnt_mountpoint";
    task_files: "task_struct" "files";
    task_stack: "task_struct" "stack";
    /// Of x86.
    task_status: "task_struct" "thread_info.status";
    task_group: "task_struct" "tgid";
    task_command: "task_struct" "comm";
    task_credentials: "task_struct" "cred";
    credentials_user: "cred" "uid";
    task_flags: "task_struct" "flags";
    task_memory: "task_struct" "mm";
    task_signal: "task_struct" "signal";
    task_cgroups: "task_struct" "cgroups";
    task_switches: "task_struct" "nvcsw";
    task_preemptions: "task_struct" "nivcsw";
    signal_live: "signal_struct" "live";
    memory_program: "mm_struct" "exe_file";
    files_table: "files_struct" "fdt";
    table_files: "fdtable" "fd";
    table_length: "fdtable" "max_fds";
    set_unified: "css_set" "dfl_cgrp";
    set_controllers: "css_set" "subsys";
    css_cgroup: "cgroup_subsys_state" "cgroup";
    cgroup_parent: "cgroup" "self.parent";
    cgroup_node: "cgroup" "kn";
    node_id: "kernfs_node" "id";
    registers_first: "pt_regs" "di" | "pt_regs" "orig_x0";
    /// Not of arm64, where it is one of an array.
    registers_third: "pt_regs" "dx";
    registers_number: "pt_regs" "orig_ax" | "pt_regs" "syscallno";
    request_flags: "request" "cmd_flags";
    request_length: "request" "__data_len";
    request_queue: "request" "q";
    request_bio: "request" "bio";
    /// The partition, or the whole disk.
    request_part: "request" "part";
    /// Since 5.17 (f3fa33acca9f) only the queue knows the disk.
    request_disk: "request" "rq_disk";
    queue_disk: "request_queue" "disk";
    disk_major: "gendisk" "major";
    disk_minor: "gendisk" "first_minor";
    part_device: "block_device" "bd_dev";
    bio_group: "bio" "bi_blkg";
    group_policy: "blkcg_gq" "blkcg";
    policy_cgroup: "blkcg" "css.cgroup";
    bio_next: "bio" "bi_next";
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: repr(C), only u64 fields, no padding: any bytes are a value.
    unsafe impl aya::Pod for super::Offsets {}
}
