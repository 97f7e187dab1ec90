//! A measuring probe, loaded and attached.

mod events;
mod mapped;
mod objects;
mod read;
mod recent;
mod tasks;

use std::os::fd::AsFd as _;

use agent_common::{
    probes::{Field, LOSSES, Loss, Probe, block},
    series::{Key, OTHER, block_size},
};
use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, Queue, RingBuf},
};
use log::debug;

pub use events::EventRing;
pub(super) use objects::object;
pub use read::{Counts, RawSeries};
use recent::Recents;
pub use tasks::Tasks;

use super::{
    HostTypes,
    hook::{Asked, AttachedPart, attach_part},
    loader::{self, Given},
    prog_info::{ProgStats, prog_stats},
};
use crate::failure::{Failure, HOST};

/// Memory for the histograms of one probe (bytes); the kernel allocates it when the probe is loaded. Exceeded only where
/// the least number of series takes more: from some 50 CPUs on.
const MEMORY: usize = 32 << 20;
/// Series of a probe, whatever the memory allows.
const SERIES: std::ops::RangeInclusive<usize> = 64..=1024;

/// Owns programs, links and maps: dropping it detaches and frees everything.
pub struct MeasureProbe {
    pub probe: &'static Probe,
    /// Fields by which its series are told apart.
    pub fields: Vec<Field>,
    pub parts: Vec<LoadedPart>,
    ebpf: Ebpf,
    series: HashMap<MapData, Key, u32>,
    histograms: MapData,
    /// Of a probe that writes down first what it puts into histograms.
    recents: Option<Recents>,
    /// Where requests are counted that were issued, of the probe `block`.
    issued: Option<Array<MapData, [block::Set; block::SETS]>>,
    ledger: PerCpuArray<MapData, u64>,
    /// Of a probe that sends events.
    pub events: Option<EventRing>,
    /// Of a probe that knows tasks.
    pub tasks: Option<Tasks>,
    cpus: usize,
}

/// A part of a probe, attached or with the reason why it is not.
pub struct LoadedPart {
    pub measures: &'static str,
    pub attached: Result<AttachedPart, String>,
}

impl MeasureProbe {
    /// Loads the probe's object and attaches its parts; `fields` are those by which series are told apart,
    /// `backend` forces one; `function` is what a probe that takes one is attached to.
    ///
    /// # Errors
    /// This kernel cannot run the probe; nothing stays attached.
    pub fn load(
        probe: &'static Probe,
        function: Option<&str>,
        fields: &[Field],
        types: &HostTypes,
        backend: Option<&str>,
    ) -> Result<Self, Failure> {
        Self::try_load(probe, function, fields, types, backend).map_err(|error| {
            let name = match function {
                Some(function) => format!("{}:{function}", probe.name),
                None => probe.name.into(),
            };
            Failure::new(HOST, format!("failed to load the probe {name}: {error:#}"))
                .hint("iolag probe list shows what else there is")
        })
    }

    fn try_load(
        probe: &'static Probe,
        function: Option<&str>,
        fields: &[Field],
        types: &HostTypes,
        backend: Option<&str>,
    ) -> anyhow::Result<Self> {
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))?;
        let slots = slots(cpus, probe);
        let mut ebpf = load_object(probe, fields, types, cpus, slots)?;
        let mut free: Queue<MapData, u32> = Queue::try_from(take(&mut ebpf, "FREE")?)?;
        for slot in 0..slots as u32 {
            if slot != OTHER {
                free.push(slot, 0).context("failed to fill FREE")?;
            }
        }
        stamp_if_needed(&mut ebpf)?;
        let mut parts = Vec::new();
        for part in probe.parts {
            let asked = Asked {
                fields,
                backend,
                function,
            };
            let attached = attach_part(&mut ebpf, types, part, asked);
            if let Err(reason) = &attached {
                anyhow::ensure!(!part.required, "{reason}");
                debug!("{}: no {}: {reason}", probe.name, part.measures);
            }
            parts.push(LoadedPart {
                measures: part.measures,
                attached,
            });
        }
        enable(&mut ebpf)?;
        let Map::Array(histograms) = take(&mut ebpf, "HISTOGRAMS")? else {
            anyhow::bail!("HISTOGRAMS is no array");
        };
        let recents = probe.recent.map(|value| {
            let map = Array::try_from(take(&mut ebpf, "RECENT")?)?;
            Ok::<_, anyhow::Error>(Recents::new(map, value))
        });
        let recents = recents.transpose()?;
        Ok(Self {
            probe,
            fields: fields.to_vec(),
            parts,
            series: HashMap::try_from(take(&mut ebpf, "SERIES")?)?,
            histograms,
            recents,
            issued: match ebpf.take_map(".data.starts") {
                Some(sets) => Some(Array::try_from(sets)?),
                None => None,
            },
            ledger: PerCpuArray::try_from(take(&mut ebpf, "LEDGER")?)?,
            events: match ebpf.take_map("EVENTS") {
                Some(ring) => Some(EventRing::new(RingBuf::try_from(ring)?)),
                None => None,
            },
            tasks: Tasks::take(&mut ebpf)?,
            ebpf,
            cpus,
        })
    }

    /// Memory that the histograms of a probe take (bytes).
    ///
    /// # Errors
    /// The number of CPUs cannot be read.
    pub fn memory(probe: &Probe) -> anyhow::Result<usize> {
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))?;
        Ok(slots(cpus, probe) * cpus * block_size(probe.metrics.len()))
    }

    /// Sums of the ledger over all CPUs, by `Loss`.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn ledger(&self) -> anyhow::Result<[u64; LOSSES]> {
        let mut sums = [0; LOSSES];
        for index in 0..2 * LOSSES {
            sums[index % LOSSES] += self
                .ledger
                .get(&(index as u32), 0)
                .context("failed to read LEDGER")?
                .iter()
                .sum::<u64>();
        }
        if let Some(recents) = &self.recents {
            sums[Loss::Completions as usize] += recents.completions()?;
        }
        if let Some(sets) = &self.issued {
            let sets = sets.get(&0, 0).context("failed to read .data.starts")?;
            sums[Loss::Starts as usize] += block::starts(&sets);
        }
        Ok(sums)
    }

    /// Runs of the probe's programs that the kernel skipped (count).
    ///
    /// # Errors
    /// The system call's own.
    pub fn missed(&self) -> anyhow::Result<u64> {
        self.programs()
            .map(|name| Ok(self.stats(name)?.missed))
            .sum()
    }

    /// What the kernel counted of one of [`Self::programs`].
    ///
    /// # Errors
    /// The system call's own.
    pub fn stats(&self, program: &str) -> anyhow::Result<ProgStats> {
        let loaded = self
            .ebpf
            .program(program)
            .ok_or_else(|| anyhow!("failed to find program {program}"))?;
        prog_stats(loaded.fd()?.as_fd()).context("failed to read program info")
    }

    /// Names of the programs that are attached.
    pub fn programs(&self) -> impl Iterator<Item = &'static str> {
        self.parts
            .iter()
            .filter_map(|part| part.attached.as_ref().ok())
            .flat_map(|part| part.programs.iter().copied())
    }

    /// Whether one of the attached programs is at `symbol`.
    #[must_use]
    pub fn attached_at(&self, symbol: &str) -> bool {
        let hooks = self
            .probe
            .parts
            .iter()
            .flat_map(|part| part.variants)
            .flat_map(|variant| variant.hooks);
        let at: Vec<_> = hooks
            .filter(|hook| hook.symbols.contains(&symbol))
            .map(|hook| hook.program)
            .collect();
        self.programs().any(|program| at.contains(&program))
    }

    /// All series with what was recorded since the probe was loaded; of each CPU by itself if `by_cpu`.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn read(&self, by_cpu: bool) -> anyhow::Result<Vec<RawSeries>> {
        let mut slots = vec![(Key::default(), OTHER)];
        for entry in self.series.iter() {
            slots.push(entry.context("failed to read SERIES")?);
        }
        let place = read::Place {
            histograms: &self.histograms,
            recents: self.recents.as_ref(),
            metrics: self.probe.metrics.len(),
            cpus: self.cpus,
        };
        read::series(&place, &slots, by_cpu)
    }
}

/// Slots that the memory allows, the one for `other` included.
fn slots(cpus: usize, probe: &Probe) -> usize {
    let slot = cpus * block_size(probe.metrics.len());
    (MEMORY / slot).clamp(*SERIES.start(), *SERIES.end()) + 1
}

fn load_object(
    probe: &Probe,
    fields: &[Field],
    types: &HostTypes,
    cpus: usize,
    slots: usize,
) -> anyhow::Result<Ebpf> {
    let object = object(probe.name).context("it has no object")?;
    let constants = probe
        .constants
        .iter()
        .map(|constant| Ok((constant.global, types.constant(constant)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let by: u32 = fields.iter().map(|field| field.bit()).sum();
    let cpus = u32::try_from(cpus)?;
    let slots = u32::try_from(slots)?;
    let mut max_entries = vec![
        ("SERIES", slots),
        ("FREE", slots),
        ("HISTOGRAMS", slots * cpus),
    ];
    if probe.recent.is_some() {
        max_entries.push(("RECENT", cpus));
    }
    let given = Given {
        constants: &constants,
        offered: &[("BY", by), ("CPUS", cpus)],
        max_entries: &max_entries,
        log_level: 0,
    };
    loader::load(object, &given).context("the kernel refused the object")
}

fn take(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name)
        .ok_or_else(|| anyhow!("the object has no map {name}"))
}

/// Tells a probe that waits for it that all is attached.
fn enable(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    let Some(map) = ebpf.map_mut("ENABLED") else {
        return Ok(());
    };
    let mut flag: Array<_, u64> = Array::try_from(map)?;
    flag.set(0, 1, 0).context("failed to write ENABLED")
}

/// Tells the probe `block` to stamp requests itself from the first on, if a device's requests are not
/// stamped by the kernel: it does so for whoever uses block statistics, which mostly is writeback
/// throttling (`block/blk-wbt.c`). Where this guesses wrong, the probe finds out by itself.
fn stamp_if_needed(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    let Some(map) = ebpf.map_mut("UNSTAMPED") else {
        return Ok(());
    };
    let throttled = |device: &std::path::Path| {
        std::fs::read_to_string(device.join("queue/wbt_lat_usec"))
            .is_ok_and(|text| text.trim().parse().is_ok_and(|us: i64| us > 0))
    };
    let all = std::fs::read_dir("/sys/block")
        .map(|devices| devices.flatten().all(|device| throttled(&device.path())))
        .unwrap_or(false);
    if !all {
        let mut flag: Array<_, u64> = Array::try_from(map)?;
        flag.set(0, 1, 0).context("failed to write UNSTAMPED")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use agent_common::probes::PROBES;

    use super::*;

    #[test]
    fn histograms_keep_to_their_memory() {
        for probe in PROBES {
            let bytes = |cpus| slots(cpus, probe) * cpus * block_size(probe.metrics.len());
            let one_slot = |cpus| cpus * block_size(probe.metrics.len());
            for cpus in [1, 2, 4, 16, 48] {
                assert!(bytes(cpus) <= MEMORY + one_slot(cpus), "{}", probe.name);
            }
            assert_eq!(slots(2, probe), 1025, "{}", probe.name);
            assert_eq!(slots(4096, probe), 65, "{}", probe.name);
        }
    }
}
