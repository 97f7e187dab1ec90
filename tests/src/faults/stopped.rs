//! The agent is stopped by SIGSTOP.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{Place, fast, fast_again, row, slow};
use crate::agent::Agent;

/// The lease ends within this.
const LEASE: Duration = Duration::from_secs(5);

/// Delays end with the lease and stay off for as long as the agent is stopped; then it goes on.
///
/// # Errors
/// It does not.
pub fn stopped(place: &Place<'_>, length: Duration) -> Result<()> {
    let agent = Agent::start(place.program, &["--backend", place.backend])?;
    agent.call(&["set", "10ms"])?;
    ensure!(slow()?, "nothing is delayed");
    agent.signal(libc::SIGSTOP);
    let start = Instant::now();
    let ended = fast_again(2 * LEASE)?;
    ensure!(ended <= LEASE, "fast only {ended:?} after SIGSTOP");
    let mut looks = 0;
    while start.elapsed() < length {
        ensure!(fast()?, "slow again after {:?}", start.elapsed());
        looks += 1;
        sleep(Duration::from_millis(100));
    }
    agent.signal(libc::SIGCONT);
    let on = Instant::now();
    while !slow()? {
        ensure!(on.elapsed() < Duration::from_secs(2), "not slow again");
    }
    let on = on.elapsed();
    agent.call(&["reset"])?;
    ensure!(fast()?, "slow after reset");
    row(
        "SIGSTOP",
        place.backend,
        format_args!(
            "{} s: full speed after {:.1} s and at {looks} looks since, delays again {} ms after SIGCONT, reset works",
            length.as_secs(),
            ended.as_secs_f64(),
            on.as_millis()
        ),
    );
    Ok(())
}
