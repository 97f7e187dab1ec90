//! What the programs count of rules.

/// What one CPU counted for one rule: an entry of the per-CPU map `TALLIES`, by place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Hits at the rule's points that satisfied all its filters (count). The sum of the seven that follow.
    pub matches: u64,
    /// Delayed (count).
    pub hits: u64,
    /// Left out by `chance` or `every` (count).
    pub spared: u64,
    /// Past the rule's end or its `max_hits` (count).
    pub ended: u64,
    /// The lease had run out (count).
    pub lease: u64,
    /// The CPU's budget was used up (count).
    pub budget: u64,
    /// Too many waits in a row, in which the CPU could do nothing else (count).
    pub row: u64,
    /// Never delayed: the agent, its commands, PID 1, or in an interrupt (count).
    pub exempt: u64,
    /// Of `hits`, those whose delay the cap cut short (count).
    pub capped: u64,
    /// Of `hits`, those that ended before their time because the loop's bound was reached (count).
    pub short: u64,
    /// Sum of the delays of the hits as the rule has them, before the cap (ns).
    pub asked_ns: u64,
    /// Sum of the delays that were done (ns).
    pub achieved_ns: u64,
    /// The budget's account: ns that may be burnt, below 0 what was burnt too much (two's complement).
    pub account_ns: u64,
    /// Time of the account (ns).
    pub account_at_ns: u64,
    /// The share in the wait that is going on (ns).
    pub share_ns: u64,
}

/// What became of a match: the place of its count among the words of a [`Tally`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Hit = 1,
    Spared,
    Ended,
    Lease,
    Budget,
    Row,
    Exempt,
}

impl Tally {
    /// Adds what another CPU counted. Accounts are each CPU's own.
    pub fn add(&mut self, other: &Self) {
        self.matches += other.matches;
        self.hits += other.hits;
        self.spared += other.spared;
        self.ended += other.ended;
        self.lease += other.lease;
        self.budget += other.budget;
        self.row += other.row;
        self.exempt += other.exempt;
        self.capped += other.capped;
        self.short += other.short;
        self.asked_ns += other.asked_ns;
        self.achieved_ns += other.achieved_ns;
    }
}

/// What numbers the matches and hits of a rule, on all CPUs: an entry of the map `TICKETS`, by place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tickets {
    pub matches: u64,
    pub hits: u64,
    /// A cache line each.
    pub fill: [u64; 6],
}

/// Waits after which a CPU had no chance to do anything else: the only entry of the per-CPU map `ROW`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Task and thread group that waited.
    pub task: u64,
    /// How often that task had been switched.
    pub switches: u64,
    /// Sum of its waits since (ns).
    pub waited_ns: u64,
}

/// Longest row of waits (ns): the kernel takes a CPU that does nothing else for 20 s for locked up.
pub const ROW_NS: u64 = 5_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_are_places_of_counts() {
        let tally = Tally {
            hits: 1,
            exempt: 7,
            ..Tally::default()
        };
        // SAFETY: repr(C), of u64 only.
        let words = unsafe { *(&raw const tally).cast::<[u64; 8]>() };
        assert_eq!(words[Fate::Hit as usize], 1);
        assert_eq!(words[Fate::Exempt as usize], 7);
    }
}
