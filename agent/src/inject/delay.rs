//! `--delay`, `--jitter`, `--dist` and `--like`: what each hit waits.

use super::args::Inject;
use crate::{
    failure::{Failure, HOST, USAGE},
    rules::spec::Delay,
    units::parse_wait,
};

fn refused(what: &str, hint: &str) -> Failure {
    Failure::new(USAGE, what).hint(hint)
}

/// The delay that the flags ask for.
///
/// # Errors
/// None is asked for, two are, or it is nonsense.
pub fn delay(args: &Inject) -> Result<Delay, Failure> {
    let Inject {
        delay,
        jitter,
        dist,
        like,
        ..
    } = args;
    if let Some(_profile) = like {
        for (flag, given) in [
            ("--delay", delay.is_some()),
            ("--jitter", jitter.is_some()),
            ("--dist", dist.is_some()),
        ] {
            if given {
                return Err(refused(
                    &format!("{flag} contradicts --like, which has its own delays"),
                    "leave one of them away",
                ));
            }
        }
        return Err(no_draws("--like"));
    }
    let Some(delay) = delay else {
        return Err(refused(
            "inject needs --delay or --like",
            "say how long: --delay 5ms",
        ));
    };
    let ns = parse_wait("--delay", delay)?;
    match (jitter, dist) {
        (None, None) => Ok(Delay::Fixed { ns }),
        (None, Some(_)) => Err(refused(
            "--dist needs --jitter",
            "say how far it spreads: --jitter 1ms",
        )),
        (Some(jitter), _shape) => {
            parse_wait("--jitter", jitter)?;
            Err(no_draws("--jitter"))
        }
    }
}

fn no_draws(flag: &str) -> Failure {
    Failure::new(HOST, format!("{flag}: this iolag draws no delays yet"))
        .hint("a fixed one works: --delay 5ms")
}
