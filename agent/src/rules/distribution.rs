//! Delays that vary: `--delay 5ms --jitter 1ms --dist normal`, as tables of quantiles.
//!
//! `--delay` is the mean and `--jitter` the standard deviation, as statistics has these words; of a uniform
//! distribution the jitter is half its width, as `5ms +-1ms` is read. netem means the same by normal and uniform; its
//! pareto always has the shape 3, and deviates by 1.15 times the jitter (iproute2, `netem/pareto.c`: the table is scaled
//! by 4/3, the deviation of that shape is `sqrt(3/4)`). It has no lognormal.
//!
//! The formulas are those of N. L. Johnson, S. Kotz, N. Balakrishnan: Continuous Univariate Distributions, volume 1
//! (1994): chapter 13 for normal, 14 for lognormal, 20 for Pareto's first kind.

use std::fmt;

use agent_common::quantiles::{KNOTS, probability};
use clap::ValueEnum;
use statrs::distribution::{Continuous as _, ContinuousCDF, LogNormal, Normal, Pareto};

use super::{
    curve::Curve,
    spec::{Delay, Percentiles},
};
use crate::{
    failure::{FAILED, Failure, USAGE},
    units::format_ns,
};

#[cfg(test)]
pub(super) mod tests;

/// How far clipping at 0 may move the mean of a normal distribution.
const CLIPPED: f64 = 0.01;
/// How far the cap may move a mean.
const CAPPED: f64 = 0.05;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Symmetric; clipped at 0.
    Normal,
    /// Mostly just below the delay, with the longest tail: what waits for others.
    Pareto,
    /// Never below 0, with a tail: what most devices look like.
    Lognormal,
    /// Anything from delay - jitter to delay + jitter, alike.
    Uniform,
}

impl Shape {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pareto => "pareto",
            Self::Lognormal => "lognormal",
            Self::Uniform => "uniform",
        }
    }
}

/// A distribution of delays. All times in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distribution {
    pub shape: Shape,
    /// The mean.
    pub delay_ns: u64,
    /// The standard deviation; of [`Shape::Uniform`] half the width.
    pub jitter_ns: u64,
    /// No draw is longer.
    pub cap_ns: u64,
}

/// `normal 5ms +-1ms`.
impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (delay, jitter) = (format_ns(self.delay_ns), format_ns(self.jitter_ns));
        write!(f, "{} {delay} +-{jitter}", self.shape.name())
    }
}

/// What `--delay`, `--jitter` and `--dist` ask for together: `--jitter` alone means normal, neither of them a delay
/// that does not vary.
///
/// # Errors
/// They contradict each other, or there is no such distribution.
pub fn delay(
    shape: Option<Shape>,
    delay_ns: u64,
    jitter_ns: Option<u64>,
    cap_ns: u64,
) -> Result<Delay, Failure> {
    let (shape, jitter_ns) = match (shape, jitter_ns) {
        (None, None) => return Ok(Delay::Fixed { ns: delay_ns }),
        (shape, jitter_ns) => (shape.unwrap_or(Shape::Normal), jitter_ns.unwrap_or(0)),
    };
    let distribution = Distribution {
        shape,
        delay_ns,
        jitter_ns,
        cap_ns,
    };
    Ok(Delay::Drawn {
        asked: distribution.to_string(),
        quantiles: distribution.quantiles()?,
    })
}

/// What a table gives: mean and percentiles of its draws, in ns.
#[must_use]
pub fn percentiles(quantiles: &[u64]) -> Percentiles {
    Curve::of_table(quantiles).percentiles()
}

impl Distribution {
    /// The table from which it is drawn: `KNOTS` values in ns, ascending, from 0 to the cap.
    ///
    /// # Errors
    /// There is no such distribution, or 0 and the cap leave little of it.
    pub fn quantiles(&self) -> Result<Vec<u64>, Failure> {
        self.check()?;
        let (mean, deviation) = (self.delay_ns as f64, self.jitter_ns as f64);
        let table = match self.shape {
            Shape::Uniform => self.table(|p| mean + deviation * (2.0 * p - 1.0)),
            Shape::Normal => self.table_of(Normal::new(mean, deviation)),
            Shape::Lognormal => self.table_of(lognormal(mean, deviation)),
            Shape::Pareto => self.table_of(pareto(mean, deviation)),
        }?;
        let moved = Curve::of_table(&table).mean();
        if moved < mean * (1.0 - CAPPED) {
            return Err(self
                .refuse(&format!(
                    "{} is so wide that the cap of {} cuts its mean to {}",
                    self,
                    format_ns(self.cap_ns),
                    format_ns(moved as u64)
                ))
                .hint("ask for a smaller --jitter, or raise the cap"));
        }
        Ok(table)
    }

    fn table_of<T, E: fmt::Display>(&self, distribution: Result<T, E>) -> Result<Vec<u64>, Failure>
    where
        T: ContinuousCDF<f64, f64>,
    {
        let distribution = distribution
            .map_err(|error| Failure::new(FAILED, format!("failed to compute {self}: {error}")))?;
        self.table(|p| distribution.inverse_cdf(p))
    }

    fn table(&self, quantile: impl Fn(f64) -> f64) -> Result<Vec<u64>, Failure> {
        let last = KNOTS - 1;
        let mut knots: Vec<f64> = (0..last).map(|knot| quantile(probability(knot))).collect();
        // The highest quantile may be infinite. So that draws from the last cell have the right median, its upper end
        // is as far above that as its lower end is below.
        let low = probability(last - 1);
        knots.push(2.0 * quantile(low.midpoint(1.0)) - quantile(low));
        let clipped = |value: f64| value.clamp(0.0, self.cap_ns as f64).round() as u64;
        Ok(knots.into_iter().map(clipped).collect())
    }

    fn check(&self) -> Result<(), Failure> {
        let delay = format_ns(self.delay_ns);
        if self.jitter_ns == 0 {
            let dist = self.shape.name();
            return Err(Failure::new(
                USAGE,
                format!("--dist {dist}: there is no --jitter to spread it by"),
            )
            .hint("add --jitter 1ms, or leave --dist away for a delay that does not vary"));
        }
        if self.delay_ns == 0 {
            return Err(self
                .refuse("there is no --delay to jitter")
                .hint("add the mean: --delay 5ms"));
        }
        if self.delay_ns > self.cap_ns {
            let cap = format_ns(self.cap_ns);
            return Err(
                Failure::new(USAGE, format!("--delay {delay}: above the cap of {cap}"))
                    .hint("ask for less, or raise the cap"),
            );
        }
        if self.shape == Shape::Uniform && self.jitter_ns > self.delay_ns {
            return Err(self
                .refuse(&format!(
                    "more than the --delay of {delay}, so delays would be below 0"
                ))
                .hint(format!("at most --jitter {delay}, or --dist lognormal")));
        }
        if self.shape == Shape::Normal && self.clipping() > CLIPPED {
            return Err(self
                .refuse(&format!(
                    "so wide that clipping at 0 would raise the mean of {delay} by {:.1} %",
                    self.clipping() * 100.0
                ))
                .hint(
                    "--dist lognormal has no values below 0; or ask for at most half the --delay",
                ));
        }
        Ok(())
    }

    /// By which share clipping at 0 raises the mean of a normal distribution: that of `max(X, 0)` is
    /// `mean * cdf(0..) + deviation^2 * density(0)`.
    fn clipping(&self) -> f64 {
        let (mean, deviation) = (self.delay_ns as f64, self.jitter_ns as f64);
        Normal::new(mean, deviation).map_or(0.0, |normal| {
            normal.sf(0.0) + deviation * deviation * normal.pdf(0.0) / mean - 1.0
        })
    }

    fn refuse(&self, why: &str) -> Failure {
        let jitter = format_ns(self.jitter_ns);
        Failure::new(USAGE, format!("--jitter {jitter}: {why}"))
    }
}

/// The one with this mean and standard deviation: `variance of the logarithm = ln(1 + deviation^2 / mean^2)`, `mean of
/// the logarithm = ln(mean) - variance / 2`.
fn lognormal(mean: f64, deviation: f64) -> Result<LogNormal, impl fmt::Display> {
    let variance = (deviation / mean).powi(2).ln_1p();
    LogNormal::new(mean.ln() - variance / 2.0, variance.sqrt())
}

/// The one with this mean and standard deviation, of Pareto's first kind. `mean = shape * scale / (shape - 1)` and
/// `deviation^2 / mean^2 = 1 / (shape * (shape - 2))` give a shape above 2, so the variance is always finite.
fn pareto(mean: f64, deviation: f64) -> Result<Pareto, impl fmt::Display> {
    let shape = 1.0 + (1.0 + (mean / deviation).powi(2)).sqrt();
    Pareto::new(mean * (shape - 1.0) / shape, shape)
}
