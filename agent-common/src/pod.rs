//! Plain-old-data that crosses the maps. Both sides read these bytes, so: `repr(C)`, only `u64`
//! fields, no padding.

/// What one CPU counted at one point: an entry of the per-CPU map `COUNTERS`, by slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The program ran for somebody other than the agent (count).
    pub hits: u64,
    /// Hits that waited (count).
    pub delayed: u64,
    /// Hits of the agent itself, never delayed, not in `hits` (count).
    pub exempt: u64,
    /// Hits that should have waited, but the lease had run out (count).
    pub lease_expired: u64,
    /// Waits that ended before their time because the loop's bound was reached (count).
    pub short: u64,
    /// Sum of the waits that were asked for (ns).
    pub requested_ns: u64,
    /// Sum of the waits that were done, by the kernel's clock (ns).
    pub achieved_ns: u64,
    /// The largest `achieved - requested` of one hit (ns).
    pub error_max_ns: u64,
}

impl Counters {
    /// Adds what another CPU counted.
    pub fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.delayed += other.delayed;
        self.exempt += other.exempt;
        self.lease_expired += other.lease_expired;
        self.short += other.short;
        self.requested_ns += other.requested_ns;
        self.achieved_ns += other.achieved_ns;
        self.error_max_ns = self.error_max_ns.max(other.error_max_ns);
    }
}

/// The longest wait that the kernel side does in one hit, whatever `CONTROL` holds (ns).
pub const MAX_DELAY_NS: u64 = 1_000_000_000;

#[cfg(feature = "user")]
mod user {
    // SAFETY: repr(C), only u64 fields, no padding: any bytes are a value.
    unsafe impl aya::Pod for super::Counters {}
}
