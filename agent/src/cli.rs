//! The command line: how it is read, and what is said if that cannot be done.

mod args;
mod commands;

use std::{cell::RefCell, ffi::OsString, path::Path};

use clap::{CommandFactory as _, Parser};

use self::{
    args::{Common, IoDelayer, IoDelayerVerb, Iolag, Verb},
    commands::prepare,
};
use crate::failure::{Failure, USAGE};

/// The name under which the program takes io-delayer's commands.
const IO_DELAYER: &str = "io-delayer-cli";

/// Runs the command line, the program's own name first. Returns the exit code.
///
/// # Errors
/// The command failed; the failure holds the exit code.
pub fn main(args: impl Iterator<Item = OsString>) -> Result<u8, Failure> {
    let (common, command) = parse(args).map_err(|error| {
        // clap prints help and version itself.
        let help = clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        if !error.use_stderr() || error.kind() == help {
            error.exit();
        }
        usage(&error)
    })?;
    start_log(common.verbose);
    prepare(&command, &common)?()
}

/// As [`main`], up to where anybody would be asked to do something. Help that was asked for is not shown.
///
/// # Errors
/// It makes no sense.
pub(crate) fn read(args: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let (common, command) = parse(args).map_err(|error| usage(&error))?;
    prepare(&command, &common).map(drop)
}

/// io-delayer's commands are read as those of iolag that they are.
fn parse(args: impl Iterator<Item = OsString>) -> Result<(Common, Verb), clap::Error> {
    // Made once: to make one takes longer than to use it, and who fuzzes uses it often.
    thread_local! {
        static IOLAG: RefCell<clap::Command> = RefCell::new(Iolag::command());
        static OTHER: RefCell<clap::Command> = RefCell::new(IoDelayer::command());
    }
    fn by<T: Parser>(command: &mut clap::Command, args: Vec<OsString>) -> Result<T, clap::Error> {
        T::from_arg_matches_mut(&mut command.try_get_matches_from_mut(args)?)
    }
    let args: Vec<OsString> = args.collect();
    let name = args.first().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|name| name == IO_DELAYER) {
        let IoDelayer { common, command } = OTHER.with_borrow_mut(|command| by(command, args))?;
        let command = match command {
            IoDelayerVerb::Set(delay) => Verb::Set(delay),
            IoDelayerVerb::SetBlk(delay) => Verb::SetBlk(delay),
            IoDelayerVerb::Status(status) => Verb::Status(status),
        };
        return Ok((common, command));
    }
    let Iolag { common, command } = IOLAG.with_borrow_mut(|command| by(command, args))?;
    Ok((common, command))
}

/// What clap says, in one line.
fn usage(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let told = text.split("\n\nUsage:").next().unwrap_or(&text);
    let told = told
        .split("\n\nFor more information")
        .next()
        .unwrap_or(told);
    Failure::new(USAGE, told.trim_start_matches("error: ")).hint(
        match error
            .context()
            .find(|(kind, _)| *kind == clap::error::ContextKind::Usage)
        {
            Some((_, usage)) => usage.to_string().replace("Usage: ", "usage: "),
            None => "see --help".into(),
        },
    )
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
}
