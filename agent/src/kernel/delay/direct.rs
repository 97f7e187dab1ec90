//! Reading the kernel's memory directly, where this kernel lets programs do that: since 6.17 the verifier takes the answer
//! of `bpf_rdonly_cast` for memory that may be read anywhere, and a read costs 2 ns there and not 20. An object names a
//! function of the kernel by the id that the running kernel's BTF gives it.

use agent_common::direct::patched;

use crate::kernel::patched::Patched;

/// The function of the kernel.
pub const CAST: &str = "bpf_rdonly_cast";
/// An enumerator that kernels have where its answer to a type of 0 may be read (`enum bpf_features`,
/// kernel/bpf/verifier.c).
pub const FEATURE: &str = "BPF_FEAT_RDONLY_CAST_TO_VOID";

/// An object that reads directly, by the function with that id. `None` if nothing in it does.
pub fn reading_directly(object: &[u8], cast: u32) -> Option<Patched> {
    Patched::new(object, |word| patched(word, cast))
}
