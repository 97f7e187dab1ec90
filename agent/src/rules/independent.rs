//! The sum of two times that know nothing of each other: a request's own and the delay that was drawn for it.
//!
//! It is computed, not drawn, so that it is the same each time: both distributions are cut into slices, each slice of
//! one meets each slice of the other, and the sums go into a histogram that is 16 times as fine as those of the probes.

use agent_common::quantiles::{BODY, KNOTS, probability};

use super::curve::Curve;

/// log2 of the histogram's buckets in each power of two.
const SUB_BITS: u32 = 7;
/// Slices of the tail, the last 1024th.
const TAIL: usize = 128;

/// What takes longer is taken to last so long (ns, 18 min); no delay does, and a profile may say anything.
const LONGEST: u64 = 1 << 40;

/// Values that stand for slices of a distribution: value (ns) and weight, of 2^20.
pub struct Slices(Vec<(u64, u64)>);

impl Slices {
    /// Of the body, `together` cells of the table (a divisor of 1023) make a slice.
    #[must_use]
    pub fn of(curve: &Curve, together: usize) -> Self {
        let body = (0..BODY).step_by(together).map(|knot| (knot, together));
        let wide = (KNOTS - 1 - BODY) / TAIL;
        let tail = (BODY..KNOTS - 1).step_by(wide).map(|knot| (knot, wide));
        let slice = |(knot, cells): (usize, usize)| {
            let (from, to) = (probability(knot), probability(knot + cells));
            let weight = ((to - from) * f64::from(1 << 20)).round() as u64;
            let value = curve.quantile(from.midpoint(to)).round() as u64;
            (value.min(LONGEST), weight)
        };
        Self(body.chain(tail).map(slice).collect())
    }

    /// The distribution of the sum of one of each.
    #[must_use]
    pub fn sum(&self, other: &Self) -> Curve {
        let mut counts: Vec<u64> = Vec::new();
        for (value, weight) in &self.0 {
            for (more, share) in &other.0 {
                let bucket = index(value + more);
                if bucket >= counts.len() {
                    counts.resize(bucket + 1, 0);
                }
                // All weights are 2^40 together.
                counts[bucket] += weight * share;
            }
        }
        let buckets: Vec<(u64, u64, u64)> = (0..)
            .zip(counts)
            .filter(|(_, count)| *count > 0)
            .map(|(bucket, count)| (lower(bucket), lower(bucket + 1), count))
            .collect();
        Curve::of_buckets(&buckets)
    }
}

/// As `agent_common::bucket`, with more buckets.
fn index(value: u64) -> usize {
    let exponent = value.max(1).ilog2().max(SUB_BITS);
    let (row, sub) = (exponent - SUB_BITS, value >> (exponent - SUB_BITS));
    ((row as usize) << SUB_BITS) + sub as usize
}

fn lower(index: usize) -> u64 {
    let row = (index >> SUB_BITS).saturating_sub(1);
    ((index - (row << SUB_BITS)) as u64) << row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        for bucket in 0..4_000 {
            assert_eq!(index(lower(bucket)), bucket);
            assert_eq!(index(lower(bucket + 1) - 1), bucket);
        }
    }

    #[test]
    fn slices_weigh_all_and_two_uniforms_make_a_triangle() {
        let uniform = Curve::of_buckets(&[(0, 1_000_000, 1)]);
        for together in [1, 3] {
            let slices = Slices::of(&uniform, together);
            assert_eq!(
                slices.0.iter().map(|(_, weight)| weight).sum::<u64>(),
                1 << 20
            );
            let sum = slices.sum(&slices);
            for (p, value) in [(0.125, 0.5e6), (0.5, 1e6), (0.875, 1.5e6), (0.995, 1.9e6)] {
                assert!(
                    (sum.quantile(p) / value - 1.0).abs() < 0.002,
                    "{p}: {}",
                    sum.quantile(p)
                );
            }
        }
    }
}
