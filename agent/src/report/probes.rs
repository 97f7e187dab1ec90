//! What `probe list` shows.

use serde::{Deserialize, Serialize};

use super::SCHEMA;

/// The document of `probe list --format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    pub schema: u32,
    pub probes: Vec<Row>,
}

impl List {
    #[must_use]
    pub fn new(probes: Vec<Row>) -> Self {
        let schema = SCHEMA;
        Self { schema, probes }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_a_document_with_its_schema() {
        let list = List::new(vec![Row {
            name: "block".into(),
            help: "requests".into(),
            loaded: false,
            by: vec!["op".into()],
            backends: Vec::new(),
        }]);
        let row = serde_json::json!({"name": "block", "help": "requests", "loaded": false,
            "by": ["op"], "backends": []});
        assert_eq!(
            serde_json::to_value(list).unwrap(),
            serde_json::json!({"schema": 1, "probes": [row]})
        );
    }
}
