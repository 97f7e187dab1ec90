//! Draws as the kernel side makes them, against the distribution functions of `statrs`.

use agent_common::{
    pod::MAX_DELAY_NS,
    quantiles::{between, place, random},
};
use statrs::distribution::Uniform;

use super::*;
use crate::rules::curve::kolmogorov;

const DRAWS: u64 = 100_000;
const MS: u64 = 1_000_000;

/// Sorted.
pub(in crate::rules) fn draws(quantiles: &[u64], seed: u64) -> Vec<u64> {
    let mut draws: Vec<u64> = (0..DRAWS)
        .map(|ticket| {
            let (knot, fraction) = place(random(seed, ticket));
            let knot = knot as usize;
            between(quantiles[knot], quantiles[knot + 1], fraction)
        })
        .collect();
    draws.sort_unstable();
    draws
}

fn distribution(shape: Shape, delay_ns: u64, jitter_ns: u64) -> Distribution {
    Distribution {
        shape,
        delay_ns,
        jitter_ns,
        cap_ns: MAX_DELAY_NS,
    }
}

fn assert_drawn(asked: &Distribution, truth: &impl ContinuousCDF<f64, f64>) {
    let table = asked.quantiles().unwrap();
    assert!(table.is_sorted() && table.len() == KNOTS, "{asked}");
    let draws = draws(&table, 42);
    let share = |ns: f64| if ns < 0.0 { 0.0 } else { truth.cdf(ns) };
    let distance = kolmogorov(&draws, share);
    let tail = draws[DRAWS as usize * 999 / 1000] as f64 / truth.inverse_cdf(0.999) - 1.0;
    let mean = draws.iter().sum::<u64>() as f64 / DRAWS as f64 / asked.delay_ns as f64 - 1.0;
    println!("{asked}: Kolmogorov {distance:.5}, p99.9 {tail:+.4}, mean {mean:+.4}");
    assert!(distance <= 0.01, "{asked}: {distance}");
    assert!(tail.abs() <= 0.05, "{asked}: p99.9 is off by {tail}");
    assert!(mean.abs() <= 0.02, "{asked}: the mean is off by {mean}");
    let told = percentiles(&table);
    let exact = truth.inverse_cdf(0.99);
    assert!(
        (told.p99 as f64 / exact - 1.0).abs() < 0.01,
        "{asked}: {told:?}"
    );
}

#[test]
fn normal_draws_are_normal() {
    for jitter in [MS / 100, MS, 5 * MS / 2] {
        let truth = Normal::new(5e6, jitter as f64).unwrap();
        assert_drawn(&distribution(Shape::Normal, 5 * MS, jitter), &truth);
    }
}

#[test]
fn uniform_draws_are_uniform() {
    for jitter in [MS, 5 * MS] {
        let (mean, half) = (5e6, jitter as f64);
        let truth = Uniform::new(mean - half, mean + half).unwrap();
        assert_drawn(&distribution(Shape::Uniform, 5 * MS, jitter), &truth);
    }
}

/// The parameters are worked out by hand, not by the functions above.
#[test]
fn lognormal_draws_are_lognormal() {
    // Mean e^(1/2) and deviation sqrt((e - 1) * e), in units of 1 ms: the logarithm's are 0 and 1.
    let e = std::f64::consts::E;
    let (mean, deviation) = (e.sqrt() * 1e6, ((e - 1.0) * e).sqrt() * 1e6);
    let truth = LogNormal::new(1e6_f64.ln(), 1.0).unwrap();
    assert_drawn(
        &distribution(Shape::Lognormal, mean as u64, deviation as u64),
        &truth,
    );
}

#[test]
fn pareto_draws_are_pareto() {
    // Shape 3 and scale 2 ms: mean 3 ms, variance 3 * 2^2 / (2^2 * 1) = 3 ms^2.
    let truth = Pareto::new(2e6, 3.0).unwrap();
    let jitter = (3.0_f64.sqrt() * 1e6).round() as u64;
    assert_drawn(&distribution(Shape::Pareto, 3 * MS, jitter), &truth);
    // Shape 2.25: 1 / (2.25 * 0.25) = 16 / 9, so the jitter is 4/3 of the mean.
    let truth = Pareto::new(3e6 * 1.25 / 2.25, 2.25).unwrap();
    assert_drawn(&distribution(Shape::Pareto, 3 * MS, 4 * MS), &truth);
}

#[test]
fn no_draw_is_above_the_cap_or_infinite() {
    for shape in [Shape::Normal, Shape::Pareto, Shape::Lognormal] {
        let mut asked = distribution(shape, 5 * MS, 2 * MS);
        assert!(
            asked.quantiles().unwrap()[KNOTS - 1] < MAX_DELAY_NS,
            "{asked}"
        );
        asked.cap_ns = 12 * MS;
        let table = asked.quantiles().unwrap();
        assert!(table.iter().all(|ns| *ns <= 12 * MS), "{asked}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_flag() {
    let told = |shape, delay_ns, jitter_ns| {
        let failure = distribution(shape, delay_ns, jitter_ns)
            .quantiles()
            .unwrap_err();
        assert_eq!(failure.code, USAGE);
        assert!(failure.hint.is_some(), "{failure}");
        failure.to_string()
    };
    let narrow = told(Shape::Uniform, 5 * MS, 6 * MS);
    assert!(
        narrow.starts_with("--jitter 6ms: more than the --delay of 5ms"),
        "{narrow}"
    );
    let wide = told(Shape::Normal, 5 * MS, 5 * MS);
    assert!(
        wide.starts_with("--jitter 5ms: so wide") && wide.contains("lognormal"),
        "{wide}"
    );
    assert!(told(Shape::Normal, 0, MS).starts_with("--jitter 1ms: there is no --delay"));
    assert!(told(Shape::Pareto, 5 * MS, 0).starts_with("--dist pareto: there is no --jitter"));
    let capped = told(Shape::Lognormal, 500 * MS, 900 * MS);
    assert!(capped.contains("the cap of 1s cuts its mean"), "{capped}");
    assert!(told(Shape::Lognormal, 2_000 * MS, MS).starts_with("--delay 2s: above the cap of 1s"));
}

#[test]
fn jitter_alone_means_normal_and_neither_a_fixed_delay() {
    let fixed = delay(None, 5 * MS, None, MAX_DELAY_NS);
    assert_eq!(fixed, Ok(Delay::Fixed { ns: 5 * MS }));
    let Ok(Delay::Drawn { asked, quantiles }) = delay(None, 5 * MS, Some(MS), MAX_DELAY_NS) else {
        panic!("--jitter 1ms is no distribution");
    };
    assert_eq!(asked, "normal 5ms +-1ms");
    assert_eq!(percentiles(&quantiles).p50, 5 * MS);
    let told = delay(Some(Shape::Normal), 5 * MS, None, MAX_DELAY_NS).unwrap_err();
    assert!(told.message.starts_with("--dist normal: "), "{told}");
}
