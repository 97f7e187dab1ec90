//! JSON: one document, indented.

use serde::Serialize;

/// The document with a newline at its end.
///
/// # Errors
/// A value that JSON cannot hold.
pub fn document(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// As [`document`], on one line.
///
/// # Errors
/// A value that JSON cannot hold.
pub fn line(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string(value)?))
}
