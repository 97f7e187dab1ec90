//! Objects whose instructions are changed before they are loaded.

/// A changed copy of an object.
pub struct Patched {
    words: Vec<u64>,
    length: usize,
}

impl Patched {
    /// With each word of 8 bytes, as a little-endian CPU has it, as `change` makes it: sections of programs begin at a multiple
    /// of 8 bytes, as an instruction has 8. `None` if nothing changes.
    pub fn new(object: &[u8], mut change: impl FnMut(u64) -> u64) -> Option<Self> {
        let word = |bytes: &[u8]| {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(whole)
        };
        let before = object.chunks(8).map(word);
        let words: Vec<u64> = before.clone().map(|word| change(word).to_le()).collect();
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
