//! A kernel whose BTF is not what it should be.

use std::path::Path;

use iolag_tests::{
    btf::{BTF, all_are_refused},
    faults::row,
};

use crate::place::Place;

#[test]
fn hostile_btf_is_refused_in_one_line_and_auto_goes_on_without() {
    let Some(place) = Place::new() else { return };
    if !Path::new(BTF.to_str().unwrap()).exists() {
        println!("skipped: this kernel has no BTF to mount a file over");
        return;
    }
    let seen = all_are_refused(&place.program, usize::MAX, 10).unwrap();
    row("hostile BTF", "auto", seen);
}
