//! What the filters of rules need to know of the running kernel.

use std::path::Path;

use agent_common::{
    catalogue::{SUBMITTERS, Watched},
    offsets::Offsets,
    probes::ABSENT,
    rules::UNIFIED,
};

use crate::{failure::Failure, functions, host::Facts, kernel::HostTypes};

/// Names of cgroup v1 controllers, as mounts have them, and of their places among the kernel's (`enum
/// cgroup_subsys_id`).
const CONTROLLERS: [(&str, &str); 13] = [
    ("cpuset", "cpuset_cgrp_id"),
    ("cpu", "cpu_cgrp_id"),
    ("cpuacct", "cpuacct_cgrp_id"),
    ("blkio", "io_cgrp_id"),
    ("memory", "memory_cgrp_id"),
    ("devices", "devices_cgrp_id"),
    ("freezer", "freezer_cgrp_id"),
    ("net_cls", "net_cls_cgrp_id"),
    ("perf_event", "perf_event_cgrp_id"),
    ("net_prio", "net_prio_cgrp_id"),
    ("hugetlb", "hugetlb_cgrp_id"),
    ("pids", "pids_cgrp_id"),
    ("rdma", "rdma_cgrp_id"),
];

/// Where the fields are that filters read, and what else only BTF tells.
#[derive(Clone, Debug)]
pub struct Fields {
    pub offsets: Offsets,
    /// The tracepoint `block_rq_issue` has the queue in front.
    pub queue_first: bool,
    /// What tells who submits a request, by the arguments that the tracepoints have here.
    pub submitters: Vec<Watched>,
    /// Places of cgroup v1 controllers that this kernel has.
    controllers: Vec<(&'static str, u64)>,
    /// The hierarchy that the block layer goes by, as in `Control`.
    pub block_hierarchy: u64,
    /// Addresses as in `Control`; none where nothing can be said of interrupts.
    pub preempt_count: Option<(u64, u64)>,
}

impl Fields {
    /// Reads them from BTF and the kernel's symbols: some 100 ms.
    ///
    /// # Errors
    /// The kernel has no BTF.
    pub fn read(facts: &Facts) -> Result<Self, Failure> {
        let types = HostTypes::read(facts)?;
        let mut offsets = Offsets::new(|structure, path| types.offset(structure, path));
        if types.offset("hd_struct", "start_sect").is_some() {
            // Before 5.11 a request's part was of another type.
            offsets.request_part = ABSENT.into();
        }
        let controllers: Vec<(&str, u64)> = CONTROLLERS
            .iter()
            .filter_map(|(name, place)| Some((*name, types.enumerator(place)?.into())))
            .collect();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let fields = Self {
            offsets,
            block_hierarchy: block_hierarchy(&mounts, &controllers),
            submitters: SUBMITTERS
                .into_iter()
                .filter(|one| types.tracepoint_arguments(one.tracepoint) == Some(one.arguments))
                .collect(),
            queue_first: types.tracepoint_arguments("block_rq_issue") == Some(2),
            controllers,
            preempt_count: preempt_count(&types, Path::new("/")),
        };
        types.free();
        Ok(fields)
    }

    /// The place of a hierarchy as programs have it: of cgroup v2, or the v1 controller's.
    #[must_use]
    pub fn hierarchy(&self, controller: Option<&str>) -> Option<u64> {
        let Some(name) = controller else {
            return Some(UNIFIED);
        };
        self.controllers
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, place)| *place)
    }
}

/// Since 6.2 (64701838bf05) and until 6.15 the count was part of `pcpu_hot`.
fn preempt_count(types: &HostTypes, root: &Path) -> Option<(u64, u64)> {
    let offsets = functions::address(root, &["__per_cpu_offset"])?;
    let count = match types.offset("pcpu_hot", "preempt_count") {
        Some(offset) => functions::address(root, &["pcpu_hot"])? + u64::from(offset),
        None => functions::address(root, &["__preempt_count"])?,
    };
    Some((count, offsets))
}

/// cgroup v2, unless the block layer's controller is mounted as v1.
fn block_hierarchy(mounts: &str, controllers: &[(&str, u64)]) -> u64 {
    let of_block = |line: &str| {
        let Some((_, kind)) = line.split_once(" - cgroup ") else {
            return false;
        };
        kind.split([' ', ',']).any(|word| word == "blkio")
    };
    if !mounts.lines().any(of_block) {
        return UNIFIED;
    }
    controllers
        .iter()
        .find(|(name, _)| *name == "blkio")
        .map_or(UNIFIED, |(_, place)| *place)
}
