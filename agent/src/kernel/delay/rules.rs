//! The maps of the rules.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Mutex,
};

use agent_common::{
    bucket,
    offsets::Offsets,
    quantiles::KNOTS,
    rules::{Control, Maybe, Rule, Set, Tally, Tickets, Wanted},
};
use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};

use super::take;

/// Keys of the map `WANTED`, with the rules that want each.
pub type WantedSets = BTreeMap<[u64; 3], Set>;

/// What one rule did since it came.
#[derive(Clone, Debug)]
pub struct RuleSample {
    pub tally: Tally,
    /// Counts by bucket of what its hits waited (ns).
    pub times: Vec<u64>,
}

pub struct RuleMaps {
    control: Array<MapData, Control>,
    /// The same map, for [`Self::end_of_lease`].
    control_fd: Option<OwnedFd>,
    rules: Array<MapData, Rule>,
    tallies: PerCpuArray<MapData, Tally>,
    tickets: Array<MapData, Tickets>,
    quantiles: Array<MapData, [u64; 2]>,
    times: PerCpuArray<MapData, u64>,
    wanted: HashMap<MapData, Wanted, Set>,
    /// What `wanted` holds.
    held: WantedSets,
    maybe: Array<MapData, Maybe>,
    pids: HashMap<MapData, u32, Set>,
    /// Rules of which there may be processes in `pids`.
    named: Set,
    offsets: Array<MapData, Offsets>,
    untracked: PerCpuArray<MapData, u64>,
}

impl RuleMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let control = take(ebpf, ".data.control")?;
        let control_fd = match &control {
            Map::Array(data) => data.fd().as_fd().try_clone_to_owned().ok(),
            _ => None,
        };
        Ok(Self {
            control: Array::try_from(control).context("map CONTROL")?,
            control_fd,
            rules: Array::try_from(take(ebpf, "RULES")?).context("map RULES")?,
            tallies: PerCpuArray::try_from(take(ebpf, "TALLIES")?).context("map TALLIES")?,
            tickets: Array::try_from(take(ebpf, "TICKETS")?).context("map TICKETS")?,
            quantiles: Array::try_from(take(ebpf, "QUANTILES")?).context("map QUANTILES")?,
            times: PerCpuArray::try_from(take(ebpf, "TIMES")?).context("map TIMES")?,
            wanted: HashMap::try_from(take(ebpf, "WANTED")?).context("map WANTED")?,
            held: WantedSets::new(),
            maybe: Array::try_from(take(ebpf, "MAYBE")?).context("map MAYBE")?,
            pids: HashMap::try_from(take(ebpf, "PIDS")?).context("map PIDS")?,
            named: 0,
            offsets: Array::try_from(take(ebpf, ".data.offsets")?).context("map OFFSETS")?,
            untracked: PerCpuArray::try_from(take(ebpf, "UNTRACKED")?).context("map UNTRACKED")?,
        })
    }

    /// Tells the programs what to do; in force with the next hit.
    ///
    /// # Errors
    /// The kernel refuses the map's update.
    pub fn control(&mut self, control: &Control) -> anyhow::Result<()> {
        self.control
            .set(0, control, 0)
            .context("failed to write the rules to the kernel")
    }

    /// What ends the lease at once, by any thread: nobody is delayed until it is renewed.
    ///
    /// # Errors
    /// The kernel refuses another descriptor of the map.
    pub fn end_of_lease(&self) -> anyhow::Result<impl Fn() + Send + Sync + use<>> {
        let fd = self
            .control_fd
            .as_ref()
            .context("map CONTROL is no array")?;
        let data = MapData::from_fd(fd.try_clone()?).context("map CONTROL")?;
        let control = Mutex::new(Array::<_, Control>::try_from(Map::Array(data))?);
        Ok(move || {
            // Who holds it is ending the lease.
            if let Ok(mut map) = control.try_lock()
                && let Ok(mut control) = map.get(&0, 0)
            {
                control.lease_until_ns = 0;
                // If the kernel refuses, the lease runs out.
                let _refused = map.set(0, control, 0);
            }
        })
    }

    /// Tells the programs where the kernel's fields are.
    ///
    /// # Errors
    /// The kernel refuses the map's update.
    pub fn offsets(&mut self, offsets: &Offsets) -> anyhow::Result<()> {
        self.offsets
            .set(0, offsets, 0)
            .context("failed to write the offsets to the kernel")
    }

    /// Writes a rule's own entry, with all its counts at 0. It is not in force yet.
    ///
    /// # Errors
    /// The kernel refuses a map's update.
    pub fn place(&mut self, place: u32, rule: &Rule, quantiles: &[u64]) -> anyhow::Result<()> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let nothing = |cpus| PerCpuValues::try_from(vec![0_u64; cpus]);
        for bucket in 0..bucket::BUCKETS as u32 {
            let key = place * bucket::BUCKETS as u32 + bucket;
            self.times.set(key, nothing(cpus)?, 0)?;
        }
        let tallies = PerCpuValues::try_from(vec![Tally::default(); cpus])?;
        self.tallies.set(place, tallies, 0)?;
        self.tickets.set(place, Tickets::default(), 0)?;
        for (knot, cell) in (0..).zip(quantiles.windows(2).take(KNOTS)) {
            let cell = [cell[0], cell[1]];
            self.quantiles.set(place * KNOTS as u32 + knot, cell, 0)?;
        }
        self.rules
            .set(place, rule, 0)
            .context("failed to write a rule to the kernel")
    }

    /// Adds what is wanted now beside what was wanted before.
    ///
    /// # Errors
    /// There is no room, or the kernel refuses.
    pub fn widen(&mut self, new: &WantedSets) -> anyhow::Result<()> {
        for (key, set) in new {
            let before = self.held.get(key).copied().unwrap_or(0);
            if before | set != before {
                self.want(*key, before | set)?;
            }
        }
        Ok(())
    }

    /// Takes away what is wanted no more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn narrow(&mut self, new: &WantedSets) -> anyhow::Result<()> {
        for (key, set) in self.held.clone() {
            match new.get(&key) {
                Some(now) if *now == set => {}
                Some(now) => self.want(key, *now)?,
                None => {
                    absent(self.wanted.remove(&wanted(key)))
                        .context("failed to take a filter from the kernel")?;
                    self.held.remove(&key);
                }
            }
        }
        Ok(())
    }

    fn want(&mut self, key: [u64; 3], set: Set) -> anyhow::Result<()> {
        self.wanted
            .insert(wanted(key), set, 0)
            .context("failed to write a filter to the kernel")?;
        self.held.insert(key, set);
        Ok(())
    }

    /// Tells what anybody may want; what forks added is forgotten if `forget` is set.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn maybe(&mut self, wanted: &Maybe, forget: bool) -> anyhow::Result<()> {
        const WHAT: &str = "failed to write who may be wanted to the kernel";
        self.maybe.set(0, wanted, 0).context(WHAT)?;
        if forget {
            let nobody = [0; size_of::<Maybe>()];
            self.maybe.set(1, nobody, 0).context(WHAT)?;
        }
        Ok(())
    }

    /// Names a process to a rule.
    ///
    /// # Errors
    /// There is no room, or the kernel refuses.
    pub fn name_process(&mut self, group: u32, rule: Set) -> anyhow::Result<()> {
        self.named |= rule;
        let before = self.pids.get(&group, 0).unwrap_or(0);
        self.pids
            .insert(group, before | rule, 0)
            .context("failed to write a process to the kernel")
    }

    /// How many processes a rule has: those that were named and their later children, as far as they live.
    #[must_use]
    pub fn processes(&self, rule: Set) -> usize {
        let has = |entry: &(u32, Set)| entry.1 & rule != 0;
        self.pids.iter().flatten().filter(has).count()
    }

    /// Forgets processes that are gone without the kernel side having seen their exit: their numbers may be given to
    /// others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget_dead(&mut self, root: &Path) -> anyhow::Result<()> {
        let groups: Vec<u32> = self.pids.keys().flatten().collect();
        for group in groups {
            if !root.join(format!("proc/{group}")).exists() {
                absent(self.pids.remove(&group))?;
            }
        }
        Ok(())
    }

    /// Forgets the processes of rules.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget_processes(&mut self, rules: Set) -> anyhow::Result<()> {
        if self.named & rules == 0 {
            return Ok(());
        }
        let entries: Vec<(u32, Set)> = self.pids.iter().flatten().collect();
        for (group, set) in entries {
            if set & rules == 0 {
                continue;
            }
            match set & !rules {
                0 => absent(self.pids.remove(&group)),
                left => self.pids.insert(group, left, 0),
            }
            .context("failed to take a process from the kernel")?;
        }
        self.named &= !rules;
        Ok(())
    }

    /// What a rule did.
    ///
    /// # Errors
    /// The kernel refuses a map's look-up.
    pub fn sample(&self, place: u32) -> anyhow::Result<RuleSample> {
        let mut tally = Tally::default();
        for of_cpu in self
            .tallies
            .get(&place, 0)
            .context("failed to read TALLIES")?
            .iter()
        {
            tally.add(of_cpu);
        }
        let first = place * bucket::BUCKETS as u32;
        let times = (first..first + bucket::BUCKETS as u32)
            .map(|key| Ok(self.times.get(&key, 0)?.iter().sum()))
            .collect::<Result<_, MapError>>()
            .context("failed to read TIMES")?;
        Ok(RuleSample { tally, times })
    }

    /// Hits that a rule with a bound was granted, of all CPUs: may be more than the bound.
    ///
    /// # Errors
    /// The kernel refuses a map's look-up.
    pub fn hits(&self, place: u32) -> anyhow::Result<u64> {
        let tickets = self
            .tickets
            .get(&place, 0)
            .context("failed to read TICKETS")?;
        Ok(tickets.hits)
    }

    /// Children that found no place beside their parents, and requests whose submitter found none (count).
    #[must_use]
    pub fn untracked(&self) -> u64 {
        self.untracked
            .get(&0, 0)
            .map_or(0, |counts| counts.iter().sum())
    }
}

fn wanted([kind, value, more]: [u64; 3]) -> Wanted {
    Wanted { kind, value, more }
}

/// That it is gone already is fine.
fn absent(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}
