//! What people and programs read.

pub mod json;
mod table;
pub mod text;
