//! Flags of a request (`rq_flags`), and what they say of its stamps.

use agent_common::probes::block::op;
use agent_ebpf::Constant as _;

use crate::{
    FLUSH_SEQ_BIT, IO_STAT_BIT, RQ_CMD_FLAGS, RQ_FLAGS, RQ_START_NS,
    structure::{has, read},
};

/// `RQF_FLUSH_SEQ`.
#[inline(always)]
pub fn in_sequence() -> u32 {
    1 << (FLUSH_SEQ_BIT.load() as u32 & 31)
}

/// `RQF_IO_STAT`, if the kernel stamps the allocation of such requests only; else 0.
#[inline(always)]
pub fn accounted() -> u32 {
    if has(&IO_STAT_BIT) {
        1 << (IO_STAT_BIT.load() as u32 & 31)
    } else {
        0
    }
}

/// When a request was allocated; 0 if nobody knows. Of one that the kernel does not account, the stamp may be that of the
/// request before it. A flush that the kernel sends for others is made anew and stamped each time (`blk_kick_flush`).
#[inline(always)]
pub fn start_ns(request: *const u8) -> u64 {
    let rq_flags: u32 = read(request, &RQ_FLAGS);
    let cmd_flags: u32 = read(request, &RQ_CMD_FLAGS);
    let own_flush = op::of_flags(cmd_flags) == op::FLUSH && rq_flags & in_sequence() != 0;
    if rq_flags & accounted() != accounted() && !own_flush {
        return 0;
    }
    read(request, &RQ_START_NS)
}
