//! What every eBPF object of iolag shares.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

/// A panic cannot happen in a program that the verifier accepted; the loop satisfies the compiler.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The same value, of which the compiler then knows nothing. `core::hint::black_box` writes it to memory for that.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn opaque(mut value: u64) -> u64 {
    // One instruction, as the kernel wants each to have a line of its own in the source.
    // SAFETY: a move to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// A number that the agent knows, see `agent_common::constant`; to the verifier it is a constant.
#[cfg(target_arch = "bpf")]
pub trait Constant {
    /// Its value.
    fn load(&self) -> u64;

    /// Whether this kernel has what it tells of; else it is `ABSENT`.
    fn present(&self) -> bool;
}

#[cfg(target_arch = "bpf")]
impl Constant for aya_ebpf::Global<u32> {
    #[inline(always)]
    fn load(&self) -> u64 {
        aya_ebpf::Global::load(self).into()
    }

    #[inline(always)]
    fn present(&self) -> bool {
        aya_ebpf::Global::load(self) != agent_common::probes::ABSENT
    }
}

/// Constants in instructions, each a unit that is a [`Constant`].
#[cfg(target_arch = "bpf")]
#[macro_export]
macro_rules! constants {
    ($($name:ident)*) => { $(
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "it is used as a constant is")]
        pub struct $name;

        impl $crate::Constant for $name {
            #[inline(always)]
            fn load(&self) -> u64 {
                $crate::constant::<{ agent_common::constant::id(stringify!($name)) }>()
            }

            #[inline(always)]
            fn present(&self) -> bool {
                // An instruction's number is extended by its sign.
                $crate::Constant::load(self) != u64::MAX
            }
        }
    )* };
}

const _: () = assert!(agent_common::probes::ABSENT == u32::MAX);

/// The value of a constant. Not `pure`, or the compiler would keep it in memory.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn constant<const ID: i32>() -> u64 {
    let value: u64;
    // SAFETY: gives a register a value.
    unsafe {
        core::arch::asm!("{value} = {id}", value = out(reg) value, id = const ID, options(nomem, nostack));
    }
    value
}

/// The compiler leaves stores before it before those after it.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn in_order() {
    // SAFETY: no instruction, but as far as the compiler knows memory may be another after it.
    unsafe { core::arch::asm!("", options(nostack)) };
}

/// `to - from`. The verifier lets nothing else be computed with a pointer typed by BTF.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn distance(to: *const u8, from: *const u8) -> u64 {
    let mut distance = to as u64;
    let from = from as u64;
    // SAFETY: a subtraction of registers.
    unsafe {
        core::arch::asm!("{0} -= {1}", inout(reg) distance, in(reg) from, options(pure, nomem, nostack));
    }
    distance
}

/// Adds, whatever other CPUs do.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn add(word: *mut u64, value: u64) {
    // SAFETY: one atomic addition to a word that the caller owns a pointer to; the verifier checks the pointer.
    unsafe {
        core::arch::asm!("lock *(u64 *)({1} + 0) += {0}", in(reg) value, in(reg) word);
    }
}

/// Adds and returns what was there before, on whatever CPU: since Linux 5.12. `AtomicU64` has it not on this target.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn fetch_add(word: *mut u64, mut value: u64) -> u64 {
    // SAFETY: one atomic addition to a word that the caller owns a pointer to; the verifier checks the pointer.
    unsafe {
        core::arch::asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) value, in(reg) word);
    }
    value
}

/// A value in a section of its own, `.data.NAME`: the only entry of an array of that name, of which the kernel gives
/// programs the address. So to have it costs an instruction, where a look-up in a map of one entry costs eight and an
/// answer for a key that is not there.
#[cfg(target_arch = "bpf")]
#[repr(transparent)]
pub struct Shared<T>(core::cell::UnsafeCell<T>);

// SAFETY: user space and programs on all CPUs read and write it, word by word, and of any bytes it is a value.
#[cfg(target_arch = "bpf")]
unsafe impl<T: Copy> Sync for Shared<T> {}

#[cfg(target_arch = "bpf")]
impl<T: Copy> Shared<T> {
    /// What it is until user space writes it.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Where it is.
    #[inline(always)]
    pub fn get_ptr_mut(&self) -> *mut T {
        let mut place = self.0.get();
        // SAFETY: a move to itself. Who else writes it the compiler then cannot know.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) place, options(pure, readonly, nostack))
        };
        place
    }

    #[inline(always)]
    pub fn get(&self) -> &T {
        // SAFETY: it is there for as long as programs are, and any bytes are a value.
        unsafe { &*self.get_ptr_mut() }
    }
}

/// Whether this kernel's memory can be read directly: [`readable`] is there. To the verifier it is a constant, and it
/// leaves out the way that is not taken; so it is a number in an instruction, which the agent changes, and not one in a map,
/// which would be read each time all the same.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn is_direct() -> bool {
    let answer: u64;
    // SAFETY: gives a register a value. Not `pure`, or the compiler would keep the answer in memory.
    unsafe {
        core::arch::asm!("{answer} = {no}", answer = out(reg) answer, no = const agent_common::direct::NO,
            options(nomem, nostack));
    }
    answer == agent_common::direct::YES as u64
}

/// A pointer at which any word of the kernel's memory can be read, by an instruction and not by a call; what cannot be read
/// is 0. Only if [`is_direct`]: elsewhere the call is none that any kernel knows, and must not be come to.
///
/// Of the cast's answer the verifier knows that it may be anything. A cast is the call of a function of the kernel, by the
/// id that this kernel gives it, which the agent writes in place of [`agent_common::direct::CALL`]; it becomes a move.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn readable(address: u64) -> *const u8 {
    let readable: *const u8;
    // SAFETY: moves its first argument, and has no effect; arguments and scratch registers are told to be lost.
    unsafe {
        core::arch::asm!(
            "r2 = 0",
            "call {call}",
            call = const agent_common::direct::CALL,
            inout("r1") address => _,
            out("r0") readable,
            out("r2") _,
            out("r3") _,
            out("r4") _,
            out("r5") _,
            options(nomem, nostack),
        );
    }
    readable
}
