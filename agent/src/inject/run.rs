//! Sends the rule.

use std::{ffi::OsString, path::Path};

use super::command;
use crate::{
    control::{client::call, protocol::Command},
    failure::Failure,
    rules::spec::{Came, Spec},
};

/// Puts a rule in force, for the time of COMMAND if there is one. Without a COMMAND its name goes to `print`; else the
/// command's exit code comes back.
///
/// # Errors
/// The agent refuses the rule, or COMMAND cannot be started.
pub fn send(
    spec: Spec,
    command: &[OsString],
    socket: &Path,
    print: impl FnOnce(&str) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    if !command.is_empty() {
        return command::run(command, spec, socket);
    }
    let came: Came = call(socket, &Command::Inject(Box::new(spec)))?;
    print(&format!("{}\n", came.name))?;
    Ok(0)
}
