//! Log-linear buckets: [`SUB_BUCKETS`] of equal width in each power of two.
//!
//! A bucket is at most 12.5 % wide (1/8 of its lower edge), so the middle of a bucket is at most
//! 6.25 % away from any value in it. Values below 8 have a bucket of their own. Every `u64` has a
//! bucket; there is no overflow bucket. The scheme is that of HdrHistogram with three bits of
//! sub-bucket, and the edges are `[lower, upper)`.

/// log2 of [`SUB_BUCKETS`].
pub const SUB_BITS: u32 = 3;
/// Buckets in one power of two.
pub const SUB_BUCKETS: u32 = 1 << SUB_BITS;
/// Buckets of a histogram: 8 for the values 0 to 7, and 8 for each power of two from 2^3 to 2^63.
pub const BUCKETS: usize = ((64 - SUB_BITS as usize) << SUB_BITS) + SUB_BUCKETS as usize;

/// Values below this are in the first [`SHORT_BUCKETS`]: 17 s in ns, the sum of two 32-bit numbers.
pub const SHORT: u64 = 1 << 34;
/// A power of two, as what keeps an index below it is then one instruction.
pub const SHORT_BUCKETS: usize = 256;

const _: () = assert!(index(SHORT - 1) < SHORT_BUCKETS as u32);

/// The bucket that holds `value`, in `0..BUCKETS`.
///
/// eBPF has no instruction that counts zeros, and `leading_zeros` becomes a count of bits: see `log2` for less. A search
/// bit by bit is no way out: LLVM makes branches of it, and the verifier of 6.1 takes bounds that contradict each other on
/// those that are never taken for a pointer gone wild.
#[inline(always)]
#[must_use]
pub const fn index(value: u64) -> u32 {
    if value < SUB_BUCKETS as u64 {
        return value as u32;
    }
    let exponent = log2(value);
    let sub = (value >> (exponent - SUB_BITS)) as u32 & (SUB_BUCKETS - 1);
    ((exponent - SUB_BITS + 1) << SUB_BITS) + sub
}

/// A de Bruijn sequence: spreads the 64 values of `2^(n+1) - 1` over the 64 values of their products' top six bits.
const SPREAD: u64 = 0x03f7_9d71_b4cb_0a89;

/// `n` by those bits.
static LOG2: [u8; 64] = {
    let mut table = [0; 64];
    let mut n = 0;
    while n < 64 {
        let ones = u64::MAX >> (63 - n);
        table[(ones.wrapping_mul(SPREAD) >> 58) as usize] = n;
        n += 1;
    }
    table
};

/// The place of the highest bit of `value`, which is not 0.
#[inline(always)]
const fn log2(value: u64) -> u32 {
    let mut ones = value | value >> 1;
    ones |= ones >> 2;
    ones |= ones >> 4;
    ones |= ones >> 8;
    ones |= ones >> 16;
    ones |= ones >> 32;
    LOG2[(ones.wrapping_mul(SPREAD) >> 58) as usize] as u32
}

/// The smallest value of a bucket.
#[must_use]
pub const fn lower(index: u32) -> u64 {
    if index < SUB_BUCKETS {
        return index as u64;
    }
    let shift = (index >> SUB_BITS) - 1;
    ((SUB_BUCKETS + (index & (SUB_BUCKETS - 1))) as u64) << shift
}

/// The largest value of a bucket (inclusive: the last bucket ends at `u64::MAX`).
#[must_use]
pub const fn last(index: u32) -> u64 {
    if index as usize + 1 >= BUCKETS {
        return u64::MAX;
    }
    lower(index + 1) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchor_10_every_power_of_two_and_its_neighbours_lie_inside_their_bucket() {
        for exponent in 0..64 {
            let power = 1u64 << exponent;
            for value in [power - 1, power, power.wrapping_add(1), power | power >> 1] {
                let bucket = index(value);
                assert!((bucket as usize) < BUCKETS, "{value} -> {bucket}");
                assert!(lower(bucket) <= value, "{value}: lower {}", lower(bucket));
                assert!(value <= last(bucket), "{value}: last {}", last(bucket));
            }
        }
        assert_eq!(index(u64::MAX) as usize, BUCKETS - 1);
    }

    #[test]
    fn buckets_are_contiguous_and_in_order() {
        for bucket in 0..BUCKETS as u32 {
            assert_eq!(index(lower(bucket)), bucket);
            assert_eq!(index(last(bucket)), bucket);
            if bucket > 0 {
                assert_eq!(last(bucket - 1) + 1, lower(bucket));
            }
        }
        assert_eq!(lower(0), 0);
        assert_eq!(last(BUCKETS as u32 - 1), u64::MAX);
    }

    #[test]
    fn no_bucket_is_wider_than_an_eighth_of_its_lower_edge() {
        for bucket in SUB_BUCKETS..BUCKETS as u32 {
            let width = last(bucket) - lower(bucket) + 1;
            assert!(width <= lower(bucket) / 8, "bucket {bucket}: width {width}");
        }
    }
}
