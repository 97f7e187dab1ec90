//! The prototypes above the eBPF programs, on this host's kernel. Other kernels: `cargo xtask vm --all-kernels --
//! prototypes`.

use std::path::Path;

use iolag_tests::prototypes::{compare, kernel::BTF};

#[test]
fn prototypes_are_the_running_kernels() {
    if !Path::new(BTF).exists() {
        println!("skipped: this kernel has no BTF");
        return;
    }
    let compared = compare(Path::new(BTF)).unwrap();
    for (name, found) in &compared.hooks {
        println!("{name}\t{found}");
    }
    for homeless in &compared.homeless {
        println!("no place here: {}", homeless.what);
    }
    compared.none_differs().unwrap();
}
