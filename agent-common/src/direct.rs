//! Direct reads of the kernel's memory: what programs have in place of a call that is the running kernel's to name.

/// The number that stands for `bpf_rdonly_cast` in the objects: no helper has it.
pub const CALL: i32 = 0x0ca5_7000;

/// The number in the objects that says that the call must not be come to.
pub const NO: i32 = 0x0ca5_7001;
/// The number in its place where it may.
pub const YES: i32 = 0x0ca5_7002;

/// What an instruction of an object has to be where the kernel's function has the BTF id `cast`: opcode, registers, offset
/// and immediate, as a little-endian CPU has them (Documentation/bpf/standardization/instruction-set.rst).
#[must_use]
pub const fn patched(instruction: u64, cast: u32) -> u64 {
    /// `BPF_JMP | BPF_CALL`, of a function of the kernel by its BTF id (`BPF_PSEUDO_KFUNC_CALL`).
    const CALL_OF_KERNEL: u64 = 0x2085;
    /// `BPF_ALU64 | BPF_MOV | BPF_K`, to whatever register.
    const MOVE: u64 = 0xb7;
    let (code, immediate) = (instruction as u32 as u64, (instruction >> 32) as i32);
    if immediate == CALL && code == CALL_OF_KERNEL & 0xff {
        CALL_OF_KERNEL | (cast as u64) << 32
    } else if immediate == NO && code & 0xff == MOVE {
        code | (YES as u64) << 32
    } else {
        instruction
    }
}

#[cfg(test)]
mod tests {
    fn patched(instruction: [u8; 8]) -> [u8; 8] {
        super::patched(u64::from_le_bytes(instruction), 0x0102_0304).to_le_bytes()
    }

    #[test]
    fn a_call_gets_its_id() {
        let call = [0x85, 0, 0, 0, 0x00, 0x70, 0xa5, 0x0c];
        assert_eq!(patched(call), [0x85, 0x20, 0, 0, 4, 3, 2, 1]);
    }

    #[test]
    fn a_no_is_a_yes_in_any_register() {
        let no = [0xb7, 3, 0, 0, 0x01, 0x70, 0xa5, 0x0c];
        assert_eq!(patched(no), [0xb7, 3, 0, 0, 0x02, 0x70, 0xa5, 0x0c]);
    }

    #[test]
    fn nothing_else_is_changed() {
        for other in [
            [0x85, 0, 0, 0, 113, 0, 0, 0],
            [0xb7, 3, 0, 0, 0x00, 0x70, 0xa5, 0x0c],
            [0x07, 3, 0, 0, 0x01, 0x70, 0xa5, 0x0c],
        ] {
            assert_eq!(patched(other), other);
        }
    }
}
