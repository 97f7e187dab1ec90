//! Numbers that programs have in their instructions, and that the agent knows: offsets of fields, mostly.
//!
//! A read-only global is one as well, and the verifier knows its value; but programs load it from memory each time all the
//! same, after they loaded its address. In an instruction it takes half of the code, and no memory besides: what a hit mostly
//! waits for is lines that are in no cache.
//!
//! In an object, a constant is a move of [`id`] of its name to a register; the agent writes its value there.

/// What stands for the constant of that name in an object: FNV-1a (32 bits; draft-eastlake-fnv), of which the highest byte is
/// ours.
#[must_use]
pub const fn id(name: &str) -> i32 {
    let bytes = name.as_bytes();
    let mut hash = 0x811c_9dc5_u32;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash & 0x00ff_ffff | OURS) as i32
}

const OURS: u32 = 0x6c00_0000;

/// The id that an instruction moves to a register; `None` if it is no such instruction (Documentation/bpf/standardization/
/// instruction-set.rst).
#[must_use]
pub const fn id_in(instruction: u64) -> Option<i32> {
    /// `BPF_ALU64 | BPF_MOV | BPF_K`, without a source and an offset, to whatever register.
    const MOVE: u32 = 0xb7;
    let (code, immediate) = (instruction as u32, (instruction >> 32) as u32);
    if code & 0xffff_f0ff == MOVE && immediate & 0xff00_0000 == OURS {
        Some(immediate as i32)
    } else {
        None
    }
}

/// The instruction with a value in place of the id.
#[must_use]
pub const fn with(instruction: u64, value: u32) -> u64 {
    instruction as u32 as u64 | (value as u64) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_of_an_id_gets_the_value() {
        let id = id("RQ_FLAGS");
        let instruction = 0x0000_07b7 | (id as u64) << 32;
        assert_eq!(id_in(instruction), Some(id));
        assert_eq!(with(instruction, u32::MAX), 0xffff_ffff_0000_07b7);
        assert_eq!(id_in(with(instruction, 5)), None);
    }

    #[test]
    fn nothing_else_is_taken_for_one() {
        let id = (id("RQ_FLAGS") as u64) << 32;
        // Of 32 bits, of a register, an addition, with an offset (a signed move), and of another number.
        for other in [id | 0xb4, id | 0xbf, id | 0x07, id | 0x0008_00b7, 0xb7] {
            assert_eq!(id_in(other), None, "{other:x}");
        }
    }
}
