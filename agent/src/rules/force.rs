//! The rules in force, and how they change. Programs see either all of a change or none of it, and what is refused
//! changes nothing.

mod change;
mod control;
mod ends;
mod outcome;

use std::{collections::VecDeque, time::Duration};

use agent_common::{
    catalogue::{POINTS, Point, slot},
    rules::RULES,
};

use super::{
    spec::{Outcome, Spec},
    table::{Compiled, Placed, Subjects, Table},
};
use crate::{
    failure::{FAILED, Failure, USAGE},
    functions::Function,
    host::Facts,
    kernel::{DelayProbe, Fields, RuleMaps, now_ns},
    plan::{self, Choice},
};

/// Rules that ended, of which the outcome is kept.
const ENDED: usize = 32;

/// A rule that is to be: what was asked for, and what that is on this host.
#[derive(Clone, Debug)]
pub struct Asked {
    pub spec: Spec,
    pub subjects: Subjects,
    /// What `fn:` points stand for.
    pub functions: Vec<Function>,
}

pub struct InForce {
    table: Table,
    /// What the maps hold.
    compiled: Compiled,
    /// Skipped runs of the programs at a rule's points before it came, by place.
    missed_before: [u64; RULES],
    /// As `missed_before`, of what found no place in the maps.
    untracked_before: [u64; RULES],
    /// Of the last change, also if it was refused.
    epoch: u64,
    /// The maps may hold more than the rules in force need.
    littered: bool,
    next: usize,
    /// The last id that was given.
    last_id: u64,
    fields: Option<Fields>,
    /// Inode and device of the agent's program.
    agent: (u64, u64),
    ended: VecDeque<Outcome>,
    lease: Duration,
}

impl InForce {
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        Self {
            table: std::array::from_fn(|_| None),
            compiled: Compiled::default(),
            missed_before: [0; RULES],
            untracked_before: [0; RULES],
            epoch: 0,
            littered: false,
            next: 0,
            last_id: 0,
            fields: None,
            agent: (0, 0),
            ended: VecDeque::new(),
            lease,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules().next().is_none()
    }

    /// The rules, by name.
    pub fn specs(&self) -> Vec<&Spec> {
        let mut specs: Vec<&Spec> = self.rules().map(|(_, placed)| &placed.spec).collect();
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        specs
    }

    /// Their ids.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.rules().map(|(_, placed)| placed.id).collect()
    }

    fn rules(&self) -> impl Iterator<Item = (usize, &Placed)> {
        let place = |(place, placed): (usize, &'_ Option<Placed>)| -> Option<usize> {
            placed.as_ref().map(|_| place)
        };
        let places: Vec<usize> = self.table.iter().enumerate().filter_map(place).collect();
        places
            .into_iter()
            .filter_map(|place| Some((place, self.table[place].as_ref()?)))
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        self.rules()
            .find(|(_, placed)| placed.spec.name == name)
            .map(|(place, _)| place)
    }

    /// What filters read of this kernel; none until [`Self::know`].
    #[must_use]
    pub fn fields(&self) -> Option<&Fields> {
        self.fields.as_ref()
    }

    /// Puts a rule into force, in the stead of one of the same name if `replace` is set. Returns its id.
    ///
    /// # Errors
    /// There is one of that name, or no place; a point cannot be attached; the kernel refuses. The rules in force stay
    /// as they were.
    pub fn add(
        &mut self,
        probe: &mut DelayProbe,
        asked: Asked,
        replace: bool,
        (choice, facts): (Choice, &Facts),
    ) -> Result<u64, Failure> {
        let name = &asked.spec.name;
        let before = self.place_of(name);
        if before.is_some() && !replace {
            return Err(Failure::new(
                USAGE,
                format!("--name {name}: a rule of that name is in force"),
            )
            .hint(format!("choose another name, or: iolag remove {name}")));
        }
        // With all places taken, a rule can still take the stead of its predecessor.
        let place = self.free_place().or(before).ok_or_else(|| {
            Failure::new(
                FAILED,
                format!("failed to add a rule: {RULES} are in force already"),
            )
            .hint("iolag rules shows them, iolag remove NAME makes room")
        })?;
        let meanwhile = self.renewal(probe);
        let attached = attach(probe, &asked, choice, facts, meanwhile);
        let slots = attached.inspect_err(|_| self.release(probe))?;
        let mut table = self.table.clone();
        if let Some(before) = before {
            table[before] = None;
        }
        self.last_id += 1;
        table[place] = Some(Placed {
            id: self.last_id,
            spec: asked.spec,
            subjects: asked.subjects,
            slots,
            epoch: self.epoch + 1,
            start_ns: now_ns(),
        });
        self.change(probe, table, None)?;
        self.next = (place + 1) % RULES;
        Ok(self.last_id)
    }

    /// What came of the rules in force, by name.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn outcomes(&self, probe: &DelayProbe) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = self
            .rules()
            .map(|(place, _)| self.outcome(probe, place, None))
            .collect::<Result<Vec<_>, _>>()?;
        outcomes.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Ok(outcomes)
    }

    /// What came of rules that ended, oldest first.
    pub fn ended(&self) -> impl Iterator<Item = &Outcome> {
        self.ended.iter()
    }

    /// A place that was free for longest, so that what the programs found out for one rule is not taken for
    /// another's.
    fn free_place(&self) -> Option<usize> {
        (0..RULES)
            .map(|step| (self.next + step) % RULES)
            .find(|place| self.table[*place].is_none())
    }
}

/// Attaches a rule's points, and gives their slots.
fn attach(
    probe: &mut DelayProbe,
    asked: &Asked,
    choice: Choice,
    facts: &Facts,
    mut meanwhile: impl FnMut(&mut RuleMaps),
) -> Result<Vec<u32>, Failure> {
    let asked_for = |point: &Point| asked.spec.points.iter().any(|name| name == point.name);
    let points = POINTS
        .iter()
        .zip(0_u32..)
        .filter(|(point, _)| asked_for(point));
    let plans = points
        .clone()
        .map(|(point, _)| plan::plan_point(point, choice, facts));
    probe.want_points(plans.collect(), &mut meanwhile)?;
    let mut slots: Vec<u32> = points.map(|(_, slot)| slot).collect();
    if !asked.functions.is_empty() {
        slots.extend(probe.want_functions(&asked.functions, meanwhile)?);
    }
    slots.sort_unstable();
    slots.dedup();
    debug_assert!(
        slots
            .iter()
            .all(|slot| *slot < slot::FUNCTIONS || !asked.functions.is_empty())
    );
    Ok(slots)
}
