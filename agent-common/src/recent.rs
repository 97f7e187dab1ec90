//! What each CPU recorded last: written down, and put into its histograms [`ENTRIES`] at a time.
//!
//! A histogram is far from whatever else a CPU is doing: to record a request in four of them touches a line of the cache for
//! each and one for the exact figures, of which few are still in it by the next request. An entry here is a quarter of a
//! line, beside the one before it; and by the time that many go into the histograms, most go to the same lines.
//!
//! Map `RECENT` (declared in `agent-ebpf/src/recent.rs`): an array with a [`Recent`] for each CPU. Not mapped into user space's
//! memory: what is mapped, and what is larger than 32 KiB, the kernel has in small pages, and for one of these a CPU mostly
//! has to walk the page table again. A probe that has it tells what an entry's metrics are (`Probe::recent`).
//!
//! Who reads takes a CPU's state, then the histograms, then the state again. If nothing was moved since the first
//! ([`Recent::holds`]), what is in no histogram yet are the second's entries up to the first's [`Recent::pending`]: those are
//! whole, in whatever order a state's words are copied.

/// Entries of a CPU before they go into its histograms: a power of two.
pub const ENTRIES: usize = 32;

/// What was recorded at once, in one series.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub slot: u32,
    /// What they are is the probe's own.
    pub values: [u32; 3],
}

/// Of one CPU. Where the kernel's maps begin 8 bytes before the end of a line of the cache (6.18), what each record needs is in
/// one line, and each entry in one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Recent {
    pub reserved: u64,
    /// Entries since the probe was loaded (count). That many events were completed.
    pub appended: u64,
    /// Twice the times that entries were put into histograms, and odd while they are.
    pub moves: u64,
    /// The probe's own.
    pub own: [u64; 6],
    /// The entry that is `n`th from the first is at `n % ENTRIES`.
    pub entries: [Entry; ENTRIES],
    pub padding: [u64; 7],
}

const _: () = assert!(ENTRIES.is_power_of_two());
const _: () = assert!(size_of::<Recent>() == 128 + 16 * ENTRIES);

impl Recent {
    /// Entries that are in no histogram yet: the first ones of the array (count).
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.appended as usize % ENTRIES
    }

    /// Whether no entry went into a histogram from here to `later`.
    #[must_use]
    pub const fn holds(&self, later: &Self) -> bool {
        let rounds = self.moves / 2;
        // The words of a state may have been copied at different times, with a move between.
        let whole = self.moves.is_multiple_of(2) && self.appended / ENTRIES as u64 == rounds;
        whole && later.moves == self.moves
    }
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: repr(C), integers only, no padding (asserted by the size): any bytes are a value.
    unsafe impl aya::Pod for super::Recent {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(appended: u64, moves: u64) -> Recent {
        Recent {
            reserved: 0,
            appended,
            moves,
            own: [0; 6],
            entries: [Entry::default(); ENTRIES],
            padding: [0; 7],
        }
    }

    #[test]
    fn a_state_holds_until_entries_are_moved() {
        let full = ENTRIES as u64;
        assert!(state(0, 0).holds(&state(full - 1, 0)));
        assert!(state(full + 1, 2).holds(&state(full + 5, 2)));
        assert!(!state(full - 1, 0).holds(&state(full - 1, 1)));
        assert!(!state(full - 1, 0).holds(&state(full, 2)));
        assert!(!state(full - 1, 1).holds(&state(full - 1, 1)));
        assert_eq!(state(full, 2).pending(), 0);
        assert_eq!(state(2 * full - 1, 2).pending(), ENTRIES - 1);
    }

    #[test]
    fn a_state_of_two_moments_holds_for_none() {
        let full = ENTRIES as u64;
        // The count from before a move, the rest from after it; and the other way round.
        assert!(!state(full - 1, 2).holds(&state(full, 2)));
        assert!(!state(full, 0).holds(&state(full, 2)));
    }
}
