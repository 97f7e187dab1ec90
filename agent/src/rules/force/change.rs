//! How the maps come from one table of rules to another.
//!
//! A change is what `CONTROL` says. Before it comes all that new rules need, of which nobody takes notice yet; behind it
//! what only rules needed that are gone, of which nobody takes notice any more. So a refusal of the kernel before it
//! changes nothing, and one behind it leaves litter, which is tidied away before the place is another rule's.

use agent_common::{
    catalogue::{Backend, SUBMITTERS_TOLD, Watched, slot},
    rules::{Control, SLOTS, Set},
};

use super::{ENDED, InForce};
use crate::{
    failure::{FAILED, Failure, HOST},
    kernel::{Attached, DelayProbe, RuleMaps, wait_for_programs},
    rules::{
        spec::{Delay, Outcome},
        table::{Compiled, Placed, Table, between, compile, entry, maybe_wanted, unreadable},
    },
};

impl InForce {
    /// Has the maps hold another table. What came of rules that go is kept, if there is a reason for it.
    ///
    /// # Errors
    /// It makes no sense on this kernel, or the kernel refuses it: the maps hold the one that they held. Or the kernel
    /// refuses even to be given that one again: then no rule is in force.
    pub(super) fn change(
        &mut self,
        probe: &mut DelayProbe,
        table: Table,
        why: Option<&str>,
    ) -> Result<(), Failure> {
        let result = self.try_change(probe, table, why);
        self.release(probe);
        result
    }

    fn try_change(
        &mut self,
        probe: &mut DelayProbe,
        table: Table,
        why: Option<&str>,
    ) -> Result<(), Failure> {
        let mut new = compile(&table, self.next_epoch(), &self.compiled.control)?;
        new.control = self.dressed(probe, new.control);
        self.check(&new, probe)?;
        let added = places(added(&self.table, &table));
        if added != 0 {
            self.prepare(probe, &table, &new)
                .or_else(|error| self.undo(probe, added, None, error))?;
        }
        let old = self.compiled.control;
        probe
            .rules
            .control(&between(&old, &new.control))
            .or_else(|error| self.undo(probe, added, None, error))?;
        probe
            .rules
            .control(&new.control)
            .or_else(|error| self.undo(probe, added, Some(old), error))?;
        self.compiled = new;
        if let Some(why) = why {
            self.keep_outcomes(probe, &table, why);
        }
        self.table = table;
        self.tidy_or_later(probe);
        Ok(())
    }

    /// What came of rules that are not in `left`. Read behind their end: what is counted later is not theirs.
    fn keep_outcomes(&mut self, probe: &DelayProbe, left: &Table, why: &str) {
        let gone = self.rules().filter(|(place, _)| left[*place].is_none());
        let outcomes: Vec<Outcome> = gone
            .filter_map(|(place, _)| self.outcome(probe, place, Some(why)).ok())
            .collect();
        self.ended.extend(outcomes);
        let too_many = self.ended.len().saturating_sub(ENDED);
        self.ended.drain(..too_many);
    }

    /// An epoch that no change had, not even one that was refused: programs may remember what they saw of it.
    fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// Whether this kernel tells what the filters read, and what interrupts functions.
    fn check(&self, new: &Compiled, probe: &DelayProbe) -> Result<(), Failure> {
        let functions = &new.control.at[slot::FUNCTIONS as usize..];
        if functions.iter().any(|rules| *rules != 0) && new.control.preempt_count == 0 {
            let what = "failed to delay functions: this kernel does not tell what is an interrupt";
            return Err(Failure::new(HOST, what).hint("the other points are never in one"));
        }
        if new.control.at[slot::VFS_OPENED as usize] != 0 && self.fields.is_none() {
            let by_exit = |(slot, attached): (u32, &Attached)| {
                slot == slot::VFS_OPENED && attached.attempt.backend == Backend::Tp
            };
            if probe.points().any(by_exit) {
                let what =
                    "failed to delay vfs.opened: which call it was, sys_exit tells only with BTF";
                return Err(Failure::new(HOST, what).hint("vfs.open needs none"));
            }
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
        if fields.submitters.len() < SUBMITTERS_TOLD && new.control.owned != 0 {
            return refused("this kernel does not tell who submits a request");
        }
        Ok(())
    }

    /// Writes all that new rules need.
    fn prepare(
        &mut self,
        probe: &mut DelayProbe,
        table: &Table,
        new: &Compiled,
    ) -> anyhow::Result<()> {
        if self.littered {
            self.tidy(probe)?;
        }
        for (place, placed) in added(&self.table, table) {
            write(&mut probe.rules, place, placed)?;
            for group in &placed.subjects.pids {
                probe.rules.name_process(*group, 1 << place)?;
            }
            self.missed_before[place] = probe.missed(&placed.slots)?;
            self.untracked_before[place] = probe.rules.untracked();
        }
        let mut maybe = maybe_wanted(&self.table);
        for (before, now) in maybe.iter_mut().zip(maybe_wanted(table)) {
            *before |= now;
        }
        probe.rules.maybe(&maybe, false)?;
        probe.rules.widen(&new.wanted)?;
        let old = &self.compiled.control;
        probe.watch(
            self.submitters(old.owned | new.control.owned),
            (old.children | new.control.children) != 0,
        )?;
        if added(&self.table, table).any(|(_, placed)| !placed.subjects.cgroups.is_empty()) {
            // A program notes what it found out of a cgroup under the epoch that it sees when it is through. One that
            // looked before these cgroups were wanted has to be through before there is the new epoch.
            wait_for_programs();
        }
        Ok(())
    }

    /// What tells who submits requests, if any of these rules asks for it.
    fn submitters(&self, rules: Set) -> &[Watched] {
        match &self.fields {
            Some(fields) if rules != 0 => &fields.submitters,
            _ => &[],
        }
    }

    /// Takes away what only rules needed that are gone, or never came.
    fn tidy(&mut self, probe: &mut DelayProbe) -> anyhow::Result<()> {
        self.littered = true;
        let new = &self.compiled;
        probe.rules.narrow(&new.wanted)?;
        probe
            .rules
            .maybe(&maybe_wanted(&self.table), new.control.children == 0)?;
        probe.rules.forget_processes(!places(self.rules()))?;
        probe.watch(
            self.submitters(new.control.owned),
            new.control.children != 0,
        )?;
        self.littered = false;
        Ok(())
    }

    fn tidy_or_later(&mut self, probe: &mut DelayProbe) {
        if let Err(error) = self.tidy(probe) {
            log::warn!("failed to tidy up behind a rule, which is to be tried again: {error:#}");
        }
    }

    /// Has the maps hold the table that they held; `control` is what `CONTROL` held if it holds something else by now.
    /// Returns why that was to be.
    fn undo(
        &mut self,
        probe: &mut DelayProbe,
        added: Set,
        control: Option<Control>,
        why: anyhow::Error,
    ) -> Result<(), Failure> {
        let mut undone = self.write_again(probe, added);
        if let Some(control) = control {
            // Programs may remember what they found out under the epoch that is not to be.
            let mut control = self.dressed(probe, control);
            control.epoch = self.next_epoch();
            undone = undone.and_then(|()| probe.rules.control(&control));
            self.compiled.control = control;
        }
        if let Err(error) = undone {
            let why = format!("{why:#}; nor could that be undone: {error:#}");
            return Err(self.give_up(probe, &why));
        }
        self.tidy_or_later(probe);
        Err(Failure::from(why).hint("the rules in force stay as they were; iolag reset ends them"))
    }

    /// Writes the entries of rules of which another one was to take the stead. None of these has processes.
    fn write_again(&self, probe: &mut DelayProbe, places: Set) -> anyhow::Result<()> {
        self.rules()
            .filter(|(place, _)| places & (1 << place) != 0)
            .try_for_each(|(place, placed)| write(&mut probe.rules, place, placed))
    }

    /// No rule is to be in force any more. Where the kernel refuses even that, the lease is not renewed.
    pub(super) fn give_up(&mut self, probe: &mut DelayProbe, why: &str) -> Failure {
        let none = std::array::from_fn(|_| None);
        self.keep_outcomes(probe, &none, "the kernel refused a change of the rules");
        self.table = none;
        self.compiled = Compiled::default();
        self.compiled.control.epoch = self.next_epoch();
        self.littered = true;
        let control = self.dressed(probe, self.compiled.control);
        let when = match probe.rules.control(&control) {
            Ok(()) => String::new(),
            Err(_) => format!(" within {:.1} s", self.lease.as_secs_f64()),
        };
        Failure::new(FAILED, format!("{why}; all rules end{when}"))
            .hint("delays end with the agent in any case: iolag stop")
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
        let meanwhile = self.renewal(probe);
        probe.release_functions(|slot| wanted[slot as usize], meanwhile);
    }
}

/// Writes a rule's own entries. It is not in force yet.
fn write(maps: &mut RuleMaps, place: usize, placed: &Placed) -> anyhow::Result<()> {
    let quantiles: &[u64] = match &placed.spec.delay {
        Delay::Drawn { quantiles, .. } => quantiles,
        Delay::Fixed { .. } => &[],
    };
    maps.place(place as u32, &entry(placed), quantiles)
}

fn places<'a>(rules: impl Iterator<Item = (usize, &'a Placed)>) -> Set {
    rules.fold(0, |set, (place, _)| set | 1 << place)
}

/// Rules that `new` has and `old` has not.
fn added<'a>(old: &'a Table, new: &'a Table) -> impl Iterator<Item = (usize, &'a Placed)> {
    new.iter().enumerate().filter_map(|(place, placed)| {
        let placed = placed.as_ref()?;
        let before = old[place].as_ref().map(|before| before.id);
        (before != Some(placed.id)).then_some((place, placed))
    })
}
