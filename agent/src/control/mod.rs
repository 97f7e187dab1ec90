//! The control socket: one JSON object a line each way, root only.

pub mod client;
mod follow;
mod places;
pub mod protocol;
pub mod server;
pub mod socket;
pub mod turns;

/// Where the socket is unless `--socket` or `IOLAG_SOCKET` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/iolag.sock";
