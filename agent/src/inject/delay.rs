//! `--delay`, `--jitter`, `--dist` and `--like`: what each hit waits.

use super::args::Inject;
use crate::{
    failure::{Failure, USAGE},
    rules::{distribution, profile::Profile, spec::Delay},
    units::parse_wait,
};

/// So much of a profile's name is shown (characters).
const SHOWN: usize = 60;

fn refused(what: &str, hint: &str) -> Failure {
    Failure::new(USAGE, what).hint(hint)
}

/// The delay that the flags ask for; none is longer than `cap_ns`.
///
/// # Errors
/// None is asked for, two are, or it is nonsense.
pub fn delay(args: &Inject, cap_ns: u64) -> Result<Delay, Failure> {
    if let Some(profile) = &args.like {
        return like(args, profile, cap_ns);
    }
    let Some(delay) = &args.delay else {
        return Err(refused(
            "inject needs --delay or --like",
            "say how long: --delay 5ms",
        ));
    };
    if args.dist.is_some() && args.jitter.is_none() {
        return Err(refused(
            "--dist needs --jitter",
            "say how far it spreads: --jitter 1ms",
        ));
    }
    let ns = parse_wait("--delay", delay)?;
    let jitter = args.jitter.as_deref();
    let jitter = jitter
        .map(|jitter| parse_wait("--jitter", jitter))
        .transpose()?;
    distribution::delay(args.dist, ns, jitter, cap_ns)
}

fn like(args: &Inject, profile: &str, cap_ns: u64) -> Result<Delay, Failure> {
    const LIKE: &str = "--like";
    for (flag, given) in [
        ("--delay", args.delay.is_some()),
        ("--jitter", args.jitter.is_some()),
        ("--dist", args.dist.is_some()),
    ] {
        if given {
            return Err(refused(
                &format!("{flag} contradicts {LIKE}, which has its own delays"),
                "leave one of them away",
            ));
        }
    }
    let profile = Profile::load(LIKE, profile)?;
    // A profile may be called anything.
    let name = profile.name.chars().take(SHOWN);
    let name: String = name.map(|c| if c.is_control() { '?' } else { c }).collect();
    Ok(Delay::Drawn {
        asked: format!("like {name}"),
        quantiles: profile.quantiles(LIKE, cap_ns)?,
    })
}
