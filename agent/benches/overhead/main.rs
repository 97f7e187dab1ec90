//! What iolag costs: an attached point (without an argument), rules at it that match nothing (`rules`), or its measuring probes (`cost`).
//!
//! Prints Markdown; `cargo xtask bench` puts it into docs/overhead.md. Needs root.

mod agent;
mod contest;
mod cost;
mod load;
mod peer;
mod points;
mod rules;
mod side;

use anyhow::Result;
use iolag::kernel::measure_programs;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        // cargo bench adds an option of its own.
        .filter(|argument| argument != "--bench")
        .collect();
    let _statistics = measure_programs()?;
    match arguments.split_first() {
        Some((first, rest)) if first == "cost" => cost::run(rest),
        Some((first, rest)) if first == "rules" => rules::run(rest),
        _ => points::run(&arguments),
    }
}

/// The middle one, by `key`.
fn median<T: Copy>(mut values: Vec<T>, key: impl Fn(&T) -> f64) -> T {
    values.sort_by(|a, b| key(a).total_cmp(&key(b)));
    values[values.len() / 2]
}
