//! The catalogue of measuring probes: one row each, in a file of its own. The loader, `hist`, `probe
//! list`, the docs and the VM tests iterate [`PROBES`].
//!
//! To add a probe: a row here, an object of the same name in `agent-ebpf`.

pub mod block;
mod function;
pub mod irq;
pub mod memory;
pub mod sched;
mod shorthand;
pub mod vfs;

use crate::{catalogue::Backend, recent::Entry};

/// All measuring probes.
pub const PROBES: &[&Probe] = &[
    &block::PROBE,
    &vfs::PROBE,
    &sched::PROBE,
    &irq::PROBE,
    &memory::PROBE,
    &function::PROBE,
];

/// A loadable unit that measures.
#[derive(Debug)]
pub struct Probe {
    /// Its name for people; its eBPF object has the same.
    pub name: &'static str,
    pub help: &'static str,
    /// Histograms of each series, in the order in which they lie in the map.
    pub metrics: &'static [Metric],
    /// What a series can be told apart by.
    pub keys: &'static [KeyField],
    /// Names of `Key::op`, where the numbers are ours.
    pub ops: &'static [&'static str],
    /// What is attached; every part or, if it is not required, with its reason in each dump.
    pub parts: &'static [Part],
    /// What the object's constants are, in instructions or read-only globals, before it is loaded.
    pub constants: &'static [Constant],
    /// What an entry of [`crate::recent`] records in a metric, of a probe that writes such down first.
    pub recent: Option<fn(&Entry, usize) -> Option<u64>>,
}

#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub unit: Unit,
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    Bytes,
    /// Things that are counted and nothing else: each is recorded as 1.
    Count,
}

/// A field of a series' key, as `--by` and `--filter` name it.
#[derive(Clone, Copy, Debug)]
pub struct KeyField {
    pub field: Field,
    /// Told apart without being asked.
    pub default: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    Device,
    Op,
    /// Type of the file system.
    Fs,
    /// Softirq or interrupt.
    Vector,
    /// The CPU on which it was recorded; no part of [`crate::series::Key`], as each CPU has its own
    /// histograms.
    Cpu,
    Cgroup,
    /// Command of the task.
    Comm,
    Function,
}

/// All fields, in the order in which they are shown.
pub const FIELDS: [Field; 8] = [
    Field::Device,
    Field::Op,
    Field::Fs,
    Field::Vector,
    Field::Function,
    Field::Cpu,
    Field::Cgroup,
    Field::Comm,
];

impl Field {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Op => "op",
            Self::Fs => "fs",
            Self::Vector => "vector",
            Self::Cpu => "cpu",
            Self::Cgroup => "cgroup",
            Self::Comm => "comm",
            Self::Function => "function",
        }
    }

    /// Its bit in the global `BY` of the objects.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Programs that only make sense together.
#[derive(Debug)]
pub struct Part {
    /// What is lost without it: `latency of requests`.
    pub measures: &'static str,
    pub required: bool,
    /// Tried in order; the first of which every hook attaches is taken.
    pub variants: &'static [Variant],
}

#[derive(Debug)]
pub struct Variant {
    pub backend: Backend,
    pub hooks: &'static [Hook],
}

/// The symbol of a hook that goes to the function that was asked for: `fn:NAME`.
pub const ASKED_FOR: &str = "NAME";

impl Probe {
    /// Whether it is asked for with a function: `fn:NAME`.
    #[must_use]
    pub fn takes_function(&self) -> bool {
        self.parts
            .iter()
            .flat_map(|part| part.variants)
            .flat_map(|variant| variant.hooks)
            .any(|hook| hook.symbols.contains(&ASKED_FOR))
    }
}

/// A program of the object, and where it goes.
#[derive(Debug)]
pub struct Hook {
    pub program: &'static str,
    pub kind: Kind,
    /// Kernel functions of which the first that attaches is taken, or the one tracepoint.
    pub symbols: &'static [&'static str],
    /// For [`Kind::TpBtf`]: the number of arguments for which the program was written. Kernels change
    /// them, stable ones too, so they are counted in BTF.
    pub arguments: Option<usize>,
    /// Attached only where series are told apart by this field.
    pub only_by: Option<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tracepoint whose arguments are typed by BTF.
    TpBtf,
    /// A tracepoint whose arguments are plain words.
    RawTp,
    Fentry,
    Fexit,
    Kprobe,
    Kretprobe,
    /// perf's software event of major page faults, on each CPU, every time.
    MajorFaults,
}

/// A read-only `u32` global of the object.
#[derive(Debug)]
pub struct Constant {
    pub global: &'static str,
    pub value: Value,
}

/// The value of a constant where nothing applies: this kernel has no such field.
pub const ABSENT: u32 = u32::MAX;

#[derive(Debug)]
pub enum Value {
    /// Offset in bytes of the first of these members that exists: `(structure, path)`; else [`ABSENT`].
    Offset(&'static [(&'static str, &'static str)]),
    /// As `Offset`, but without it the probe cannot work.
    RequiredOffset(&'static [(&'static str, &'static str)]),
    /// The lower half of the address of the first of these symbols that exists; else, or on a kernel without kprobes,
    /// [`ABSENT`].
    KprobeSymbol(&'static [&'static str]),
    /// Bytes of a page.
    PageSize,
    /// An enumerator, or what it was before it had a name.
    Enumerator(&'static str, u32),
}

/// What was lost, and the two sums that every probe's books must balance with. Index of `LEDGER`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Operations whose start was seen.
    Starts,
    /// Operations whose end was seen and recorded.
    Completions,
    /// Starts that were forgotten, because the table of starts was full or their end was missed.
    Lost,
    /// Values beyond the last bucket.
    Overflowed,
    /// Ends before their starts, by the clocks.
    Negative,
    /// Ends whose start was not seen.
    Unmatched,
    /// Values of series that found no place of their own.
    Other,
    /// Operations that ended without being what the probe measures: requeued, retried, abandoned.
    Abandoned,
    /// Operations that failed; they are recorded like the others.
    Errors,
    /// Ends of operations that had begun before the probe was attached, or never did. No loss.
    Early,
    /// Events for which the ring buffer had no room; what they count is recorded all the same.
    Events,
}

/// Entries of `LEDGER`.
pub const LOSSES: usize = Loss::Events as usize + 1;

#[must_use]
pub fn probe(name: &str) -> Option<&'static Probe> {
    PROBES.iter().copied().find(|probe| probe.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_bits_too() {
        for (i, probe) in PROBES.iter().enumerate() {
            assert!(PROBES[..i].iter().all(|other| other.name != probe.name));
        }
        let mut seen = 0;
        for field in FIELDS {
            assert_eq!(seen & field.bit(), 0);
            seen |= field.bit();
        }
    }

    #[test]
    fn every_variant_has_hooks_and_every_hook_a_symbol_unless_it_is_an_event() {
        for probe in PROBES {
            assert!(!probe.metrics.is_empty());
            for variant in probe.parts.iter().flat_map(|part| part.variants) {
                assert!(!variant.hooks.is_empty(), "{}", probe.name);
                for hook in variant.hooks {
                    let event = hook.kind == Kind::MajorFaults;
                    assert_eq!(hook.symbols.is_empty(), event, "{}", hook.program);
                }
            }
        }
    }
}
