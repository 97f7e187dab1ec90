//! Puts the source of the eBPF programs into the tests, which look for the prototypes above them. In a virtual machine
//! there are no sources.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

fn main() {
    let source = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../agent-ebpf/src")
        .canonicalize()
        .expect("the eBPF side is beside the tests");
    println!("cargo::rerun-if-changed={}", source.display());
    let mut files = Vec::new();
    find(&source, &mut files);
    files.sort();
    let mut list = "&[\n".to_owned();
    for file in &files {
        let name = file.strip_prefix(&source).expect("it was found below");
        writeln!(list, "({name:?}, include_str!({file:?})),").expect("a string takes all");
    }
    list.push(']');
    let target = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("sources.rs");
    fs::write(target, list).expect("failed to write the list of sources");
}

fn find(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("failed to list the sources") {
        let path = entry.expect("failed to list the sources").path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
