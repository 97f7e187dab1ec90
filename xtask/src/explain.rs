//! Errors that say what to do: a cause, a hint and an exit code.

use std::process::ExitCode;

/// Exit code for "this host cannot", as in the `iolag` binary.
pub const HOST_CANNOT: u8 = 3;

/// The cause of a failure for which there is a way out.
#[derive(Debug)]
pub struct Explained {
    pub cause: String,
    pub hint: String,
    pub code: u8,
}

impl std::fmt::Display for Explained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Explained {}

/// An error with a hint; exit code 1.
pub fn explained(cause: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Explained {
        cause: cause.into(),
        hint: hint.into(),
        code: 1,
    }
    .into()
}

/// An error that says that this host cannot do it; exit code 3.
pub fn host_cannot(cause: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Explained {
        cause: cause.into(),
        hint: hint.into(),
        code: HOST_CANNOT,
    }
    .into()
}

/// Says a failure on stderr, and turns it into the exit code.
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error:#}");
    match error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Explained>())
    {
        Some(explained) => {
            for line in explained.hint.lines() {
                eprintln!("hint: {line}");
            }
            ExitCode::from(explained.code)
        }
        None => ExitCode::FAILURE,
    }
}
