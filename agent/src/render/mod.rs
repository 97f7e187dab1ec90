//! What people and programs read.

mod bars;
pub mod doctor;
pub mod events;
pub mod hist;
pub mod json;
mod lines;
pub mod prometheus;
pub mod rules;
mod table;
pub mod tasks;
pub mod text;

/// How a command writes its results.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}
