//! How the maps come from one table of rules to another.

use agent_common::{
    catalogue::slot,
    rules::{Kind, SLOTS, Set},
};

use super::{InForce, missed};
use crate::{
    failure::{Failure, HOST},
    kernel::DelayProbe,
    rules::{
        spec::Delay,
        table::{Compiled, Placed, Table, between, compile, entry, maybe_wanted, unreadable},
    },
};

impl InForce {
    /// Has the maps hold another table; on failure the one that they held.
    pub(super) fn change(&mut self, probe: &mut DelayProbe, table: Table) -> Result<(), Failure> {
        let mut new = compile(&table, self.compiled.control.epoch + 1)?;
        new.control = self.dressed(probe, new.control);
        self.check(&new)?;
        if let Err(failure) = self.widen(probe, &table, &new) {
            self.undo(probe, &table, &new);
            return Err(failure);
        }
        let old = std::mem::replace(&mut self.compiled, new);
        self.table = table;
        self.narrow(probe, &old)
    }

    /// Whether this kernel tells what the filters read, and what interrupts functions.
    fn check(&self, new: &Compiled) -> Result<(), Failure> {
        let functions = &new.control.at[slot::FUNCTIONS as usize..];
        if functions.iter().any(|rules| *rules != 0) && new.control.preempt_count == 0 {
            let what = "failed to delay functions: this kernel does not tell what is an interrupt";
            return Err(Failure::new(HOST, what).hint("the other points are never in one"));
        }
        if new.control.filtered == 0 {
            return Ok(());
        }
        let refused = |what: &str| Err(Failure::new(HOST, format!("failed to filter: {what}")));
        let Some(fields) = &self.fields else {
            return refused("where this kernel's fields are is not known");
        };
        let unreadable = unreadable(&new.control, &fields.offsets);
        if !unreadable.is_empty() {
            let names = unreadable.join(", ");
            return refused(&format!("this kernel's BTF does not tell {names}"));
        }
        let requests = new.control.at[slot::BLOCK_ISSUE as usize] & new.control.filtered;
        if fields.queue_first && requests != 0 {
            return refused("this kernel's block_rq_issue has other arguments (before Linux 5.11)");
        }
        Ok(())
    }

    /// First all that a new rule needs, then its place at the points.
    fn widen(
        &mut self,
        probe: &mut DelayProbe,
        table: &Table,
        new: &Compiled,
    ) -> Result<(), Failure> {
        for (place, placed) in added(&self.table, table) {
            probe
                .rules
                .place(place as u32, &entry(placed), quantiles(placed))?;
            for group in &placed.subjects.pids {
                probe.rules.name_process(*group, 1 << place)?;
            }
            self.missed_before[place] = missed(probe, &placed.slots)?;
        }
        let old = &self.compiled;
        let mut maybe = maybe_wanted(&self.table);
        for (before, now) in maybe.iter_mut().zip(maybe_wanted(table)) {
            *before |= now;
        }
        probe.rules.maybe(&maybe, false)?;
        probe.rules.widen(&old.wanted, &new.wanted)?;
        probe.watch(
            (old.control.owned | new.control.owned) != 0,
            (old.control.children | new.control.children) != 0,
        )?;
        probe.rules.control(&between(&old.control, &new.control))?;
        probe.rules.control(&new.control)?;
        Ok(())
    }

    /// What only rules needed that are gone.
    fn narrow(&mut self, probe: &mut DelayProbe, old: &Compiled) -> Result<(), Failure> {
        let new = &self.compiled;
        probe.rules.narrow(&old.wanted, &new.wanted)?;
        probe
            .rules
            .maybe(&maybe_wanted(&self.table), new.control.children == 0)?;
        let in_force = self
            .rules()
            .fold(0, |set: Set, (place, _)| set | 1 << place);
        if old.control.by[Kind::Pid as usize] & !in_force != 0 {
            probe.rules.forget_processes(!in_force)?;
        }
        probe.watch(new.control.owned != 0, new.control.children != 0)?;
        self.release(probe);
        Ok(())
    }

    /// As well as may be: the kernel refused something.
    fn undo(&mut self, probe: &mut DelayProbe, table: &Table, new: &Compiled) {
        let old = self.compiled.clone();
        let mut wanted = old.wanted.clone();
        for (key, set) in &new.wanted {
            *wanted.entry(*key).or_default() |= set;
        }
        let places = added(&self.table, table).fold(0, |set: Set, (place, _)| set | 1 << place);
        let undone = self
            .write_again(probe, places)
            .and_then(|()| probe.rules.control(&old.control))
            .and_then(|()| probe.rules.narrow(&wanted, &old.wanted))
            .and_then(|()| probe.rules.forget_processes(places))
            .and_then(|()| probe.watch(old.control.owned != 0, old.control.children != 0));
        if let Err(error) = undone {
            log::warn!("failed to undo a rule that was refused: {error:#}");
        }
        self.release(probe);
    }

    /// Writes the entries of rules of which another one was to take the stead. None of these has processes.
    fn write_again(&self, probe: &mut DelayProbe, places: Set) -> anyhow::Result<()> {
        for (place, placed) in self.rules().filter(|(place, _)| places & (1 << place) != 0) {
            probe
                .rules
                .place(place as u32, &entry(placed), quantiles(placed))?;
        }
        Ok(())
    }

    /// Detaches points and functions that no rule wants.
    pub(super) fn release(&self, probe: &mut DelayProbe) {
        let mut wanted = [false; SLOTS];
        for (_, placed) in self.rules() {
            for slot in &placed.slots {
                wanted[*slot as usize] = true;
            }
        }
        probe.release_points(|slot| wanted[slot as usize]);
        probe.release_functions(|slot| wanted[slot as usize]);
    }
}

/// The table that a rule draws from; empty if it does not.
fn quantiles(placed: &Placed) -> &[u64] {
    match &placed.spec.delay {
        Delay::Drawn { quantiles, .. } => quantiles,
        Delay::Fixed { .. } => &[],
    }
}

/// Rules that `new` has and `old` has not.
fn added<'a>(old: &'a Table, new: &'a Table) -> impl Iterator<Item = (usize, &'a Placed)> {
    new.iter().enumerate().filter_map(|(place, placed)| {
        let placed = placed.as_ref()?;
        let before = old[place].as_ref().map(|before| before.epoch);
        (before != Some(placed.epoch)).then_some((place, placed))
    })
}
