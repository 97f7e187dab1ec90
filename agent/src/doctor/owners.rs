//! Who holds eBPF programs open: by what `/proc` says of each process's descriptors.

use std::{fs, path::Path};

/// A process with programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub pid: u32,
    pub comm: String,
    /// Ids of the programs.
    pub programs: Vec<u32>,
}

/// All processes of the host whose `/` is `root` that have programs open and may be looked at.
#[must_use]
pub fn read(root: &Path) -> Vec<Owner> {
    let entries = fs::read_dir(root.join("proc"));
    let mut owners: Vec<Owner> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let programs = programs(&entry.path());
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            (!programs.is_empty()).then(|| Owner {
                pid,
                comm: comm.trim_end().to_owned(),
                programs,
            })
        })
        .collect();
    owners.sort_by_key(|owner| owner.pid);
    owners
}

fn programs(process: &Path) -> Vec<u32> {
    let descriptors = fs::read_dir(process.join("fd"));
    let ids = descriptors
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|fd| {
            // `bpf_prog_new_fd`, kernel/bpf/syscall.c
            if fs::read_link(fd.path()).ok()? != Path::new("anon_inode:bpf-prog") {
                return None;
            }
            let info = fs::read_to_string(process.join("fdinfo").join(fd.file_name())).ok()?;
            let id = info
                .lines()
                .find_map(|line| line.strip_prefix("prog_id:"))?;
            id.trim().parse().ok()
        });
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::fixture::Fixture;

    #[test]
    fn owners_are_those_with_programs_among_their_descriptors() {
        let info = "pos:\t0\nprog_type:\t17\nprog_id:\t41\n";
        let fixture = Fixture::new(&[
            ("proc/7/comm", "bpftrace\n"),
            ("proc/7/fdinfo/3", info),
            ("proc/7/fdinfo/4", info),
            ("proc/8/comm", "sh\n"),
            ("proc/self/comm", "x\n"),
        ]);
        fixture.link("proc/7/fd/3", "anon_inode:bpf-prog");
        fixture.link("proc/7/fd/4", "anon_inode:bpf-prog");
        fixture.link("proc/7/fd/5", "anon_inode:bpf-map");
        fixture.link("proc/8/fd/0", "/dev/null");
        assert_eq!(
            read(&fixture.0),
            [Owner {
                pid: 7,
                comm: "bpftrace".into(),
                programs: vec![41],
            }]
        );
    }
}
