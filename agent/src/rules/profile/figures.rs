//! How the built-in profiles were made. `IOLAG_WRITE_PROFILES=1 cargo test -p iolag --lib figures` writes them anew.

use std::{collections::BTreeMap, fs, path::Path};

use agent_common::bucket;
use statrs::distribution::{ContinuousCDF as _, LogNormal, Normal};

use super::{Profile, builtin};
use crate::rules::{curve::Curve, independent::Slices};

/// What the counts of a profile add up to.
const COUNT: f64 = 1e6;

/// Figures of one profile, and how the curve follows from them.
struct Model {
    name: &'static str,
    source: &'static str,
    curve: fn() -> Curve,
}

const MODELS: [Model; 4] = [
    Model {
        name: "hdd-7200",
        source: "Computed, not measured: one random read of a disk that has nothing else to do. Figures: Western \
            Digital Ultrastar DC HC310 OEM specification, 4.5.1: average seek of a read 7.4 ms, single track seek \
            0.23 ms, one revolution at 7200 rpm 8.33 ms \
            (https://manualshive.com/en/manual/western-digital/ultrastar-dc-hc310/961649?page=23). \
            Curve: seek + rotation, independent of each other. Rotation is uniform from 0 to 8.33 ms. A seek over \
            the share d of the disk takes 0.23 ms + 13.44 ms * sqrt(d); d is the distance of two random places, and \
            13.44 ms makes the average 7.4 ms. The square root is that of short seeks in Ruemmler and Wilkes, An \
            introduction to disk drive modeling, IEEE Computer 27(3), 1994. Left out: the disk's cache, command \
            overhead, transfer, retries.",
        curve: hdd,
    },
    Model {
        name: "ssd-sata",
        source: "Computed, not measured: one random 4 KiB read at a time. Figures: Intel SSD DC S4500/S4600 product \
            specification: typical latency of a random read 110 us, quality of service of a read 300 us at 99.9 % \
            (https://manualzz.com/doc/48879893/intel%C2%AE-solid-state-drive-dc-s4500-s4600-product). Curve: the \
            lognormal distribution with the typical latency as its median and its 99.9 % at 300 us. That it is \
            lognormal is our choice; nothing is known of it beyond 99.9 %.",
        curve: || lognormal(110e3, 0.999, 300e3),
    },
    Model {
        name: "cloud-volume",
        source: "Computed, not measured: one small request at a time to a general purpose volume. Figures: Amazon \
            EBS user guide, General Purpose SSD volumes: gp3 has a single-digit millisecond latency \
            (https://docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html). Curve: the lognormal \
            distribution with its median at 1 ms and its 99.9 % at 10 ms: that \"single-digit\" means these two is \
            our reading, and the shape our choice. Many volumes are faster; record your own.",
        curve: || lognormal(1e6, 0.999, 10e6),
    },
    Model {
        name: "nfs-lan",
        source: "Computed, not measured: one uncached 4 KiB read at a time of a file on an NFS server. Figures: a \
            ping from host to host takes 85 us (median) and 126 us (99 %), the example that is published with table 1 \
            of Grosvenor and others, Queues don't matter when you can jump them, NSDI 2015 \
            (https://www.cl.cam.ac.uk/research/srg/netos/qjump/nsdi2015/table1.html); 4096 bytes at 1 Gbit/s take \
            32.8 us; the server's disk is ssd-sata. Curve: their sum, independent of each other, the ping lognormal, \
            which is our choice. Left out: the CPU time of server and client, other traffic.",
        curve: nfs,
    },
];

/// The lognormal distribution with this median and the quantile `p` at `high` (ns): the logarithm's deviation is that
/// quantile's distance from the median, in those of the normal distribution.
fn lognormal(median: f64, p: f64, high: f64) -> Curve {
    let deviation = (high / median).ln() / Normal::standard().inverse_cdf(p);
    let truth = LogNormal::new(median.ln(), deviation).unwrap();
    of_quantiles(|p| truth.inverse_cdf(p))
}

fn hdd() -> Curve {
    const TRACK_NS: f64 = 0.23e6;
    const AVERAGE_NS: f64 = 7.4e6;
    const TURN_NS: f64 = 60e9 / 7200.0;
    // The distance of two random places on a line has the density 2 (1 - d), and sqrt(d) the mean 8/15.
    let factor = (AVERAGE_NS - TRACK_NS) * 15.0 / 8.0;
    let distance = |p: f64| 1.0 - (1.0 - p).sqrt();
    let seek = of_quantiles(|p| TRACK_NS + factor * distance(p).sqrt());
    assert!((seek.mean() / AVERAGE_NS - 1.0).abs() < 1e-3);
    let turn = Curve::of_buckets(&[(0, TURN_NS as u64, 1)]);
    Slices::of(&seek, 1).sum(&Slices::of(&turn, 1))
}

fn nfs() -> Curve {
    const WIRE_NS: f64 = 4096.0 * 8.0;
    let ping = lognormal(85e3, 0.99, 126e3);
    let network = of_quantiles(|p| WIRE_NS + ping.quantile(p));
    let disk = lognormal(110e3, 0.999, 300e3);
    Slices::of(&network, 1).sum(&Slices::of(&disk, 1))
}

/// With a straight line for each hundred thousandth.
fn of_quantiles(quantile: impl Fn(f64) -> f64) -> Curve {
    let slices = 100_000;
    let middle = |slice: u32| (f64::from(slice) + 0.5) / f64::from(slices);
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for slice in 0..slices {
        *counts
            .entry(quantile(middle(slice)).round() as u64)
            .or_default() += 1;
    }
    let values: Vec<u64> = counts.keys().copied().collect();
    let ends = values
        .iter()
        .skip(1)
        .copied()
        .chain(values.last().map(|last| last + 1));
    let buckets: Vec<_> = values
        .iter()
        .zip(ends)
        .map(|(from, to)| (*from, to, counts[from]))
        .collect();
    Curve::of_buckets(&buckets)
}

/// As a histogram of the probes has it.
fn profile(model: &Model) -> Profile {
    let curve = (model.curve)();
    let seen = |value: u64| (curve.share_below(value as f64) * COUNT).round() as u64;
    let all = 0..bucket::index(bucket::SHORT);
    let buckets = all
        .map(|index| (bucket::lower(index), bucket::last(index) + 1))
        .map(|(lower, upper)| (lower, upper, seen(upper) - seen(lower)))
        .filter(|(.., count)| *count > 0);
    let source = model
        .source
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    Profile::new(model.name, &source, buckets.collect()).unwrap()
}

#[test]
fn the_built_in_profiles_are_what_their_figures_give() {
    assert_eq!(MODELS.map(|model| model.name), *builtin::names());
    for model in &MODELS {
        let computed = profile(model);
        if std::env::var_os("IOLAG_WRITE_PROFILES").is_some() {
            let path = format!(
                "{}/profiles/{}.json",
                env!("CARGO_MANIFEST_DIR"),
                model.name
            );
            fs::write(Path::new(&path), computed.document()).unwrap();
            continue;
        }
        let shipped = Profile::load("--like", model.name).unwrap();
        assert_eq!(
            (&shipped.name, &shipped.source),
            (&computed.name, &computed.source)
        );
        // Another machine's logarithm may differ in its last digit, and so a count by one.
        let distance = shipped.curve().kolmogorov(&computed.curve());
        assert!(distance < 1e-5, "{}: {distance}", model.name);
    }
}

#[test]
fn the_curves_have_the_figures_that_they_are_from() {
    for (name, p, ns) in [
        ("ssd-sata", 0.5, 110e3),
        ("ssd-sata", 0.999, 300e3),
        ("cloud-volume", 0.5, 1e6),
        ("cloud-volume", 0.999, 10e6),
    ] {
        let curve = Profile::load("--like", name).unwrap().curve();
        let off = curve.quantile(p) / ns - 1.0;
        assert!(off.abs() < 0.03, "{name} at {p}: {off}");
    }
    let hdd = Profile::load("--like", "hdd-7200").unwrap().curve();
    assert!(
        (hdd.mean() / (7.4e6 + 30e9 / 7200.0) - 1.0).abs() < 0.01,
        "{}",
        hdd.mean()
    );
    for name in builtin::names() {
        println!(
            "{name}: {:?}",
            Profile::load("--like", name).unwrap().curve().percentiles()
        );
    }
}
