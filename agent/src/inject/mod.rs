//! `iolag inject` and what else the command line has of rules: it reads flags, asks the agent, and runs a command
//! in a rule's scope.

pub mod args;
mod child;
mod command;
mod delay;
pub mod manage;
mod run;
mod signals;
mod spec;
mod user;

pub use run::send;
