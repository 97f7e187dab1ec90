//! The probe `delay`, to find out what this kernel allows: one thing is attached at a time, and detached at once.

use std::path::Path;

use agent_common::catalogue::Watched;
use aya::Ebpf;

use super::{
    functions::Functions,
    object::{self, KernelLog, Opened, Types},
    points::Points,
};
use crate::{
    failure::Failure,
    functions,
    host::Facts,
    kernel::btf::OnDemand,
    plan::{Attempt, PointPlan, Refusal},
};

/// There is no lease and no rule in its maps, so nobody waits. Dropping it detaches and frees everything.
pub struct DelayTrial {
    ebpf: Ebpf,
    /// What `fentry` takes.
    fentry: OnDemand,
    points: Points,
    functions: Functions,
    exit: Result<(), String>,
    /// Holds a map that programs name.
    _log: Option<KernelLog>,
}

impl DelayTrial {
    /// Loads the object.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn load(facts: &Facts) -> Result<Self, Failure> {
        let btf = facts.btf.as_deref();
        let types = Types::read(btf.unwrap_or(Path::new("/sys/kernel/btf/vmlinux")));
        let types = types.unwrap_or_default();
        let Opened {
            mut ebpf,
            log,
            exit,
            ..
        } = object::open(types.cast)?;
        Ok(Self {
            functions: Functions::take(&mut ebpf)?,
            fentry: OnDemand::new(types.functions),
            points: Points::default(),
            exit,
            _log: log,
            ebpf,
        })
    }

    /// What of a plan would serve the point, or all refusals.
    ///
    /// # Errors
    /// All of it is refused.
    pub fn point(&mut self, plan: PointPlan) -> Result<Attempt, Vec<Refusal>> {
        self.points.try_out(&mut self.ebpf, &self.fentry, plan)
    }

    /// Whether rules can be at a function.
    ///
    /// # Errors
    /// They cannot.
    pub fn function(&mut self, name: &str) -> Result<(), Failure> {
        let function = functions::Functions::read(Path::new("/")).function(name);
        let nothing = || {};
        let wanted = self.functions.want(&mut self.ebpf, &[function], nothing);
        self.functions.release(&mut self.ebpf, |_| false, nothing);
        wanted.map(drop)
    }

    /// Whether the agent's own exit can end its delays.
    ///
    /// # Errors
    /// It cannot.
    pub fn exit(&self) -> Result<(), String> {
        self.exit.clone()
    }

    /// Whether filters can know who submits requests, by `submitters`, and who forks whom; returns where they are told.
    ///
    /// # Errors
    /// They cannot.
    pub fn watch(&mut self, submitters: &[Watched]) -> anyhow::Result<Vec<&'static str>> {
        let Self { ebpf, points, .. } = self;
        let tried = points.watch(ebpf, submitters, true);
        let watched = points.watched();
        points.watch(ebpf, &[], false)?;
        tried.map(|()| watched)
    }
}
