//! What both sides of iolag must agree on: the catalogue of probes and points, the plain-old-data
//! that crosses the maps, and the bucket arithmetic of the histograms.
//!
//! `no_std`, no dependencies but `aya` for [`aya::Pod`] behind the feature `user`; everything here
//! is tested on the host.
#![no_std]

pub mod bucket;
pub mod catalogue;
pub mod constant;
pub mod direct;
pub mod offsets;
pub mod oom;
pub mod pod;
pub mod probes;
pub mod quantiles;
pub mod recent;
pub mod rules;
pub mod series;
pub mod syscalls;
