//! `iolag`: slows real I/O down on purpose, precisely, and proves what it did.
//!
//! Data flows one way: [`cli`] -> [`plan`] -> [`control`] -> [`session`] -> [`kernel`] and back through
//! [`report`] and [`render`]. Only [`kernel`] knows aya.

pub mod agent;
pub mod cli;
pub mod control;
pub mod doctor;
pub mod events;
pub mod failure;
mod functions;
pub mod fuzz;
pub mod hist;
pub mod host;
pub mod inject;
pub mod kernel;
pub mod measure;
pub mod names;
pub mod plan;
pub mod privileges;
pub mod probes;
pub mod record;
pub mod render;
pub mod report;
pub mod rules;
pub mod session;
pub mod top;
pub mod units;
