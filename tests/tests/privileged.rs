//! Tests of the program that need root. `cargo xtask test` runs them one at a time, as they attach to
//! the one kernel.

#[path = "privileged/control.rs"]
mod control;
#[path = "privileged/crowd.rs"]
mod crowd;
#[path = "privileged/direct.rs"]
mod direct;
#[path = "privileged/doctor.rs"]
mod doctor;
#[path = "privileged/events.rs"]
mod events;
#[path = "privileged/faults.rs"]
mod faults;
#[path = "privileged/hostile_btf.rs"]
mod hostile_btf;
#[path = "privileged/imitate.rs"]
mod imitate;
#[path = "privileged/io_delayer.rs"]
mod io_delayer;
#[path = "privileged/loading.rs"]
mod loading;
#[path = "privileged/peer.rs"]
mod peer;
#[path = "privileged/place.rs"]
mod place;
#[path = "privileged/precision.rs"]
mod precision;
#[path = "privileged/privileges.rs"]
mod privileges;
#[path = "privileged/privileges_tried.rs"]
mod privileges_tried;
#[path = "privileged/refusals.rs"]
mod refusals;
#[path = "privileged/rules_draws.rs"]
mod rules_draws;
#[path = "privileged/rules_ends.rs"]
mod rules_ends;
#[path = "privileged/rules_gone.rs"]
mod rules_gone;
#[path = "privileged/rules_input.rs"]
mod rules_input;
#[path = "privileged/rules_safety.rs"]
mod rules_safety;
#[path = "privileged/rules_undone.rs"]
mod rules_undone;
#[path = "privileged/rules_verify.rs"]
mod rules_verify;
#[path = "privileged/safety.rs"]
mod safety;
#[path = "privileged/scope.rs"]
mod scope;
#[path = "privileged/top.rs"]
mod top;
#[path = "privileged/truth.rs"]
mod truth;
