//! What people and programs read.

mod bars;
pub mod events;
pub mod hist;
pub mod json;
mod lines;
pub mod prometheus;
mod table;
pub mod tasks;
pub mod text;
