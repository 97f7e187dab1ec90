//! Parses, dispatches, sets the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match iolag::cli::main(std::env::args_os()) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code)
        }
    }
}
