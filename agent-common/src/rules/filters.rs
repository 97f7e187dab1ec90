//! What filters ask for, and what the programs found out of it.

use super::{Kind, Set};

/// Longest name of a command that the kernel keeps, and a zero.
pub const COMM: usize = 16;

/// What a filter asks for: a key of the map `WANTED`, whose values are sets of rules.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// A [`Kind`]; for a cgroup with the place of its hierarchy in [`super::Control::hierarchy`] in the upper half.
    pub kind: u64,
    /// User, cgroup, inode, or device (`major << 20 | minor`).
    pub value: u64,
    /// The inode's device; the rest of a command.
    pub more: u64,
}

impl Wanted {
    #[must_use]
    pub const fn new(kind: Kind, value: u64, more: u64) -> Self {
        Self {
            kind: kind as u64,
            value,
            more,
        }
    }

    /// A command, as the kernel keeps it.
    #[must_use]
    pub fn comm(comm: [u8; COMM]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = comm;
        Self::new(
            Kind::Comm,
            u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            u64::from_le_bytes([i, j, k, l, m, n, o, p]),
        )
    }

    #[must_use]
    pub const fn cgroup(hierarchy: usize, id: u64) -> Self {
        Self {
            kind: Kind::Cgroup as u64 | (hierarchy as u64) << 32,
            value: id,
            more: 0,
        }
    }
}

/// Powers of two that a size can have, see [`power`].
pub const POWERS: usize = 65;

/// The power of two of a size: 0 for 0, else one more than its logarithm's whole part.
#[must_use]
pub const fn power(size: u64) -> u64 {
    (u64::BITS - size.leading_zeros()) as u64
}

/// Kinds of filters of which the programs first ask whether anybody wants a value like that: places of tables in
/// [`Maybe`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quick {
    Uid,
    Pid,
    Comm,
    Device,
    /// Of a directory, its inode alone, whatever device it is on.
    Inode,
    Under,
}

/// Entries of a table, of which one is 1 if a value that folds to its place is wanted.
const PLACES: usize = 1024;

/// Of tables, and as many more as make a power of two.
const TABLES: usize = 8;

/// An entry of the map `MAYBE`: 0 is the agent's, 1 what forks have added.
pub type Maybe = [u8; TABLES * PLACES];

/// Where a value is in a [`Maybe`].
#[inline(always)]
#[must_use]
pub const fn maybe(kind: Quick, value: u64, more: u64) -> usize {
    // Fibonacci hashing (Knuth, The Art of Computer Programming, 6.4): the upper bits of the product.
    let mixed = (value ^ more.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    kind as usize * PLACES + (mixed >> 54) as usize
}

/// Who submitted a request, as far as rules go: a value of the map `OWNERS`, by the request's first `bio`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The rules whose filters by task the submitter satisfies.
    pub rules: Set,
    /// The epoch in which that was so.
    pub epoch: u64,
}

/// What a CPU found out of a cgroup last: an entry of the per-CPU map `CGROUPS`, by [`CgroupRules::place`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupRules {
    /// Place of the hierarchy in [`super::Control::hierarchy`].
    pub hierarchy: u64,
    pub id: u64,
    /// The epoch in which it was found out.
    pub epoch: u64,
    /// The rules that it or an ancestor satisfies.
    pub rules: Set,
}

/// Entries of `CGROUPS`.
pub const CGROUPS: usize = 1024;

impl CgroupRules {
    /// Where a cgroup is remembered, which it shares with others.
    #[inline(always)]
    #[must_use]
    pub const fn place(hierarchy: u64, id: u64) -> u32 {
        ((id ^ hierarchy << 60).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::HIERARCHIES;

    #[test]
    fn a_size_has_the_power_of_its_highest_bit() {
        for (size, expected) in [(0, 0), (1, 1), (2, 2), (3, 2), (4096, 13), (u64::MAX, 64)] {
            assert_eq!(power(size), expected, "{size}");
        }
    }

    #[test]
    fn places_of_different_kinds_do_not_meet() {
        for value in [0, 1, 12_345, u64::MAX] {
            assert!(maybe(Quick::Uid, value, 0) < PLACES);
            assert_eq!(
                maybe(Quick::Pid, value, 0),
                maybe(Quick::Uid, value, 0) + PLACES
            );
            assert!(maybe(Quick::Comm, value, value) < 3 * PLACES);
            assert!(maybe(Quick::Under, value, 0) < size_of::<Maybe>());
        }
        assert_ne!(maybe(Quick::Uid, 1, 0), maybe(Quick::Uid, 2, 0));
    }

    #[test]
    fn every_cgroup_has_a_place() {
        for id in [0, 1, 12_345, u64::MAX] {
            for hierarchy in 0..HIERARCHIES as u64 {
                assert!((CgroupRules::place(hierarchy, id) as usize) < CGROUPS);
            }
        }
    }

    #[test]
    fn commands_differ_in_each_byte() {
        let mut comm = [b'a'; COMM];
        let all = Wanted::comm(comm);
        for place in 0..COMM {
            comm[place] = b'b';
            assert_ne!(Wanted::comm(comm), all);
            comm[place] = b'a';
        }
    }
}
