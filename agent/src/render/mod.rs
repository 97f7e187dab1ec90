//! What people and programs read.

pub mod events;
pub mod hist;
pub mod json;
pub mod prometheus;
mod table;
pub mod tasks;
pub mod text;
