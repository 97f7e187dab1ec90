//! `-- COMMAND`: a command in the scope of a rule that lives as long as it does.

use std::{ffi::OsString, path::Path};

use super::{child::Child, signals::Signals};
use crate::{
    control::{client::call, protocol::Command},
    failure::{Failure, HOST, USAGE},
    rules::{
        abort::ABORTED,
        spec::{Came, Outcome, Spec},
    },
};

/// Starts the command, puts the rule in force for it and what it forks, waits for its end and removes the rule.
/// Returns the exit code: the command's own, or 128 and the signal that killed it.
///
/// # Errors
/// The agent refuses the rule, and nothing was started; or the command cannot be started.
pub fn run(command: &[OsString], mut spec: Spec, socket: &Path) -> Result<u8, Failure> {
    let signals = Signals::hold()?;
    let child = Child::fork(command, &signals)?;
    spec.filters.pids = vec![child.pid()];
    spec.filters.children = true;
    let rule = call(socket, &Command::Inject(Box::new(spec)))?;
    let _in_force = InForce { socket, rule };
    let child = child.start()?;
    signals.pass_on_until_end(child)
}

/// A rule that is removed on every way out.
struct InForce<'a> {
    socket: &'a Path,
    rule: Came,
}

impl InForce<'_> {
    fn tell_if_aborted(&self) {
        let outcomes: Vec<Outcome> = call(self.socket, &Command::Rules).unwrap_or_default();
        let Came { id, name } = &self.rule;
        let own = outcomes.into_iter().find(|outcome| outcome.id == *id);
        match own.and_then(|outcome| outcome.ended) {
            Some(why) if why.starts_with(ABORTED) => {
                log::warn!("the rule {name} ended before the command: {why}");
            }
            why => log::info!("the rule {name} had ended: {why:?}"),
        }
    }
}

impl Drop for InForce<'_> {
    fn drop(&mut self) {
        // Not by its name: if it ended before, that may be somebody else's by now.
        let Came { id, name } = &self.rule;
        match call::<()>(self.socket, &Command::End { id: *id }) {
            Ok(()) => {}
            // Its time was up, the agent saw the process go first, or a condition was met.
            Err(failure) if failure.code == USAGE => self.tell_if_aborted(),
            Err(failure) if failure.code == HOST => {
                log::warn!(
                    "the agent went away before the command ended, and the rule with it: {failure}"
                );
            }
            Err(failure) => log::warn!("failed to remove the rule {name}: {failure}"),
        }
    }
}
