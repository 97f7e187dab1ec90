//! What `probe list` shows.

use serde::{Deserialize, Serialize};

/// A probe of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub help: String,
    pub loaded: bool,
    /// Fields by which its series are told apart, as loaded; or by which they can be.
    pub by: Vec<String>,
    /// Backends in use, by part; empty if it is not loaded.
    pub backends: Vec<String>,
}
