//! A distribution as a table of its quantiles, from which the kernel side draws.
//!
//! The first [`BODY`] knots are the quantiles `k / 1024`; the last 1024 cells divide the highest of these once more, so
//! that the tail is known to about one in a million.

/// Cells of the body, of which the last is the tail's.
const CELLS: u64 = 1024;
/// Knots of the body: quantiles `k / 1024`.
pub const BODY: usize = CELLS as usize - 1;
/// Knots of the table.
pub const KNOTS: usize = BODY + CELLS as usize + 1;

/// The probability of a knot: the share of draws that are at most its value.
#[must_use]
pub fn probability(knot: usize) -> f64 {
    let cells = CELLS as f64;
    if knot < BODY {
        knot as f64 / cells
    } else {
        (BODY as f64 + (knot - BODY) as f64 / cells) / cells
    }
}

/// Where a draw lies: the knot below it, and how far it is from there to the next (of 2^16).
#[inline(always)]
#[must_use]
pub const fn place(random: u64) -> (u32, u64) {
    let cell = random >> 54;
    let fraction = random & 0xffff;
    if cell < BODY as u64 {
        (cell as u32, fraction)
    } else {
        (
            (BODY as u64 + (random >> 44 & (CELLS - 1))) as u32,
            fraction,
        )
    }
}

/// The value between two knots.
#[inline(always)]
#[must_use]
pub const fn between(low: u64, high: u64, fraction: u64) -> u64 {
    // Delays are at most 2^30 ns, so nothing overflows.
    low + ((high.wrapping_sub(low) * fraction) >> 16)
}

/// The number that belongs to the `ticket`th draw of a seed: splitmix64 (Steele, Lea, Flood: Fast Splittable
/// Pseudorandom Number Generators, OOPSLA 2014).
#[inline(always)]
#[must_use]
pub const fn random(seed: u64, ticket: u64) -> u64 {
    let mut z = seed.wrapping_add(ticket.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knots_ascend_from_0_to_1() {
        assert_eq!(probability(0), 0.0);
        assert_eq!(probability(KNOTS - 1), 1.0);
        for knot in 1..KNOTS {
            assert!(probability(knot) > probability(knot - 1), "{knot}");
        }
    }

    #[test]
    fn every_place_has_a_knot_above_it() {
        for random in [
            0,
            1 << 54,
            u64::MAX,
            0xffbf_ffff_ffff_ffff,
            0xffc0_0000_0000_0000,
        ] {
            let (knot, fraction) = place(random);
            assert!((knot as usize) < KNOTS - 1);
            assert!(fraction < 1 << 16);
        }
        assert_eq!(place(u64::MAX).0 as usize, KNOTS - 2);
        assert_eq!(place(0xffc0_0000_0000_0000).0 as usize, BODY);
    }
}
