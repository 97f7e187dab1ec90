//! `-- COMMAND`: a command in the scope of a rule that lives as long as it does.

use std::{ffi::OsString, path::Path};

use super::{child::Child, signals::Signals};
use crate::{
    control::{client::call, protocol::Command},
    failure::{Failure, HOST, USAGE},
    rules::{
        abort::ABORTED,
        spec::{Outcome, Spec},
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
    let name = call(socket, &Command::Inject(Box::new(spec)))?;
    let _in_force = InForce { socket, name };
    let child = child.start()?;
    signals.pass_on_until_end(child)
}

/// A rule that is removed on every way out.
struct InForce<'a> {
    socket: &'a Path,
    name: String,
}

impl InForce<'_> {
    fn tell_if_aborted(&self) {
        let outcomes: Vec<Outcome> = call(self.socket, &Command::Rules).unwrap_or_default();
        let own = outcomes
            .into_iter()
            .rfind(|outcome| outcome.spec.name == self.name);
        match own.and_then(|outcome| outcome.ended) {
            Some(why) if why.starts_with(ABORTED) => {
                log::warn!("the rule {} ended before the command: {why}", self.name);
            }
            why => log::info!("the rule {} had ended: {why:?}", self.name),
        }
    }
}

impl Drop for InForce<'_> {
    fn drop(&mut self) {
        let name = &self.name;
        let remove = Command::Remove {
            name: Some(name.clone()),
        };
        match call::<()>(self.socket, &remove) {
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
