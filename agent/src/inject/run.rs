//! Sends the rule.

use std::path::Path;

use super::{args::Inject, command};
use crate::{
    control::{client::call, protocol::Command},
    failure::Failure,
};

/// Puts the rule in force. Without a COMMAND its name goes to `print`; else the command's exit code comes back.
///
/// # Errors
/// The rule makes no sense, the agent refuses it, or COMMAND cannot be started.
pub fn run(
    args: &Inject,
    socket: &Path,
    print: impl FnOnce(&str) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let spec = args.spec()?;
    if !args.command.is_empty() {
        return command::run(&args.command, spec, socket);
    }
    let name: String = call(socket, &Command::Inject(Box::new(spec)))?;
    print(&format!("{name}\n"))?;
    Ok(0)
}
