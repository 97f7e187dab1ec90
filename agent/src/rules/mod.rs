//! Rules: whom to delay, by what, until when.
//!
//! The command line reads a [`spec::Spec`], which goes to the agent as it is; the agent resolves it against this host
//! (which inode is that directory, which devices are that disk) and puts it into the maps.

pub mod abort;
pub mod admit;
pub mod asked;
pub mod check;
pub mod curve;
pub mod distribution;
pub mod force;
pub mod functions;
pub mod imitate;
pub mod independent;
pub mod points;
pub mod profile;
pub mod resolve;
pub mod spec;
pub mod table;
pub mod verdict;
