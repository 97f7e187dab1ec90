//! A distribution of times as a line: what tables of quantiles and histograms have in common.

use agent_common::quantiles::{KNOTS, probability};

use super::spec::Percentiles;

/// A distribution function made of straight pieces. Values in ns.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Value, and the share of all that is at most so much; both ascend, the share from 0 to 1. Two shares at one
    /// value are a jump: so many are exactly there.
    knots: Vec<(f64, f64)>,
}

impl Curve {
    /// As the kernel side draws from it: straight between two knots of the table, which are `KNOTS` values in ns.
    #[must_use]
    pub fn of_table(quantiles: &[u64]) -> Self {
        let knots = quantiles.iter().enumerate();
        Self {
            knots: knots
                .map(|(knot, value)| (*value as f64, probability(knot)))
                .collect(),
        }
    }

    /// Of a histogram: `(lower edge, upper edge, weight)`, ascending, of which one at least has a weight. What a
    /// bucket holds is taken to be spread evenly over it.
    #[must_use]
    pub fn of_buckets(buckets: &[(u64, u64, u64)]) -> Self {
        let total: f64 = buckets.iter().map(|(.., weight)| *weight as f64).sum();
        let mut below = 0.0;
        let mut knots = Vec::with_capacity(2 * buckets.len());
        for (lower, upper, weight) in buckets.iter().filter(|(.., weight)| *weight > 0) {
            knots.push((*lower as f64, below / total));
            below += *weight as f64;
            knots.push((*upper as f64, below / total));
        }
        Self { knots }
    }

    /// The value below which the share `p` lies (ns).
    #[must_use]
    pub fn quantile(&self, p: f64) -> f64 {
        let above = self.knots.partition_point(|(_, share)| *share < p);
        match (above.checked_sub(1), self.knots.get(above)) {
            (None, Some((value, _))) => *value,
            (Some(below), Some((high, to))) => {
                let (low, from) = self.knots[below];
                low + (high - low) * (p - from) / (to - from)
            }
            (below, None) => below.map_or(0.0, |last| self.knots[last].0),
        }
    }

    /// The share of what is at most `value` (ns).
    #[must_use]
    pub fn share(&self, value: f64) -> f64 {
        self.at(value, |knot| knot <= value)
    }

    /// The share of what is less than `value` (ns).
    #[must_use]
    pub fn share_below(&self, value: f64) -> f64 {
        self.at(value, |knot| knot < value)
    }

    fn at(&self, value: f64, before: impl Fn(f64) -> bool) -> f64 {
        let next = self.knots.partition_point(|(knot, _)| before(*knot));
        match (next.checked_sub(1), self.knots.get(next)) {
            (None, _) => 0.0,
            (_, None) => 1.0,
            (Some(last), Some((high, to))) => {
                let (low, from) = self.knots[last];
                from + (to - from) * (value - low) / (high - low)
            }
        }
    }

    /// In ns.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let pieces = self.knots.windows(2);
        pieces
            .map(|pair| (pair[1].1 - pair[0].1) * (pair[0].0 + pair[1].0) / 2.0)
            .sum()
    }

    /// Its quantiles as the kernel side takes them: `KNOTS` values in ns, none above `cap_ns`.
    #[must_use]
    pub fn table(&self, cap_ns: u64) -> Vec<u64> {
        (0..KNOTS)
            .map(|knot| (self.quantile(probability(knot)).round() as u64).min(cap_ns))
            .collect()
    }

    /// Kolmogorov's distance, 0 to 1: the largest difference of the two shares at any value.
    #[must_use]
    pub fn kolmogorov(&self, other: &Self) -> f64 {
        // Between two knots the difference is a straight line, so it is largest at one of them.
        let values = self
            .knots
            .iter()
            .chain(&other.knots)
            .map(|(value, _)| *value);
        values
            .map(|value| {
                let at = (self.share(value) - other.share(value)).abs();
                at.max((self.share_below(value) - other.share_below(value)).abs())
            })
            .fold(0.0, f64::max)
    }

    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        let of = |p| self.quantile(p).round() as u64;
        Percentiles {
            mean: self.mean().round() as u64,
            p50: of(0.5),
            p99: of(0.99),
            p999: of(0.999),
        }
    }
}

/// Kolmogorov's distance, 0 to 1, of a sample from a distribution function. The sample is sorted and of whole ns; the
/// function tells the share of what is at most so many ns.
#[must_use]
pub fn kolmogorov(sample: &[u64], share: impl Fn(f64) -> f64) -> f64 {
    let total = sample.len() as f64;
    let mut seen = 0;
    let mut largest: f64 = 0.0;
    for same in sample.chunk_by(|a, b| a == b) {
        let value = same[0] as f64;
        let before = seen as f64 / total;
        seen += same.len();
        let after = seen as f64 / total;
        largest = largest
            .max((share(value - 1.0) - before).abs())
            .max((share(value) - after).abs());
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_spread_evenly_over_its_buckets() {
        let curve = Curve::of_buckets(&[(0, 100, 1), (100, 200, 0), (200, 300, 3)]);
        for (p, value) in [
            (0.0, 0.0),
            (0.125, 50.0),
            (0.25, 100.0),
            (0.5, 233.3),
            (1.0, 300.0),
        ] {
            assert!((curve.quantile(p) - value).abs() < 0.1, "{p}");
        }
        for (value, share) in [
            (-1.0, 0.0),
            (50.0, 0.125),
            (150.0, 0.25),
            (250.0, 0.625),
            (301.0, 1.0),
        ] {
            assert_eq!(curve.share(value), share, "{value}");
        }
        assert_eq!(curve.mean(), 0.25 * 50.0 + 0.75 * 250.0);
    }

    #[test]
    fn a_jump_is_all_at_one_value() {
        let curve = Curve::of_table(&[7_000; KNOTS]);
        assert_eq!(
            (curve.share_below(7_000.0), curve.share(7_000.0)),
            (0.0, 1.0)
        );
        assert_eq!(curve.quantile(0.5), 7_000.0);
        assert_eq!(curve.percentiles().mean, 7_000);
    }

    #[test]
    fn a_table_of_a_curve_is_that_curve() {
        let curve = Curve::of_buckets(&[(0, 1_000_000, 1)]);
        assert!(curve.kolmogorov(&Curve::of_table(&curve.table(u64::MAX))) < 1e-5);
        let cut = Curve::of_table(&curve.table(900_000));
        assert!((curve.kolmogorov(&cut) - 0.1).abs() < 1e-3);
    }

    #[test]
    fn the_distance_of_what_does_not_touch_is_1() {
        let (low, high) = (
            Curve::of_buckets(&[(0, 10, 1)]),
            Curve::of_buckets(&[(10, 20, 1)]),
        );
        assert_eq!(low.kolmogorov(&high), 1.0);
        assert_eq!(low.kolmogorov(&low), 0.0);
    }

    #[test]
    fn a_sample_is_as_far_as_its_largest_step() {
        let uniform = |value: f64| (value / 100.0).clamp(0.0, 1.0);
        let sample: Vec<u64> = (1..=100).collect();
        assert!(kolmogorov(&sample, uniform) < 1e-9);
        assert!((kolmogorov(&[50; 100], uniform) - 0.5).abs() < 1e-9);
    }
}
