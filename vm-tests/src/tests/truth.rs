//! The measuring probes against truths that iolag did not write, on a stock kernel. The checks themselves are
//! in `iolag_tests::truth`.

use std::path::Path;

use anyhow::Result;
use iolag_tests::truth::{Place, block};

use crate::guest;

fn check(run: fn(&Place<'_>) -> Result<()>) -> Result<()> {
    run(&Place {
        program: Path::new("/iolag"),
        fio: guest::fio,
        dir: "/mnt".into(),
        emulated: true,
    })
}

pub fn block_counts() -> Result<()> {
    check(block::counts_lie_between_two_readings_of_diskstats)
}

pub fn block_oracle() -> Result<()> {
    check(block::injected_delays_show_in_queue_and_total_only)
}

pub fn block_anchor_3() -> Result<()> {
    check(block::anchor_3_queue_device_and_total_are_always_there)
}

pub fn block_books() -> Result<()> {
    check(block::books_balance_when_tasks_die_and_series_run_out)
}
