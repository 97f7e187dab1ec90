//! What has to be added to a fast distribution so that it becomes a slow one.
//!
//! A delay is drawn without a look at how long its request will take by itself, so the sum of the two is that of
//! independent times. The difference of the quantiles, `slow(p) - fast(p)`, would be right only if the slowest
//! requests also drew the longest delays; added independently it makes the sum too wide, as two spreads add up.
//!
//! So the difference is only where the search begins. At first each quantile of the delay is moved by what the sum lacks
//! at that quantile, again and again: exact within a few rounds where the slow distribution is slower everywhere. It
//! goes astray where the sum's quantiles are not the delay's doing, as with a fast disk that now and then takes longer
//! than the slow one; then [`Deconvolution`] goes on. The best table that was seen is taken. There may be no good one:
//! who is slow but steady cannot be imitated by who is fast but not. How far the sum will be off is told.

use agent_common::quantiles::{KNOTS, probability};

use super::{deconvolve::Deconvolution, distance::Distance};
use crate::{
    failure::{Failure, USAGE},
    rules::{curve::Curve, independent::Slices, profile::Profile},
    units::format_ns,
};

/// Rounds of moving the quantiles at most, and turns of deconvolution with so many rounds each.
const MOVES: usize = 12;
const TURNS: usize = 3;
const ROUNDS: usize = 20;
/// Off by less, at p50, p90 and p99, is near enough; at p99.9, and by Kolmogorov.
const NEAR: f64 = 0.003;
const NEAR_TAIL: f64 = 0.01;
const NEAR_ALL: f64 = 0.005;
/// What p99.9 weighs, where the best is chosen: it may be the fast disk's own.
const TAIL_WEIGHT: f64 = 0.1;
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
    let mut search = Search {
        requests: Slices::of(fast, 1),
        slow,
        best: None,
    };
    let longer = |p: f64| slow.quantile(p) - fast.quantile(p);
    let difference = (0..KNOTS).map(|knot| longer(probability(knot)));
    let mut delay = ascending(difference.collect(), cap_ns);
    for _ in 0..MOVES {
        let (sum, near) = search.judge(delay.iter().map(|ns| ns.round() as u64).collect());
        if near {
            return search.best();
        }
        let lacks = |p: f64| slow.quantile(p) - sum.quantile(p);
        let moved = (0..KNOTS).map(|knot| delay[knot] + lacks(probability(knot)));
        delay = ascending(moved.collect(), cap_ns);
    }
    let first = Curve::of_table(&search.best().quantiles);
    let longest = slow.quantile(1.0).min(cap_ns as f64);
    let mut sought = Deconvolution::new(fast, slow, &first, longest);
    for _ in 0..TURNS {
        (0..ROUNDS).for_each(|_| sought.step());
        if search.judge(sought.delay().table(cap_ns)).1 {
            break;
        }
    }
    search.best()
}

/// What was seen so far.
struct Search<'a> {
    requests: Slices,
    slow: &'a Curve,
    /// With how bad it is.
    best: Option<(f64, Fit)>,
}

impl Search<'_> {
    /// The sum that a table gives, and whether it is near enough.
    fn judge(&mut self, quantiles: Vec<u64>) -> (Curve, bool) {
        let delay = Slices::of(&Curve::of_table(&quantiles), 1);
        let sum = self.requests.sum(&delay);
        let predicted = Distance::of(&sum, self.slow);
        let off = [predicted.p50, predicted.p90, predicted.p99].map(f64::abs);
        let tail = (sum.quantile(0.999) / self.slow.quantile(0.999).max(1.0) - 1.0).abs();
        let near = off.iter().all(|off| *off < NEAR)
            && tail < NEAR_TAIL
            && predicted.kolmogorov < NEAR_ALL;
        let bad = off.iter().sum::<f64>() + predicted.kolmogorov + TAIL_WEIGHT * tail.min(1.0);
        if self.best.as_ref().is_none_or(|(least, _)| bad < *least) {
            self.best = Some((
                bad,
                Fit {
                    quantiles,
                    predicted,
                },
            ));
        }
        (sum, near)
    }

    /// The best so far.
    fn best(&self) -> Fit {
        // Nobody asks before a table was judged.
        let best = self.best.as_ref().expect("a table was judged");
        best.1.clone()
    }
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
