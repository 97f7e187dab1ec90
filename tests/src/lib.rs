//! What the tests of iolag and its demo measure with: the program run from outside, and truths that
//! it did not write: fio, and system calls timed by the caller.

pub mod affinity;
pub mod agent;
pub mod btf;
pub mod crowd;
pub mod demo;
pub mod doctor;
pub mod dump;
pub mod faults;
pub mod fio;
pub mod fuzz;
pub mod held;
pub mod loop_device;
pub mod many_cgroups;
pub mod maps;
pub mod memcg;
pub mod mounts;
pub mod mutated;
pub mod outcome;
pub mod place;
pub mod privileges;
pub mod programs;
pub mod prototypes;
pub mod reader;
pub mod record;
pub mod refusal;
pub mod requests;
pub mod scope;
pub mod timing;
pub mod truth;
