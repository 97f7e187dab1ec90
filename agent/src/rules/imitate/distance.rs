//! How far one distribution is from another.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::rules::{curve::Curve, profile::Profile};

/// Of what is from what was wanted. Shares: 0.01 is 1 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distance {
    /// Kolmogorov's: the largest difference of the shares of requests that are done within the same time, 0 to 1.
    pub kolmogorov: f64,
    /// `is / wanted - 1` at the median.
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

impl Distance {
    #[must_use]
    pub fn of(is: &Curve, wanted: &Curve) -> Self {
        let off = |p| is.quantile(p) / wanted.quantile(p).max(1.0) - 1.0;
        Self {
            kolmogorov: is.kolmogorov(wanted),
            p50: off(0.5),
            p90: off(0.9),
            p99: off(0.99),
        }
    }
}

/// `Kolmogorov 0.004; p50 +0.1 %, p90 -0.2 %, p99 +1.0 %`.
impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99] = [self.p50, self.p90, self.p99].map(|off| off * 100.0);
        write!(
            f,
            "Kolmogorov {:.3}; p50 {p50:+.1} %, p90 {p90:+.1} %, p99 {p99:+.1} %",
            self.kolmogorov
        )
    }
}

/// How far what was recorded `is` from what was `wanted`.
#[must_use]
pub fn distance(is: &Profile, wanted: &Profile) -> Distance {
    Distance::of(&is.curve(), &wanted.curve())
}
