//! Reading the kernel's memory directly, where this kernel lets programs do that: since 6.17 the verifier takes the answer
//! of `bpf_rdonly_cast` for memory that may be read anywhere, and a read costs 2 ns there and not 20. An object names a
//! function of the kernel by the id that the running kernel's BTF gives it.

use agent_common::direct::patched;

/// The function of the kernel.
pub const CAST: &str = "bpf_rdonly_cast";
/// An enumerator that kernels have where its answer to a type of 0 may be read (`enum bpf_features`,
/// kernel/bpf/verifier.c).
pub const FEATURE: &str = "BPF_FEAT_RDONLY_CAST_TO_VOID";

/// An object that reads directly, by the function with that id.
pub struct Patched {
    words: Vec<u64>,
    length: usize,
}

impl Patched {
    /// `None` if nothing in it reads directly.
    pub fn new(object: &[u8], cast: u32) -> Option<Self> {
        let word = |bytes: &[u8]| {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(whole)
        };
        // Sections of programs begin at a multiple of 8 bytes, as an instruction has 8.
        let before = object.chunks(8).map(word);
        let words: Vec<u64> = before
            .clone()
            .map(|word| patched(word, cast).to_le())
            .collect();
        let differs = before
            .zip(&words)
            .any(|(before, after)| before.to_le() != *after);
        differs.then_some(Self {
            words,
            length: object.len(),
        })
    }

    /// Aligned as the parser needs it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: any byte of a number is a number.
        let (_, bytes, _) = unsafe { self.words.align_to::<u8>() };
        &bytes[..self.length]
    }
}
