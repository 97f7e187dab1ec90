//! The probe `delay`, loaded and attached.

use std::{os::fd::AsFd as _, path::Path};

use agent_common::{
    bucket,
    catalogue::{Backend, POINTS, Point},
    pod::{Control, Counters},
};
use anyhow::{Context as _, anyhow};
use aya::{
    Btf, Ebpf, include_bytes_aligned,
    maps::{Array, MapData, PerCpuArray},
    programs::RawTracePoint,
};
use aya_log::EbpfLogger;
use log::{Log, debug, warn};

use super::{
    attach::{attach, program_name},
    loader::{self, Given},
    prog_info::{ProgStats, prog_stats},
};
use crate::{
    failure::{Failure, HOST},
    host::Facts,
    plan::{Attempt, Choice, PointPlan, Refusal, refusal},
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/delay"));

/// Records that the programs log; readable when the descriptor is.
pub type KernelLog = EbpfLogger<&'static dyn Log>;

/// A point with the program that serves it.
#[derive(Debug)]
pub struct Attached {
    pub point: &'static Point,
    pub attempt: Attempt,
    /// What was tried before, and why it was not to be.
    pub refused: Vec<Refusal>,
    program: String,
}

/// What the kernel side recorded at one point since it was attached, over all CPUs.
#[derive(Clone, Debug)]
pub struct Sample {
    pub counters: Counters,
    /// Errors (`achieved - requested`, ns) by bucket: `bucket::BUCKETS` counts.
    pub errors: Vec<u64>,
    pub program: ProgStats,
}

/// Owns programs, links and maps: dropping it detaches and frees everything.
pub struct DelayProbe {
    ebpf: Ebpf,
    control: Array<MapData, Control>,
    counters: PerCpuArray<MapData, Counters>,
    errors: PerCpuArray<MapData, u64>,
    attached: Vec<Attached>,
    /// As in `Control`.
    entry_twin: u64,
}

impl DelayProbe {
    /// Loads the object and attaches each point by the first attempt that the kernel accepts. All
    /// points or none: a half attached tool would look healthy.
    ///
    /// # Errors
    /// The object cannot be loaded, or a point has no attempt left.
    pub fn load(
        plans: Vec<PointPlan>,
        choice: Choice,
        facts: &Facts,
    ) -> Result<(Self, Option<KernelLog>), Failure> {
        loader::prepare();
        let btf = match facts.btf.as_deref().map(read_btf).transpose() {
            Ok(btf) => btf,
            Err(failure) if choice == Some(Backend::Fentry) => return Err(failure),
            Err(failure) => {
                warn!("fentry is not tried: {failure}");
                None
            }
        };
        let mut ebpf = load_object()
            .map_err(|error| Failure::new(HOST, format!("failed to load the delay probe: {error:#}"))
                .hint("the agent needs CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN); under lockdown=confidentiality no kernel allows it"))?;
        // Taken before the programs are loaded, so that its map stays open for them.
        let log = KernelLog::init(&mut ebpf)
            .map_err(|error| debug!("no log from the kernel side: {error}"))
            .ok();
        watch_exit(&mut ebpf);
        let attached = plans
            .into_iter()
            .map(|plan| attach_point(&mut ebpf, btf.as_ref(), plan, choice))
            .collect::<Result<_, _>>()?;
        let probe = Self {
            control: Array::try_from(take(&mut ebpf, "CONTROL")?).context("map CONTROL")?,
            counters: PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?)
                .context("map COUNTERS")?,
            errors: PerCpuArray::try_from(take(&mut ebpf, "ERRORS")?).context("map ERRORS")?,
            ebpf,
            attached,
            entry_twin: 0,
        };
        Ok((probe, log))
    }

    /// The points, in the order of their slots.
    #[must_use]
    pub fn points(&self) -> &[Attached] {
        &self.attached
    }

    /// Tells the programs what to do; in force with the next hit.
    ///
    /// # Errors
    /// The kernel refuses the map's update.
    pub fn control(&mut self, control: &Control) -> anyhow::Result<()> {
        let control = Control {
            entry_twin: self.entry_twin,
            ..*control
        };
        self.control
            .set(0, control, 0)
            .context("failed to write the delays to the kernel")
    }

    /// Moves what is at `sys_enter` behind all that was attached there since: its twin is attached, takes over
    /// and the other is unloaded. A call that is at the tracepoint just then may meet both.
    ///
    /// # Errors
    /// The kernel refuses it now; all is as it was.
    pub fn attach_last(&mut self) -> anyhow::Result<()> {
        let names = ["tp_sys_enter", "tp_sys_enter_2"];
        let (old, new) = match self.entry_twin {
            0 => (names[0], names[1]),
            _ => (names[1], names[0]),
        };
        let at_entry = |attached: &&Attached| attached.program == old;
        let Some(attempt) = self.attached.iter().find(at_entry).map(|at| at.attempt) else {
            return Ok(());
        };
        attach(&mut self.ebpf, None, new, attempt)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("failed to attach the delays at {} again", attempt.symbol))?;
        if let Err(error) = self.take_over() {
            unload(&mut self.ebpf, new);
            return Err(error);
        }
        for attached in &mut self.attached {
            if attached.program == old {
                attached.program = new.into();
            }
        }
        unload(&mut self.ebpf, old);
        Ok(())
    }

    /// Has the other twin at `sys_enter` do the work.
    fn take_over(&mut self) -> anyhow::Result<()> {
        let mut control = self.control.get(&0, 0).context("failed to read CONTROL")?;
        let twin = 1 - self.entry_twin;
        control.entry_twin = twin;
        self.control
            .set(0, control, 0)
            .context("failed to hand over the delays at sys_enter")?;
        self.entry_twin = twin;
        Ok(())
    }

    /// Reads what was recorded at the point in `slot`.
    ///
    /// # Errors
    /// The kernel refuses a map's or program's look-up.
    pub fn sample(&self, slot: usize) -> anyhow::Result<Sample> {
        let mut counters = Counters::default();
        let index = u32::try_from(slot)?;
        for of_cpu in self
            .counters
            .get(&index, 0)
            .context("failed to read COUNTERS")?
            .iter()
        {
            counters.add(of_cpu);
        }
        let first = index * bucket::BUCKETS as u32;
        let errors = (first..first + bucket::BUCKETS as u32)
            .map(|key| {
                Ok(self
                    .errors
                    .get(&key, 0)
                    .context("failed to read ERRORS")?
                    .iter()
                    .sum())
            })
            .collect::<anyhow::Result<_>>()?;
        let name = &self.attached[slot].program;
        let program = self
            .ebpf
            .program(name)
            .ok_or_else(|| anyhow!("failed to find program {name}"))?;
        let program = prog_stats(program.fd()?.as_fd()).context("failed to read program info")?;
        Ok(Sample {
            counters,
            errors,
            program,
        })
    }
}

fn load_object() -> anyhow::Result<Ebpf> {
    let given = Given {
        globals: &[("AGENT_TGID", std::process::id())],
        log_level: log::max_level() as u8,
        ..Given::default()
    };
    loader::load(OBJECT, &given).context("the kernel refused the object")
}

fn take(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<aya::maps::Map> {
    ebpf.take_map(name)
        .ok_or_else(|| anyhow!("the delay object has no map {name}"))
}

/// Delays end with the agent's exit even while the kernel still takes its links down. Where it cannot be
/// had, the links' end and the lease do the same, later.
fn watch_exit(ebpf: &mut Ebpf) {
    let attempt = Attempt {
        backend: Backend::Tp,
        symbol: "sched_process_exit",
    };
    if let Err(reason) = attach(ebpf, None, "tp_sched_process_exit", attempt) {
        warn!("delays may outlive a killed agent by the time it takes to detach: {reason}");
    }
}

/// Detaches and frees a program at a tracepoint.
fn unload(ebpf: &mut Ebpf, name: &str) {
    let program: Option<&mut RawTracePoint> = ebpf
        .program_mut(name)
        .and_then(|program| program.try_into().ok());
    if let Some(Err(error)) = program.map(RawTracePoint::unload) {
        warn!("failed to unload {name}: {error}");
    }
}

fn attach_point(
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    plan: PointPlan,
    choice: Choice,
) -> Result<Attached, Failure> {
    let PointPlan {
        point,
        attempts,
        mut refused,
    } = plan;
    for attempt in attempts {
        let program = program_name(point, attempt);
        match attach(ebpf, btf, &program, attempt) {
            Ok(()) => {
                return Ok(Attached {
                    point,
                    attempt,
                    refused,
                    program,
                });
            }
            Err(reason) => {
                debug!(
                    "{}: {} {}: {reason}",
                    point.name,
                    attempt.backend.name(),
                    attempt.symbol
                );
                refused.push(Refusal::new(attempt, reason));
            }
        }
    }
    Err(refusal(point, choice, &refused))
}

fn read_btf(path: &Path) -> Result<Btf, Failure> {
    Btf::parse_file(path, aya::Endianness::default()).map_err(|error| {
        Failure::new(
            HOST,
            format!("failed to read BTF from {}: {error}", path.display()),
        )
        .hint("--backend tp needs no BTF")
    })
}

const _: () = assert!(POINTS.len() * bucket::BUCKETS < u32::MAX as usize);
