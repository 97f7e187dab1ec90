//! `imitate`: a fast disk answers like a slow one, by what is added to each of its requests.
//!
//! Both profiles hold for a disk that has nothing else to do, one request at a time. With more of them waits on one CPU
//! queue up behind each other, and the fast disk is slower than the slow one would be.

use std::{ffi::OsString, time::Duration};

use agent_common::{pod::MAX_DELAY_NS, probes::block};

pub use self::{
    distance::{Distance, distance},
    fit::{Fit, fit},
};
use super::{
    profile::Profile,
    spec::{Delay, Filters, Spec},
};
use crate::{
    failure::Failure,
    hist::parse_time,
    measure::{find_probe, unknown},
};

mod deconvolve;
mod distance;
mod fit;
#[cfg(test)]
mod tests;

/// Where a request is delayed.
const POINT: &str = "block.issue";
/// An imitation that is further off than this at p50, p90 or p99 is warned of.
const FAR: f64 = 0.05;

#[derive(clap::Args)]
pub struct Args {
    /// Profile of the disk as it is: a file of `iolag record`, or the name of one that is built in
    #[arg(long, value_name = "PROFILE")]
    from: String,
    /// Profile that it shall have: a file, or hdd-7200, ssd-sata, cloud-volume, nfs-lan
    #[arg(long, value_name = "PROFILE")]
    to: String,
    /// The disk: vda, /dev/vda, 8:0
    #[arg(long)]
    device: String,
    /// Only these operations: read,write
    #[arg(long, value_name = "OPS", value_delimiter = ',')]
    op: Vec<String>,
    /// Name of the rule
    #[arg(long, default_value = "imitate")]
    name: String,
    /// Ends after so long: 30s
    #[arg(long = "for", value_name = "TIME")]
    time: Option<String>,
    /// Run this, slow down the requests of it and of what it forks only, and end with it
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// What the flags name.
pub struct Asked {
    from: Profile,
    to: Profile,
    time: Option<Duration>,
}

/// The profiles, which can be delays, and for how long.
///
/// # Errors
/// A profile is refused; an unknown operation; no time.
pub fn read(args: &Args) -> Result<Asked, Failure> {
    let known = find_probe(block::NAME)?.ops;
    if let Some(op) = args.op.iter().find(|op| !known.contains(&op.as_str())) {
        return Err(unknown("op", op, known));
    }
    let time = args.time.as_deref();
    let time = time.map(|text| parse_time("--for", text)).transpose()?;
    let from = Profile::load("--from", &args.from)?;
    let to = Profile::load("--to", &args.to)?;
    from.check("--from", MAX_DELAY_NS)?;
    to.check("--to", MAX_DELAY_NS)?;
    Ok(Asked { from, to, time })
}

/// The rule that is asked for, and how near it will come.
///
/// # Errors
/// The disk that is wanted is faster than the one that is there.
fn spec(args: &Args, asked: &Asked) -> Result<(Spec, Fit), Failure> {
    let Asked { from, to, time } = asked;
    let fit = fit(from, to, MAX_DELAY_NS)?;
    let delay = Delay::Drawn {
        asked: format!("{} like {}", from.name, to.name),
        quantiles: fit.quantiles.clone(),
    };
    let spec = Spec {
        filters: Filters {
            devices: vec![args.device.clone()],
            ops: args.op.clone(),
            ..Filters::default()
        },
        // At most a day.
        for_ns: time.map(|time| time.as_nanos() as u64),
        ..Spec::plain(&args.name, &[POINT], delay)
    };
    Ok((spec, fit))
}

/// Computes the rule of what [`read`] gave, tells how near it will come and hands it to `send`, with the command that is
/// to be run under it, which may be empty. Returns the exit code.
///
/// # Errors
/// The disk that is wanted is faster than the one that is there; `send` failed.
pub fn run(
    args: &Args,
    asked: Asked,
    send: impl FnOnce(Spec, &[OsString]) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let (spec, fit) = spec(args, &asked)?;
    let Distance { p50, p90, p99, .. } = fit.predicted;
    eprintln!("predicted, one request at a time: {}", fit.predicted);
    if [p50, p90, p99].iter().any(|off| off.abs() > FAR) {
        log::warn!(
            "{} varies too much to be made to answer like {}",
            args.from,
            args.to
        );
    }
    send(spec, &args.command)
}
