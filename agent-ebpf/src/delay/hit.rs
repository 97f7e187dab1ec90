//! A hit's way through the rules that it satisfies. Where there is no `bpf_loop` the verifier goes through every round and
//! every branch in it, so rounds have as few as they can: what a rule makes of a hit is in `decide`.

use core::num::NonZero;

use agent_common::{
    pod::MAX_DELAY_NS,
    rules::{RULES as PLACES, Set},
};

use super::{
    decide::{EXEMPT, GRANTED_BIT, SHARE_SHIFT, book, book_share, share_of, smaller_cap},
    repeat::{Round, repeat},
};

/// A hit on its way through the rules.
pub struct Hit {
    /// Rules still to be asked.
    rules: Set,
    start_ns: u64,
    size: u64,
    /// Rules for which whoever is here is exempt; all, where too many waits were in a row.
    pub exempt: Set,
    pub row: u64,
    /// What the smallest cap of all leaves for further rules (ns).
    room_ns: u64,
    /// What there is to wait (ns).
    pub wait_ns: u64,
    /// Rules that have a share in it.
    pub granted: Set,
}

impl Hit {
    #[inline(always)]
    pub fn new(rules: Set, size: u64, start_ns: u64) -> Self {
        Self {
            rules,
            start_ns,
            size,
            exempt: 0,
            row: 0,
            room_ns: MAX_DELAY_NS,
            wait_ns: 0,
            granted: 0,
        }
    }

    /// Asks all rules: for their caps, as the smallest holds for all, then for their shares.
    #[inline(always)]
    pub fn ask(&mut self) {
        self.room_ns = smallest_cap(self.rules, self.size);
        repeat(PLACES as u32, self);
    }

    /// The wait is over: its error is in the books of the last rule that had a share.
    #[inline(always)]
    pub fn finish(&self, achieved_ns: u64) {
        let error_ns = achieved_ns.wrapping_sub(self.wait_ns);
        let mut rules = self.granted;
        let Some(first) = next(&mut rules) else {
            return;
        };
        if rules == 0 {
            // The usual case: as little as can be comes after the wait, as its time is on top of it. What was waited is
            // booked as it is, as another program on this CPU may have had a share of the same rule meanwhile.
            book(first, achieved_ns, error_ns);
            return;
        }
        book_shares(self.granted, error_ns);
    }
}

/// The next rule's share in a wait. What there is has no branches, of which each is a way more for a verifier that goes
/// through all rounds. Unlike the other loops this one is part of `serve`: it has more than one result.
impl Round for Hit {
    #[inline(always)]
    fn round(&mut self) -> bool {
        let Some(place) = next(&mut self.rules) else {
            return true;
        };
        let hindered = (((self.exempt >> place) & 1) * EXEMPT) | self.row;
        let answer = share_of(place, self.start_ns, self.size, self.room_ns, hindered);
        let share_ns = answer >> SHARE_SHIFT;
        self.wait_ns += share_ns;
        self.room_ns -= share_ns;
        self.granted |= (answer & GRANTED_BIT) << place;
        false
    }
}

/// Takes the next rule.
#[inline(always)]
fn next(rules: &mut Set) -> Option<u32> {
    let left = NonZero::new(*rules)?;
    *rules &= *rules - 1;
    Some(left.trailing_zeros())
}

/// The caps of rules.
struct Caps {
    rules: Set,
    size: u64,
    cap_ns: u64,
}

/// The smallest cap of these rules (ns). A global function, as `ruled` and for one reason more: what comes after a loop,
/// the verifier of a kernel without `bpf_loop` goes through once for each round that the loop may end after.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn smallest_cap(rules: u64, size: u64) -> u64 {
    let mut caps = Caps {
        rules,
        size,
        cap_ns: MAX_DELAY_NS,
    };
    repeat(PLACES as u32, &mut caps);
    caps.cap_ns
}

impl Round for Caps {
    #[inline(always)]
    fn round(&mut self) -> bool {
        let Some(place) = next(&mut self.rules) else {
            return true;
        };
        self.cap_ns = smaller_cap(place, self.size, self.cap_ns);
        false
    }
}

/// The books of rules that had shares in one wait.
struct Books {
    rules: Set,
    error_ns: u64,
}

/// Books what the shares of several rules came to, and the error of the whole wait (ns, two's complement) with the last
/// of them. A global function, see `smallest_cap`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn book_shares(rules: u64, error_ns: u64) -> u64 {
    let mut books = Books { rules, error_ns };
    repeat(PLACES as u32, &mut books);
    books.rules
}

impl Round for Books {
    #[inline(always)]
    fn round(&mut self) -> bool {
        let Some(place) = next(&mut self.rules) else {
            return true;
        };
        let error_ns = if self.rules == 0 { self.error_ns } else { 0 };
        book_share(place, error_ns);
        false
    }
}
