//! Tests of the program that need root. `cargo xtask test` runs them one at a time, as they attach to
//! the one kernel.

#[path = "privileged/control.rs"]
mod control;
#[path = "privileged/events.rs"]
mod events;
#[path = "privileged/loading.rs"]
mod loading;
#[path = "privileged/place.rs"]
mod place;
#[path = "privileged/precision.rs"]
mod precision;
#[path = "privileged/refusals.rs"]
mod refusals;
#[path = "privileged/safety.rs"]
mod safety;
#[path = "privileged/scope.rs"]
mod scope;
#[path = "privileged/top.rs"]
mod top;
#[path = "privileged/truth.rs"]
mod truth;
