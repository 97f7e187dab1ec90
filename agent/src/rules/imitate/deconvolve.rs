//! A delay that takes one distribution to another, if the two are drawn independently of each other.
//!
//! What is sought is a deconvolution. Dividing Fourier transforms magnifies the noise of recordings and gives weights
//! below 0. The method of Richardson (Journal of the Optical Society of America 62, 1972) and Lucy (Astronomical
//! Journal 79, 1974) does not: it begins with any weights of the delays and multiplies each, round by round, by how much
//! more of the slow distribution lies where that delay takes the fast one than there is so far. Weights stay above 0,
//! and the sum comes nearer each round, as this is an expectation maximisation. A tail that the fast one
//! has by itself cannot be taken away; it is left as it is and does not spoil the rest.

use crate::rules::curve::Curve;

/// Bins of the grid in each power of two, 2.2 % wide.
const BINS: u32 = 32;
/// Below, the grid has one bin (ns).
const LEAST: f64 = 1024.0;
/// Delays that stand for a bin, so that it is smooth.
const POINTS: u32 = 3;
/// Bins of the grid at most: up to 2^40 ns.
const GRID: u32 = 30 * BINS;
/// Given to each bin at first, as one without weight would never get any.
const TRACE: f64 = 1e-9;

pub struct Deconvolution {
    /// Of the bins, in ns; one more than there are bins.
    edges: Vec<f64>,
    /// For each bin of delays: the first bin that it takes the fast distribution to, and the shares of that one and
    /// those that follow.
    reach: Vec<(usize, Vec<f64>)>,
    /// The slow distribution's shares of the bins.
    wanted: Vec<f64>,
    /// The delay's.
    weights: Vec<f64>,
}

impl Deconvolution {
    /// Of delays up to `longest` (ns), beginning with `first`.
    pub fn new(fast: &Curve, slow: &Curve, first: &Curve, longest: f64) -> Self {
        let mut edges = vec![0.0];
        edges.extend(
            (0..GRID)
                .map(|bin| LEAST * (f64::from(bin) / f64::from(BINS)).exp2())
                .take_while(|edge| *edge < longest),
        );
        edges.push(longest.max(1.0));
        let shares = |curve: &Curve| -> Vec<f64> {
            let of = |pair: &[f64]| curve.share(pair[1]) - curve.share(pair[0]);
            edges.windows(2).map(of).collect()
        };
        let reach = edges
            .windows(2)
            .map(|bin| reach(fast, &edges, bin[0], bin[1]))
            .collect();
        let weights = shares(first).iter().map(|share| share + TRACE).collect();
        Self {
            wanted: shares(slow),
            reach,
            weights,
            edges,
        }
    }

    /// One round.
    pub fn step(&mut self) {
        let mut sum = vec![0.0; self.wanted.len()];
        for ((start, shares), weight) in self.reach.iter().zip(&self.weights) {
            for (sum, share) in sum[*start..].iter_mut().zip(shares) {
                *sum += weight * share;
            }
        }
        let ratio = |(wanted, sum): (&f64, &f64)| if *sum > 0.0 { wanted / sum } else { 0.0 };
        let lacks: Vec<f64> = self.wanted.iter().zip(&sum).map(ratio).collect();
        for ((start, shares), weight) in self.reach.iter().zip(&mut self.weights) {
            // What lies beyond the grid is beyond the slow one, and so not wanted.
            *weight *= lacks[*start..]
                .iter()
                .zip(shares)
                .map(|(lack, share)| lack * share)
                .sum::<f64>();
        }
        let total: f64 = self.weights.iter().sum();
        if total > 0.0 {
            self.weights.iter_mut().for_each(|weight| *weight /= total);
        }
    }

    /// The delay as it is now.
    pub fn delay(&self) -> Curve {
        let bins = self.edges.windows(2).zip(&self.weights);
        let whole = |(edges, weight): (&[f64], &f64)| {
            let [low, high] = [edges[0], edges[1]].map(|edge| edge.round() as u64);
            (low, high, (weight * 2_f64.powi(50)) as u64)
        };
        Curve::of_buckets(&bins.map(whole).collect::<Vec<_>>())
    }
}

/// Where delays from `low` to `high` take the fast distribution.
fn reach(fast: &Curve, edges: &[f64], low: f64, high: f64) -> (usize, Vec<f64>) {
    let start = edges.partition_point(|edge| *edge <= low).saturating_sub(1);
    let width = (high - low) / f64::from(POINTS);
    let below = |edge: f64| -> f64 {
        let points = (0..POINTS).map(|point| low + width * (f64::from(point) + 0.5));
        points.map(|delay| fast.share(edge - delay)).sum::<f64>() / f64::from(POINTS)
    };
    let mut last = below(edges[start]);
    let mut shares = Vec::new();
    for edge in &edges[start + 1..] {
        let share = below(*edge);
        shares.push(share - last);
        last = share;
        if last >= 1.0 {
            break;
        }
    }
    (start, shares)
}
