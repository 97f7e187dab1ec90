//! The one error that reaches people: a line, a hint, an exit code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// It was tried and failed.
pub const FAILED: u8 = 1;
/// The request made no sense.
pub const USAGE: u8 = 2;
/// This host, as it is now, cannot: no agent, no privilege, no backend.
pub const HOST: u8 = 3;

/// What went wrong and what to do, in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Exit code of the process: [`FAILED`], [`USAGE`] or [`HOST`].
    pub code: u8,
    /// `failed to <verb> <object>: <cause>`, or the value that was wrong.
    pub message: String,
    /// The way out, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(code: u8, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: one_line(&message.to_string()),
            hint: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(one_line(&hint.to_string()));
        self
    }
}

/// Folds white space, so that a cause of several lines stays one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(FAILED, format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_its_cause() {
        let failure =
            Failure::new(HOST, "failed to load vfs_read:\n  no such\tfunction\n").hint("a\nb");
        assert_eq!(
            failure.to_string(),
            "failed to load vfs_read: no such function (hint: a b)"
        );
    }
}
