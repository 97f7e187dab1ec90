//! The running kernel's types, as aya and as we read them.

use std::thread;

use agent_common::probes::{ABSENT, Constant, Value};
use aya::Btf;

use super::{
    btf::{self, Vetted},
    types::KernelTypes,
};
use crate::{
    failure::{FAILED, Failure, HOST},
    host::Facts,
};

/// Made once for all probes that are loaded together. Some tens of MB while it lives.
pub struct HostTypes {
    pub(super) aya: Btf,
    ours: KernelTypes,
    kprobes: bool,
}

/// Types that a thread is reading: some 100 ms of computing.
pub struct ReadingTypes(Result<thread::JoinHandle<Result<HostTypes, Failure>>, Failure>);

impl HostTypes {
    /// Reads the kernel's BTF.
    ///
    /// # Errors
    /// The kernel has none, or it cannot be read.
    pub fn read(facts: &Facts) -> Result<Self, Failure> {
        super::loader::prepare();
        Self::begin(facts).wait()
    }

    /// Begins to read the kernel's BTF. No descriptor stays open, nor is one opened later.
    #[must_use]
    pub fn begin(facts: &Facts) -> ReadingTypes {
        // Else each 4 KiB that the thread allocates cost it a system call.
        // SAFETY: no preconditions.
        unsafe { libc::mallopt(libc::M_TOP_PAD, 4 << 20) };
        let kprobes = facts.kprobe_pmu;
        ReadingTypes(bytes(facts).and_then(|bytes| {
            thread::Builder::new()
                .spawn(move || Self::parse(bytes, kprobes))
                .map_err(|error| Failure::new(FAILED, format!("failed to start a thread: {error}")))
        }))
    }

    fn parse(bytes: Vec<u8>, kprobes: bool) -> Result<Self, Failure> {
        let btf = Vetted::new(bytes).map_err(btf::failed)?;
        Ok(Self {
            aya: btf.aya()?,
            ours: KernelTypes::parse(&btf).map_err(|error| btf::failed(format!("{error:#}")))?,
            kprobes,
        })
    }

    /// The number of arguments of a tracepoint, as [`KernelTypes::tracepoint_arguments`].
    pub(super) fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        self.ours.tracepoint_arguments(tracepoint)
    }

    /// As [`KernelTypes::offset`].
    pub(super) fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        self.ours.offset(structure, path)
    }

    /// The value of an enumerator; `None` if this kernel has none of that name.
    pub(super) fn enumerator(&self, name: &str) -> Option<u32> {
        self.ours.enumerator(name)
    }

    /// The value of a constant on this kernel.
    ///
    /// # Errors
    /// A field that the probe cannot do without is not there.
    pub(super) fn constant(&self, constant: &Constant) -> anyhow::Result<u32> {
        match constant.value {
            // The kernel takes 40 ms to write its symbols down.
            Value::KprobeSymbol(_) if !self.kprobes => Ok(ABSENT),
            _ => self.ours.constant(constant),
        }
    }

    /// Frees them in a thread of its own: it takes some 30 ms.
    pub fn free(self) {
        let free = move || {
            drop(self);
            give_back_memory();
        };
        // Without a thread the closure is dropped, and they with it.
        let _no_thread = thread::Builder::new().spawn(free);
    }
}

impl ReadingTypes {
    /// Waits until they are read.
    ///
    /// # Errors
    /// As [`HostTypes::read`].
    pub fn wait(self) -> Result<HostTypes, Failure> {
        self.0?.join().unwrap_or_else(|_| {
            Err(Failure::new(
                FAILED,
                "failed to read the kernel's BTF: its reader panicked",
            ))
        })
    }
}

/// The allocator would keep what reading types took for an agent that needs it no more.
pub(super) fn give_back_memory() {
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
}

fn bytes(facts: &Facts) -> Result<Vec<u8>, Failure> {
    let Some(path) = &facts.btf else {
        return Err(Failure::new(
            HOST,
            "failed to find the kernel's types: it has no BTF (/sys/kernel/btf/vmlinux)",
        )
        .hint("measuring needs a kernel with CONFIG_DEBUG_INFO_BTF=y"));
    };
    btf::bytes(path).map_err(|error| btf::unreadable(path, &error))
}
