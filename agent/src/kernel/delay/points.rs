//! The points of the probe `delay` and the programs that serve them.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd as _,
};

use agent_common::catalogue::{Backend, FORKS, Layer, Point, Watched, slot_of};
use anyhow::Context as _;
use aya::Ebpf;
use log::{debug, warn};

use super::kept::Kept;
use crate::{
    failure::Failure,
    kernel::{
        attach::{Link, attach, program_name, unload},
        btf::OnDemand,
        prog_info::{ProgStats, prog_stats},
    },
    plan::{Attempt, Choice, PointPlan, Refusal, refusal},
};

/// Programs at `sys_enter`, by their number in `Control`.
const TWINS: [&str; 2] = ["tp_sys_enter", "tp_sys_enter_2"];

/// A point with the program that serves it.
#[derive(Debug)]
pub struct Attached {
    pub point: &'static Point,
    pub attempt: Attempt,
    /// What was tried before, and why it was not to be.
    pub refused: Vec<Refusal>,
    /// The programs: of the point's own function, and of the further ones.
    programs: Vec<String>,
    /// Of those at functions: which is at which, and by what it is detached.
    links: Vec<AtFunction>,
}

/// A program at a function, and by what it is detached.
type AtFunction = (String, &'static str, Link);

#[derive(Default)]
pub struct Points {
    by_slot: BTreeMap<u32, Attached>,
    /// As in `Control`.
    pub entry_twin: u64,
    /// Runs that the kernel skipped of programs at `sys_enter` that are gone (count).
    entry_missed: u64,
    submitters: Vec<Watched>,
    forks: Vec<Watched>,
    kept: Kept,
}

impl Points {
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Attached)> {
        self.by_slot
            .iter()
            .map(|(slot, attached)| (*slot, attached))
    }

    pub fn has(&self, point: &Point) -> bool {
        slot_of(point.name).is_some_and(|slot| self.by_slot.contains_key(&(slot as u32)))
    }

    /// Names of the programs at these points, each once; of a function's slot, the one for all functions.
    pub fn programs(&self, slots: &[u32]) -> BTreeSet<String> {
        let of_slot = |slot: &u32| match self.by_slot.get(slot) {
            Some(attached) => attached.programs.clone(),
            None => vec![super::functions::PROGRAM.into()],
        };
        slots.iter().flat_map(of_slot).collect()
    }

    /// Runs that the kernel skipped of those in whose stead this program is (count).
    pub fn missed_before(&self, program: &str) -> u64 {
        if TWINS.contains(&program) {
            self.entry_missed
        } else {
            0
        }
    }

    /// Attaches a point by the first attempt that the kernel accepts.
    ///
    /// # Errors
    /// It has no attempt left; nothing of it stays attached.
    pub fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        btf: &OnDemand,
        plan: PointPlan,
        choice: Choice,
    ) -> Result<(), Failure> {
        let point = plan.point;
        let attached = self
            .attach_first(ebpf, btf, plan)
            .map_err(|refused| refusal(point, choice, &refused))?;
        let slot = slot_of(point.name).unwrap_or_default() as u32;
        self.by_slot.insert(slot, attached);
        Ok(())
    }

    /// As [`Self::attach`], and detaches it at once: what would serve the point, or all refusals.
    pub fn try_out(
        &self,
        ebpf: &mut Ebpf,
        btf: &OnDemand,
        plan: PointPlan,
    ) -> Result<Attempt, Vec<Refusal>> {
        let attached = self.attach_first(ebpf, btf, plan)?;
        for program in &attached.programs {
            unload(ebpf, program);
        }
        Ok(attached.attempt)
    }

    fn attach_first(
        &self,
        ebpf: &mut Ebpf,
        btf: &OnDemand,
        plan: PointPlan,
    ) -> Result<Attached, Vec<Refusal>> {
        let PointPlan {
            point,
            attempts,
            mut refused,
        } = plan;
        for attempt in attempts {
            match self.attach_all(ebpf, btf, point, attempt) {
                Ok((programs, links)) => {
                    return Ok(Attached {
                        point,
                        attempt,
                        refused,
                        programs,
                        links,
                    });
                }
                Err(reason) => {
                    let backend = attempt.backend.name();
                    debug!("{}: {backend} {}: {reason}", point.name, attempt.symbol);
                    refused.push(Refusal::new(attempt, reason));
                }
            }
        }
        Err(refused)
    }

    /// The point's own function or tracepoint, and all further functions.
    fn attach_all(
        &self,
        ebpf: &mut Ebpf,
        btf: &OnDemand,
        point: &'static Point,
        attempt: Attempt,
    ) -> Result<(Vec<String>, Vec<AtFunction>), String> {
        let mut name = program_name(point, attempt);
        if name == TWINS[0] {
            name = TWINS[self.entry_twin as usize & 1].into();
        }
        let backend = attempt.backend;
        let mut links = Vec::new();
        let link = self.kept.attach(ebpf, btf, &name, attempt)?;
        links.extend(link.map(|link| (name.clone(), attempt.symbol, link)));
        let mut programs = vec![name];
        if backend == Backend::Tp {
            return Ok((programs, links));
        }
        for further in point.further {
            let name = format!("{}_{}", program_name(point, attempt), further.name);
            let mut last = String::new();
            let attached = further.functions.iter().find_map(|symbol| {
                self.kept
                    .attach(ebpf, btf, &name, Attempt { backend, symbol })
                    .map(|link| link.map(|link| (name.clone(), *symbol, link)))
                    .map_err(|reason| last = format!("{symbol}: {reason}"))
                    .ok()
            });
            let Some(link) = attached else {
                for program in &programs {
                    unload(ebpf, program);
                }
                return Err(last);
            };
            links.extend(link);
            programs.push(name);
        }
        Ok((programs, links))
    }

    /// Whether attaching this will take the kernel's types.
    pub fn takes_types(&self, plan: &PointPlan) -> bool {
        plan.attempts.first().is_some_and(|attempt| {
            attempt.backend == Backend::Fentry
                && !self.kept.has(&program_name(plan.point, *attempt))
        })
    }

    /// Detaches what rules wanted and no rule wants.
    pub fn release(&mut self, ebpf: &mut Ebpf, wanted: impl Fn(u32) -> bool) {
        let gone: Vec<u32> = self
            .iter()
            .filter(|(slot, attached)| attached.point.layer == Layer::Rules && !wanted(*slot))
            .map(|(slot, _)| slot)
            .collect();
        for slot in gone {
            let Some(attached) = self.by_slot.remove(&slot) else {
                continue;
            };
            let links = attached.links;
            let mut programs = attached.programs;
            programs.retain(|program| !links.iter().any(|(name, ..)| name == program));
            for (name, symbol, link) in links {
                self.kept.leave(ebpf, name, symbol, link);
            }
            for program in programs {
                let shared = self
                    .iter()
                    .any(|(_, other)| other.programs.contains(&program));
                if !shared {
                    unload(ebpf, &program);
                }
            }
        }
    }

    /// As [`super::DelayProbe::watch`].
    pub fn watch(
        &mut self,
        ebpf: &mut Ebpf,
        submitters: &[Watched],
        forks: bool,
    ) -> anyhow::Result<()> {
        let forks: &[Watched] = if forks { &FORKS } else { &[] };
        switch(ebpf, &mut self.submitters, submitters)?;
        switch(ebpf, &mut self.forks, forks)
    }

    /// The tracepoints of [`Self::watch`].
    pub fn watched(&self) -> Vec<&'static str> {
        let all = self.submitters.iter().chain(&self.forks);
        all.map(|one| one.tracepoint).collect()
    }

    /// As [`super::DelayProbe::attach_last`].
    pub fn attach_last(
        &mut self,
        ebpf: &mut Ebpf,
        take_over: impl FnOnce(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let twin = 1 - (self.entry_twin & 1);
        let (old, new) = (TWINS[self.entry_twin as usize & 1], TWINS[twin as usize]);
        let at_entry = |attached: &&Attached| attached.programs.iter().any(|name| name == old);
        let Some(attempt) = self.by_slot.values().find(at_entry).map(|at| at.attempt) else {
            return Ok(());
        };
        let _no_link = attach(ebpf, None, new, attempt)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("failed to attach the delays at {} again", attempt.symbol))?;
        if let Err(error) = take_over(twin) {
            unload(ebpf, new);
            return Err(error);
        }
        self.entry_twin = twin;
        for attached in self.by_slot.values_mut() {
            for name in &mut attached.programs {
                if name == old {
                    *name = new.into();
                }
            }
        }
        // Its count goes with it.
        let stats = stats(ebpf, old).inspect_err(|error| warn!("{error:#}"));
        self.entry_missed += stats.unwrap_or_default().missed;
        unload(ebpf, old);
        Ok(())
    }
}

/// The kernel's counts of a program since it was loaded.
pub fn stats(ebpf: &Ebpf, name: &str) -> anyhow::Result<ProgStats> {
    let program = ebpf
        .program(name)
        .with_context(|| format!("failed to find program {name}"))?;
    prog_stats(program.fd()?.as_fd()).context("failed to read program info")
}

/// Attaches programs at tracepoints where none of them is attached, or detaches those that are.
fn switch(ebpf: &mut Ebpf, are: &mut Vec<Watched>, wanted: &[Watched]) -> anyhow::Result<()> {
    if are == wanted {
        return Ok(());
    }
    are.drain(..).for_each(|one| unload(ebpf, one.program));
    for (place, one) in wanted.iter().enumerate() {
        let attempt = Attempt {
            backend: Backend::Tp,
            symbol: one.tracepoint,
        };
        if let Err(reason) = attach(ebpf, None, one.program, attempt) {
            for attached in &wanted[..place] {
                unload(ebpf, attached.program);
            }
            return Err(anyhow::Error::msg(reason))
                .with_context(|| format!("failed to attach at {}", one.tracepoint));
        }
    }
    *are = wanted.to_vec();
    Ok(())
}

#[cfg(test)]
mod tests {
    use agent_common::catalogue::{POINTS, slot};

    use super::*;

    #[test]
    fn a_program_that_serves_several_points_is_one() {
        let mut points = Points {
            entry_missed: 5,
            ..Points::default()
        };
        for slot in [slot::VFS_READ, slot::VFS_WRITE] {
            let attached = Attached {
                point: &POINTS[slot as usize],
                attempt: Attempt {
                    backend: Backend::Tp,
                    symbol: "sys_enter",
                },
                refused: Vec::new(),
                programs: vec![TWINS[1].into()],
                links: Vec::new(),
            };
            points.by_slot.insert(slot, attached);
        }
        let functions = [slot::FUNCTIONS, slot::FUNCTIONS + 1];
        let slots = [&[slot::VFS_READ, slot::VFS_WRITE], &functions[..]].concat();
        let programs: Vec<String> = points.programs(&slots).into_iter().collect();
        assert_eq!(programs, ["kprobe_fn", "tp_sys_enter_2"]);
        // What its predecessors missed is not lost with them.
        let missed = |name: &String| points.missed_before(name);
        assert_eq!(programs.iter().map(missed).collect::<Vec<_>>(), [0, 5]);
    }
}
