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
