//! What has to be added to a fast distribution so that it becomes a slow one.
//!
//! A delay is drawn without a look at how long its request will take by itself, so the sum of the two is that of
//! independent times. The difference of the quantiles, `slow(p) - fast(p)`, would be right only if the slowest
//! requests also drew the longest delays; added independently it makes the sum too wide, as two spreads add up. What is
//! sought is a deconvolution. Dividing Fourier transforms magnifies the noise of recordings and gives weights below 0,
//! so it is done step by step in the domain of quantiles, where a table stays one: begin with the difference, compute
//! the distribution of the sum, move each quantile of the delay by what the sum lacks there, keep the table ascending
//! and at 0 or above, and again.
//!
//! There may be no solution: who is slow but steady cannot be imitated by who is fast but not. Then the best table that
//! was seen is taken, and how far the sum is off is told.

use agent_common::quantiles::{KNOTS, probability};

use super::distance::Distance;
use crate::{
    failure::{Failure, USAGE},
    rules::{curve::Curve, independent::Slices, profile::Profile},
    units::format_ns,
};

/// Rounds at most. Most pairs need fewer than ten.
const ROUNDS: usize = 40;
/// The quantiles that are watched, and how near they have to come.
const WATCHED: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
const NEAR: f64 = 0.003;
/// As `NEAR`, of Kolmogorov's distance.
const CLOSE: f64 = 0.005;
/// Quantiles at which the slow one must not be faster. Not those beyond: a recording of some seconds knows little of
/// them.
const COMPARED: [(&str, f64); 5] = [
    ("p10", 0.1),
    ("p25", 0.25),
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
];
/// A bucket is at most so wide, as a share of its lower edge.
const BUCKET: f64 = 0.125;

/// What is added.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The table of the delay: `KNOTS` values in ns.
    pub quantiles: Vec<u64>,
    /// How far from the slow one the sum will be.
    pub predicted: Distance,
}

/// The delay that makes `from` answer like `to`; none is longer than `cap_ns`.
///
/// # Errors
/// `to` is faster by more than a bucket at one of p10 to p99, which is told.
pub fn fit(from: &Profile, to: &Profile, cap_ns: u64) -> Result<Fit, Failure> {
    let (fast, slow) = (from.curve(), to.curve());
    for (name, p) in COMPARED {
        let (is, wanted) = (fast.quantile(p), slow.quantile(p));
        if wanted < is / (1.0 + BUCKET) {
            let [is, wanted] = [is, wanted].map(|ns| format_ns(ns.round() as u64));
            return Err(Failure::new(
                USAGE,
                format!(
                    "--to {}: its {name} of {wanted} is below that of --from {}, {is}",
                    to.name, from.name
                ),
            )
            .hint(
                "a delay cannot make anything faster; are --from and --to the wrong way round?",
            ));
        }
    }
    Ok(search(&fast, &slow, cap_ns))
}

fn search(fast: &Curve, slow: &Curve, cap_ns: u64) -> Fit {
    let wanted: Vec<f64> = (0..KNOTS)
        .map(|knot| slow.quantile(probability(knot)))
        .collect();
    let requests = Slices::of(fast, 3);
    let difference = |knot: usize| wanted[knot] - fast.quantile(probability(knot));
    let mut delay = ascending((0..KNOTS).map(difference).collect(), cap_ns);
    let mut best: Option<(f64, Fit)> = None;
    for _ in 0..ROUNDS {
        let quantiles: Vec<u64> = delay.iter().map(|ns| ns.round() as u64).collect();
        let sum = requests.sum(&Slices::of(&Curve::of_table(&quantiles), 1));
        let off = WATCHED.map(|p| (sum.quantile(p) / slow.quantile(p) - 1.0).abs());
        let predicted = Distance::of(&sum, slow);
        let badness = off.iter().sum::<f64>() + predicted.kolmogorov;
        let done = off.iter().all(|off| *off < NEAR) && predicted.kolmogorov < CLOSE;
        if best.as_ref().is_none_or(|(least, _)| badness < *least) {
            best = Some((
                badness,
                Fit {
                    quantiles,
                    predicted,
                },
            ));
        }
        if done {
            break;
        }
        let moved = |knot: usize| delay[knot] + wanted[knot] - sum.quantile(probability(knot));
        delay = ascending((0..KNOTS).map(moved).collect(), cap_ns);
    }
    // There is at least one round.
    best.map(|(_, fit)| fit).expect("a round was made")
}

/// The nearest table that ascends: whatever descends is replaced by its mean (pool adjacent violators, Ayer and others,
/// Annals of Mathematical Statistics 26, 1955), each knot weighed by the probability around it. Then clipped.
fn ascending(knots: Vec<f64>, cap_ns: u64) -> Vec<f64> {
    // Mean, weight, number of knots.
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for (knot, value) in knots.into_iter().enumerate() {
        let around = probability((knot + 1).min(KNOTS - 1)) - probability(knot.saturating_sub(1));
        let mut pool = (value, around, 1);
        while let Some((mean, weight, count)) = pools.pop_if(|(mean, ..)| *mean > pool.0) {
            let both = weight + pool.1;
            pool = (
                (mean * weight + pool.0 * pool.1) / both,
                both,
                count + pool.2,
            );
        }
        pools.push(pool);
    }
    let clipped = |mean: f64| mean.clamp(0.0, cap_ns as f64);
    pools
        .into_iter()
        .flat_map(|(mean, _, count)| std::iter::repeat_n(clipped(mean), count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_descends_is_levelled_and_what_ascends_is_kept() {
        let mut knots: Vec<f64> = (0..KNOTS).map(|knot| knot as f64).collect();
        assert_eq!(ascending(knots.clone(), u64::MAX), knots);
        knots.swap(10, 11);
        knots[0] = -5.0;
        let levelled = ascending(knots.clone(), 2_000);
        assert_eq!(levelled[..2], [0.0, 1.0]);
        assert_eq!(levelled[9..13], [9.0, 10.5, 10.5, 12.0]);
        assert_eq!(levelled[KNOTS - 1], 2_000.0);
    }
}
