//! The objects of the measuring probes, by the probe's name.

use aya::include_bytes_aligned;

static BLOCK: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/block"));
static VFS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vfs"));
static FN: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fn"));
static MEMORY: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memory"));
static IRQ: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/irq"));
static SCHED: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sched"));

/// The object of a probe.
pub fn object(probe: &str) -> Option<&'static [u8]> {
    match probe {
        "block" => Some(BLOCK),
        "vfs" => Some(VFS),
        "fn" => Some(FN),
        "memory" => Some(MEMORY),
        "irq" => Some(IRQ),
        "sched" => Some(SCHED),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use agent_common::probes::PROBES;

    #[test]
    fn every_probe_has_its_object() {
        for probe in PROBES {
            assert!(super::object(probe.name).is_some(), "{}", probe.name);
        }
    }
}
