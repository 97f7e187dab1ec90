//! Reading histograms through a mapping.

use std::ops::Range;

use agent_common::{
    bucket,
    series::{BUCKETS, Exact, Key, block_size},
};
use anyhow::bail;
use aya::maps::MapData;

use super::{mapped::Mapped, recent::Recents};

/// What was recorded in one series since its probe was loaded.
#[derive(Clone, Debug)]
pub struct RawSeries {
    /// `None` for the series of everything that found no place of its own.
    pub key: Option<Key>,
    /// `None`: all CPUs.
    pub cpu: Option<u32>,
    /// By metric.
    pub metrics: Vec<Counts>,
}

impl RawSeries {
    /// What tells it apart from the others of its probe, for as long as the probe is loaded.
    #[must_use]
    pub fn id(&self) -> String {
        let key = match &self.key {
            Some(key) => format!(
                "{:x}.{:x}.{:x}.{:x}.{:x}",
                key.op,
                key.device,
                key.magic,
                key.cgroup,
                u128::from_be_bytes(key.comm)
            ),
            None => "other".into(),
        };
        match self.cpu {
            Some(cpu) => format!("{key}@{cpu}"),
            None => key,
        }
    }
}

/// A histogram without its empty buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub sum: u64,
    pub max: u64,
    /// `(bucket, count)`, ascending.
    pub buckets: Vec<(u32, u64)>,
}

/// The histograms of all slots up to the highest in use.
struct Mapping {
    mapped: Mapped,
    metrics: usize,
}

impl Mapping {
    fn new(map: &MapData, blocks: usize, metrics: usize) -> anyhow::Result<Self> {
        let mapped = Mapped::new(map, blocks * block_size(metrics), "HISTOGRAMS")?;
        Ok(Self { mapped, metrics })
    }

    /// What the histograms of these CPUs hold now, of which the first has its block there.
    fn sum(&self, first: usize, cpus: &Range<usize>, metric: usize) -> Dense {
        let mut dense = Dense::new();
        for cpu in cpus.clone() {
            self.add_to(first + cpu, metric, &mut dense);
        }
        dense
    }

    /// Adds what a histogram holds now; programs go on writing meanwhile.
    fn add_to(&self, block: usize, metric: usize, sum: &mut Dense) {
        let start = block * block_size(self.metrics);
        debug_assert!(
            start + block_size(self.metrics) <= self.mapped.bytes() && metric < self.metrics
        );
        let counts =
            start + self.metrics * size_of::<Exact>() + metric * BUCKETS * size_of::<u64>();
        // SAFETY: the block lies within the mapping and is laid out as `series::Block`; the programs write
        // aligned words.
        unsafe {
            let exact = self
                .mapped
                .address()
                .byte_add(start)
                .cast::<Exact>()
                .add(metric);
            let counts = self.mapped.address().byte_add(counts).cast::<u64>();
            sum.sum = sum
                .sum
                .wrapping_add((&raw const (*exact).sum).read_volatile());
            sum.max = sum.max.max((&raw const (*exact).max).read_volatile());
            for (bucket, total) in sum.counts.iter_mut().enumerate() {
                *total += counts.add(bucket).read_volatile();
            }
        }
    }
}

/// A histogram with all its buckets.
pub struct Dense {
    sum: u64,
    max: u64,
    counts: [u64; BUCKETS],
}

impl Dense {
    /// Records a value, as programs do.
    pub fn record(&mut self, value: u64) {
        self.sum = self.sum.wrapping_add(value);
        self.max = self.max.max(value);
        self.counts[(bucket::index(value) as usize).min(BUCKETS - 1)] += 1;
    }

    const fn new() -> Self {
        Self {
            sum: 0,
            max: 0,
            counts: [0; BUCKETS],
        }
    }

    fn sparse(&self) -> Counts {
        Counts {
            sum: self.sum,
            max: self.max,
            buckets: (0..)
                .zip(self.counts)
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}

/// Where a probe's series are.
pub struct Place<'a> {
    pub histograms: &'a MapData,
    /// What is not in the histograms yet, of a probe that writes it down first.
    pub recents: Option<&'a Recents>,
    /// Metrics of a series.
    pub metrics: usize,
    pub cpus: usize,
}

/// Reads the series in `slots`, of which the first is that of all others. Series in which nothing was
/// recorded are left out.
///
/// # Errors
/// The mapping is refused.
pub fn series(
    place: &Place<'_>,
    slots: &[(Key, u32)],
    by_cpu: bool,
) -> anyhow::Result<Vec<RawSeries>> {
    let Some(highest) = slots.iter().map(|(_, slot)| *slot).max() else {
        bail!("no slots to read");
    };
    let &Place { metrics, cpus, .. } = place;
    let mapping = Mapping::new(place.histograms, (highest as usize + 1) * cpus, metrics)?;
    let groups: Vec<(Option<u32>, Range<usize>)> = if by_cpu {
        (0..cpus)
            .map(|cpu| (Some(cpu as u32), cpu..cpu + 1))
            .collect()
    } else {
        vec![(None, 0..cpus)]
    };
    let mut readers = Vec::new();
    for (_, range) in &groups {
        let reader = place.recents.map(|recents| recents.reader(range.clone()));
        readers.push(reader.transpose()?);
    }
    let mut all = Vec::new();
    for (nth, (key, slot)) in slots.iter().enumerate() {
        for ((cpu, range), reader) in groups.iter().zip(&mut readers) {
            let read = || {
                let metrics = 0..metrics;
                let read = |metric| mapping.sum(*slot as usize * cpus, range, metric);
                metrics.map(read).collect::<Vec<Dense>>()
            };
            let histograms = match reader {
                Some(reader) => reader.complete(*slot, read)?,
                None => read(),
            };
            let metrics: Vec<Counts> = histograms.iter().map(Dense::sparse).collect();
            if metrics.iter().any(|counts| !counts.buckets.is_empty()) {
                all.push(RawSeries {
                    key: (nth > 0).then_some(*key),
                    cpu: *cpu,
                    metrics,
                });
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_key_and_the_cpu_make_another_series() {
        let key = Key::default();
        let mut comm = [0; 16];
        comm[15] = 1;
        let keys = [
            None,
            Some(key),
            Some(Key { op: 1, ..key }),
            Some(Key { device: 1, ..key }),
            Some(Key { magic: 1, ..key }),
            Some(Key { cgroup: 1, ..key }),
            Some(Key { comm, ..key }),
        ];
        let mut ids = std::collections::BTreeSet::new();
        for key in keys {
            for cpu in [None, Some(0), Some(1)] {
                let metrics = Vec::new();
                assert!(ids.insert(RawSeries { key, cpu, metrics }.id()));
            }
        }
    }
}
