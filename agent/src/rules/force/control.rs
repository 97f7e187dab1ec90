//! What the programs are told: `CONTROL`, with the lease.

use agent_common::rules::Control;

use super::InForce;
use crate::{
    failure::Failure,
    kernel::{DelayProbe, Fields, RuleMaps, now_ns},
};

impl InForce {
    /// Learns where the kernel's fields are, and which program is the agent's (inode and device).
    ///
    /// # Errors
    /// The kernel refuses a map's update.
    pub fn know(
        &mut self,
        probe: &mut DelayProbe,
        fields: Fields,
        agent: (u64, u64),
    ) -> Result<(), Failure> {
        probe.rules.offsets(&fields.offsets)?;
        self.fields = Some(fields);
        self.agent = agent;
        let control = self.dressed(probe, self.compiled.control);
        self.write(probe, control)
    }

    /// Extends the lease. Does nothing while no rule is in force, so that an agent at rest rests.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn renew(&mut self, probe: &mut DelayProbe) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        let control = self.dressed(probe, self.compiled.control);
        self.write(probe, control)
    }

    /// Extends the lease while something takes long.
    pub(super) fn renewal(&self, probe: &DelayProbe) -> impl FnMut(&mut RuleMaps) + use<> {
        let mut control = self.dressed(probe, self.compiled.control);
        let (none, lease_ns) = (self.is_empty(), self.lease.as_nanos() as u64);
        move |maps| {
            control.lease_until_ns = now_ns() + lease_ns;
            if none {
                return;
            }
            if let Err(error) = maps.control(&control) {
                log::warn!("failed to renew the lease: {error:#}");
            }
        }
    }

    /// Tells the programs at `sys_enter` which of the two is to work from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach_last(&mut self, probe: &mut DelayProbe) -> Result<(), Failure> {
        let control = self.dressed(probe, self.compiled.control);
        let compiled = &mut self.compiled;
        probe.attach_last(|maps, entry_twin| {
            // Not with `..control`: rustc 1.95 fails to compile a closure that captures parts of it.
            let mut control = control;
            control.entry_twin = entry_twin;
            maps.control(&control)?;
            compiled.control = control;
            Ok(())
        })?;
        Ok(())
    }

    /// A control with the lease, the twin and what does not change.
    pub(super) fn dressed(&self, probe: &DelayProbe, control: Control) -> Control {
        let (preempt_count, cpu_offsets) = self
            .fields
            .as_ref()
            .and_then(|fields| fields.preempt_count)
            .unwrap_or((0, 0));
        Control {
            lease_until_ns: now_ns() + self.lease.as_nanos() as u64,
            entry_twin: probe.entry_twin(),
            block_hierarchy: self
                .fields
                .as_ref()
                .map_or(0, |fields| fields.block_hierarchy),
            preempt_count,
            cpu_offsets,
            agent_inode: self.agent.0,
            agent_device: self.agent.1,
            ..control
        }
    }

    fn write(&mut self, probe: &mut DelayProbe, control: Control) -> Result<(), Failure> {
        probe.rules.control(&control)?;
        self.compiled.control = control;
        Ok(())
    }
}
