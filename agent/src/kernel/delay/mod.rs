//! The probe `delay`, loaded and attached.

mod direct;
mod fields;
mod functions;
mod kept;
mod object;
mod points;
mod rules;
mod trial;

use std::collections::BTreeSet;

use agent_common::{
    bucket,
    catalogue::{Backend, Watched},
    pod::Counters,
    rules::SLOTS,
};
use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use log::{Level, debug, log, warn};

use super::{btf::OnDemand, host_types::give_back_memory, loader, prog_info::ProgStats};
use crate::{
    failure::Failure,
    functions::Function,
    host::Facts,
    plan::{Choice, PointPlan},
};

pub use fields::Fields;
use functions::Functions;
pub use object::KernelLog;
use object::{Opened, Types};
pub use points::Attached;
use points::Points;
pub use rules::{RuleMaps, RuleSample, WantedSets};
pub use trial::DelayTrial;

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
    /// What `fentry` takes.
    fentry: OnDemand,
    choice: Choice,
    pub rules: RuleMaps,
    counters: PerCpuArray<MapData, Counters>,
    errors: PerCpuArray<MapData, u64>,
    points: Points,
    functions: Functions,
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
        let types = match facts.btf.as_deref().map(Types::read).transpose() {
            Ok(types) => types.unwrap_or_default(),
            Err(failure) if choice == Some(Backend::Fentry) => return Err(failure),
            Err(failure) => {
                let level = choice.map_or(Level::Warn, |_| Level::Debug);
                log!(
                    level,
                    "fentry is not tried, nor are direct reads: {failure}"
                );
                Types::default()
            }
        };
        let by_fentry = matches!(choice, None | Some(Backend::Fentry));
        let mut fentry = OnDemand::new(types.functions.filter(|_| by_fentry));
        let attached = |opened: Opened| -> Result<(Opened, Points), Failure> {
            let mut opened = opened;
            let mut points = Points::default();
            for plan in plans.iter().cloned() {
                points.attach(&mut opened.ebpf, &fentry, plan, choice)?;
            }
            Ok((opened, points))
        };
        let opened = object::open(types.cast)?;
        let is_direct = opened.is_direct;
        let (opened, points) = match attached(opened) {
            Err(failure) if is_direct => {
                // What is said of it without direct reads is what counts.
                debug!("{}: {failure}", object::NOT_DIRECT);
                attached(object::open(None)?)?
            }
            other => other?,
        };
        let Opened {
            mut ebpf,
            log,
            exit,
            ..
        } = opened;
        if let Err(reason) = exit {
            warn!("delays may outlive a killed agent by the time it takes to detach: {reason}");
        }
        fentry.forget();
        give_back_memory();
        let probe = Self {
            rules: RuleMaps::take(&mut ebpf)?,
            counters: PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?)
                .context("map COUNTERS")?,
            errors: PerCpuArray::try_from(take(&mut ebpf, "ERRORS")?).context("map ERRORS")?,
            functions: Functions::take(&mut ebpf)?,
            ebpf,
            fentry,
            choice,
            points,
        };
        Ok((probe, log))
    }

    /// The points that are attached, in the order of their slots.
    pub fn points(&self) -> impl Iterator<Item = (u32, &Attached)> {
        self.points.iter()
    }

    /// Which of the twins at `sys_enter` does the work, as in `Control`.
    #[must_use]
    pub fn entry_twin(&self) -> u64 {
        self.points.entry_twin
    }

    /// Attaches the points that a rule wants, of these those that are not attached yet. `meanwhile` is called before the
    /// first and behind each.
    ///
    /// # Errors
    /// One has no attempt left.
    pub fn want_points(
        &mut self,
        plans: Vec<PointPlan>,
        mut meanwhile: impl FnMut(&mut RuleMaps),
    ) -> Result<(), Failure> {
        let new = |plan: &PointPlan| !self.points.has(plan.point);
        let plans: Vec<PointPlan> = plans.into_iter().filter(new).collect();
        meanwhile(&mut self.rules);
        if plans.iter().any(|plan| self.points.takes_types(plan)) {
            // Now, as this takes its time too. Who needs it is told why it is not to be had.
            let _refused = self.fentry.get();
            meanwhile(&mut self.rules);
        }
        let attached = plans.into_iter().try_for_each(|plan| {
            let attached = self
                .points
                .attach(&mut self.ebpf, &self.fentry, plan, self.choice);
            meanwhile(&mut self.rules);
            attached
        });
        if self.fentry.forget() {
            give_back_memory();
        }
        attached
    }

    /// Detaches points that were attached for rules, but for those whose slot is still wanted.
    pub fn release_points(&mut self, wanted: impl Fn(u32) -> bool) {
        self.points.release(&mut self.ebpf, wanted);
    }

    /// Attaches or detaches what tells who submits requests, and what tells who forks whom.
    ///
    /// # Errors
    /// The kernel refuses; what could be attached is.
    pub fn watch(&mut self, submitters: &[Watched], forks: bool) -> anyhow::Result<()> {
        self.points.watch(&mut self.ebpf, submitters, forks)
    }

    /// The slots of these functions, each attached now if it was not. `meanwhile` is called behind each, as all may take
    /// seconds.
    ///
    /// # Errors
    /// One cannot be: nothing has changed.
    pub fn want_functions(
        &mut self,
        functions: &[Function],
        mut meanwhile: impl FnMut(&mut RuleMaps),
    ) -> Result<Vec<u32>, Failure> {
        let rules = &mut self.rules;
        self.functions
            .want(&mut self.ebpf, functions, || meanwhile(rules))
    }

    /// Detaches functions whose slot is not wanted any more. `meanwhile` as for [`Self::want_functions`].
    pub fn release_functions(
        &mut self,
        wanted: impl Fn(u32) -> bool,
        mut meanwhile: impl FnMut(&mut RuleMaps),
    ) {
        let rules = &mut self.rules;
        self.functions
            .release(&mut self.ebpf, wanted, || meanwhile(rules));
    }

    /// The name of the function in that slot.
    #[must_use]
    pub fn function(&self, slot: u32) -> Option<&str> {
        self.functions.name(slot)
    }

    /// Moves what is at `sys_enter` behind all that was attached there since: its twin is attached, `take_over` tells
    /// it to do the work, and the other is unloaded. A call that is at the tracepoint just then may meet both.
    ///
    /// # Errors
    /// The kernel refuses it now; all is as it was.
    pub fn attach_last(
        &mut self,
        take_over: impl FnOnce(&mut RuleMaps, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let rules = &mut self.rules;
        self.points
            .attach_last(&mut self.ebpf, |twin| take_over(rules, twin))
    }

    /// Reads what was recorded at the point or function in `slot`.
    ///
    /// # Errors
    /// The kernel refuses a map's or program's look-up.
    pub fn sample(&self, slot: u32) -> anyhow::Result<Sample> {
        let mut counters = Counters::default();
        for of_cpu in self
            .counters
            .get(&slot, 0)
            .context("failed to read COUNTERS")?
            .iter()
        {
            counters.add(of_cpu);
        }
        let first = slot * bucket::BUCKETS as u32;
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
        Ok(Sample {
            counters,
            errors,
            program: self.program(slot)?,
        })
    }

    /// Runs that the kernel skipped of the programs at these slots (count), each program counted once: that of
    /// `sys_enter` is at several points, and that of functions at all of them.
    ///
    /// # Errors
    /// The kernel refuses the look-up.
    pub fn missed(&self, slots: &[u32]) -> anyhow::Result<u64> {
        Ok(self.stats(&self.points.programs(slots))?.missed)
    }

    /// The kernel's counts of the programs that serve `slot`: of several, their sums.
    ///
    /// # Errors
    /// The kernel refuses the look-up.
    fn program(&self, slot: u32) -> anyhow::Result<ProgStats> {
        self.stats(&self.points.programs(&[slot]))
    }

    fn stats(&self, programs: &BTreeSet<String>) -> anyhow::Result<ProgStats> {
        let mut sum = ProgStats::default();
        for name in programs {
            let stats = points::stats(&self.ebpf, name)?;
            sum.run_time_ns += stats.run_time_ns;
            sum.run_count += stats.run_count;
            sum.missed += stats.missed + self.points.missed_before(name);
        }
        Ok(sum)
    }
}

fn take(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<aya::maps::Map> {
    ebpf.take_map(name)
        .ok_or_else(|| anyhow!("the delay object has no map {name}"))
}

const _: () = assert!(SLOTS * bucket::BUCKETS < u32::MAX as usize);
