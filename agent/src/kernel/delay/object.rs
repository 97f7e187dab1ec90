//! The object `delay`, as this kernel can load it.

use std::path::Path;

use agent_common::catalogue::{Backend, POINTS, Point};
use anyhow::Context as _;
use aya::{
    Ebpf, include_bytes_aligned,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use aya_log::EbpfLogger;
use log::{Log, debug};

use super::direct;
use crate::kernel::patched::Patched;
use crate::{
    failure::{Failure, HOST},
    kernel::{
        attach::attach,
        btf::{FunctionIds, Vetted},
        loader::{self, Given},
    },
    plan::Attempt,
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/delay"));
/// For kernels that have no `bpf_loop`: since 5.17.
static BOUNDED: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/delay_bounded"));

/// Records that the programs log; readable when the descriptor is.
pub type KernelLog = EbpfLogger<&'static dyn Log>;

/// What is taken from the kernel's types before the object is loaded, by one reading.
#[derive(Default)]
pub struct Types {
    /// All functions that a point can be at by `fentry`.
    pub functions: Option<FunctionIds>,
    /// The id of what makes direct reads, if this kernel has them.
    pub cast: Option<u32>,
}

impl Types {
    /// # Errors
    /// The BTF cannot be read, or cannot be trusted.
    pub fn read(btf: &Path) -> Result<Self, Failure> {
        let btf = Vetted::read(btf)?;
        let further = |point: &'static Point| point.further.iter().flat_map(|one| one.functions);
        let functions = POINTS
            .iter()
            .flat_map(|point| point.functions.iter().chain(further(point)))
            .chain([&direct::CAST]);
        let functions = FunctionIds::find(&btf, functions.copied())?;
        let cast = functions.id(direct::CAST);
        Ok(Self {
            cast: cast.filter(|_| btf.names(direct::FEATURE)),
            functions: Some(functions),
        })
    }
}

/// The object, loaded.
pub struct Opened {
    pub ebpf: Ebpf,
    pub log: Option<KernelLog>,
    /// Whether the agent's own exit can end its delays, even while the kernel still takes its links down. Where it
    /// cannot, the links' end and the lease do the same, later.
    pub exit: Result<(), String>,
    /// Programs read the kernel's memory without a call.
    pub is_direct: bool,
}

/// What is logged where direct reads were tried.
pub const NOT_DIRECT: &str = "not by direct reads";

/// Loads the object and attaches what watches for the agent's exit. `cast` as in [`Types`].
///
/// # Errors
/// The kernel refuses the object.
pub fn open(cast: Option<u32>) -> Result<Opened, Failure> {
    let opened = load(cast)?;
    if !opened.is_direct {
        return Ok(opened);
    }
    // That program reads the kernel's memory too. What is said of it without direct reads is what counts.
    if let Err(reason) = &opened.exit {
        debug!("{NOT_DIRECT}: {reason}");
        drop(opened);
        return load(None);
    }
    debug!("reads of the kernel's memory are direct");
    Ok(opened)
}

fn load(cast: Option<u32>) -> Result<Opened, Failure> {
    let object = object();
    let patched = cast.and_then(|id| direct::reading_directly(object, id));
    let given = Given {
        constants: &[("AGENT_TGID", std::process::id())],
        log_level: log::max_level() as u8,
        ..Given::default()
    };
    let mut ebpf = loader::load(patched.as_ref().map_or(object, Patched::bytes), &given)
        .context("the kernel refused the object")
        .map_err(|error| Failure::new(HOST, format!("failed to load the delay probe: {error:#}"))
            .hint("a security module (SELinux, AppArmor), seccomp or lockdown=confidentiality may refuse it, see dmesg; before Linux 5.11 it takes CAP_SYS_RESOURCE or ulimit -l unlimited"))?;
    // Taken before the programs are loaded, so that its map stays open for them.
    let log = KernelLog::init(&mut ebpf)
        .map_err(|error| debug!("no log from the kernel side: {error}"))
        .ok();
    let attempt = Attempt {
        backend: Backend::Tp,
        symbol: "sched_process_exit",
    };
    let exit = attach(&mut ebpf, None, "tp_sched_process_exit", attempt).map(drop);
    Ok(Opened {
        ebpf,
        log,
        exit,
        is_direct: patched.is_some(),
    })
}

/// Which object this kernel can load: it is asked, by loading a program that calls the helper. Without an answer it is
/// taken for a kernel of today, which then says itself what it misses.
fn object() -> &'static [u8] {
    match is_helper_supported(ProgramType::RawTracePoint, BpfHelper::BPF_FUNC_loop) {
        Ok(false) => {
            debug!("this kernel has no bpf_loop: waits are bounded loops");
            BOUNDED
        }
        Ok(true) => OBJECT,
        Err(error) => {
            debug!("whether this kernel has bpf_loop: {error}");
            OBJECT
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_common::direct::{CALL, NO};

    use super::*;

    /// Instructions with that number, wherever in them.
    fn with(object: &[u8], number: i32) -> usize {
        let is = |word: &&[u8]| word[4..] == number.to_le_bytes();
        object.chunks_exact(8).filter(is).count()
    }

    #[test]
    fn all_reads_of_the_object_can_be_direct() {
        let (calls, noes) = (with(OBJECT, CALL), with(OBJECT, NO));
        assert!(calls > 100 && noes > 100, "{calls} calls, {noes} noes");
        let patched = direct::reading_directly(OBJECT, 7).unwrap();
        assert_eq!(patched.bytes().len(), OBJECT.len());
        assert_eq!(
            (with(patched.bytes(), CALL), with(patched.bytes(), NO)),
            (0, 0)
        );
    }

    #[test]
    fn none_is_in_the_object_for_older_kernels() {
        assert_eq!((with(BOUNDED, CALL), with(BOUNDED, NO)), (0, 0));
        assert!(direct::reading_directly(BOUNDED, 7).is_none());
    }
}
