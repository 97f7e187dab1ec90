//! Names of commands and users; and several filters at once, all of which have to be satisfied.

use std::ffi::CStr;

use anyhow::{Result, ensure};

use super::{Pair, Stage, calls, worker::Work};

/// Users that nobody else is.
pub const USER: u32 = 64_001;
const OTHER: u32 = 64_002;

fn named(name: &'static CStr) -> Result<Work> {
    Ok(Work::new(calls::zero()?).set_up(move |_| calls::take_name(name)))
}

/// The whole name, up to the kernel's 15 bytes, of the thread that acts.
pub fn comm(stage: &Stage) -> Result<()> {
    let mut pair = Pair::start(named(c"scope-first-abc")?, named(c"scope-first-abd")?)?;
    pair.differ(stage, "vfs.read", &["--comm", "scope-first-abc"])?;
    let filters = ["--comm", "scope-none", "--comm", "scope-first-abc"];
    pair.differ(stage, "vfs.read", &filters)?;
    pair.neither(stage, "vfs.read", &["--comm", "scope-first-ab"])?;
    let file = stage.file(&stage.memory, "comm")?;
    let opening = |name: &'static CStr| -> Result<Work> {
        Ok(Work::new(calls::opening(&file)?).set_up(move |_| calls::take_name(name)))
    };
    let mut pair = Pair::start(opening(c"scope-yes")?, opening(c"scope-no")?)?;
    pair.differ(stage, "vfs.open", &["--comm", "scope-yes"])?;
    pair.differ(stage, "vfs.opened", &["--comm", "scope-yes"])
}

fn user(real: u32, effective: u32) -> Result<Work> {
    Ok(Work::new(calls::zero()?).set_up(move |_| calls::become_user(real, effective)))
}

/// The real user of who acts, whatever the effective one is; and who becomes one later, from then on.
pub fn uid(stage: &Stage) -> Result<()> {
    let wanted = USER.to_string();
    let filters = ["--uid", wanted.as_str()];
    Pair::start(user(USER, USER)?, user(OTHER, OTHER)?)?.differ(stage, "vfs.read", &filters)?;
    Pair::start(user(USER, 0)?, user(OTHER, USER)?)?.differ(stage, "vfs.read", &filters)?;
    // Both were somebody else when the rule came, and the second was the rule's in a round before.
    let changing = |users: [u32; 2]| -> Result<Work> {
        let become_next = move |round| calls::become_user(users[round as usize % 2], 0);
        Ok(Work::new(calls::zero()?).before(become_next))
    };
    let mut pair = Pair::start(changing([OTHER, USER])?, changing([USER, OTHER])?)?;
    let rule = stage.rule("vfs.read", &filters)?;
    for (first_calls, second_calls, hits) in [(7, 3, 3), (7, 3, 7)] {
        pair.first.begin(first_calls);
        pair.second.begin(second_calls);
        let times = [pair.first.finish()?, pair.second.finish()?];
        let found = rule.new_hits()?;
        ensure!(
            found == hits,
            "{found} hits instead of {hits} after {times:?} ns, of users that change"
        );
    }
    Ok(())
}

/// Who satisfies all filters but one is not delayed.
pub fn all_filters(stage: &Stage) -> Result<()> {
    let read = stage.file(&stage.disk, "all/file")?;
    let elsewhere = stage.file(&stage.disk, "elsewhere")?;
    let dir = stage.disk.join("all");
    let user = USER.to_string();
    let filters = [
        "--uid",
        &user,
        "--comm",
        "scope-all",
        "--size",
        "4k..8k",
        "--op",
        "read",
        "--under",
        dir.to_str().unwrap_or_default(),
    ];
    let all = || -> Result<Work> {
        Ok(Work::new(calls::read(&read, &[5000])?)
            .set_up(|_| calls::take_name(c"scope-all") && calls::become_user(USER, 0)))
    };
    let others = [
        Work::new(calls::read(&read, &[5000])?)
            .set_up(|_| calls::take_name(c"scope-all") && calls::become_user(OTHER, 0)),
        Work::new(calls::read(&read, &[5000])?)
            .set_up(|_| calls::take_name(c"scope-a") && calls::become_user(USER, 0)),
        Work::new(calls::read(&read, &[100])?)
            .set_up(|_| calls::take_name(c"scope-all") && calls::become_user(USER, 0)),
        Work::new(calls::write(&read, &[5000])?)
            .set_up(|_| calls::take_name(c"scope-all") && calls::become_user(USER, 0)),
        Work::new(calls::read(&elsewhere, &[5000])?)
            .set_up(|_| calls::take_name(c"scope-all") && calls::become_user(USER, 0)),
    ];
    for other in others {
        Pair::start(all()?, other)?.differ(stage, "vfs.read,vfs.write", &filters)?;
    }
    Ok(())
}
