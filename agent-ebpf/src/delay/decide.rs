//! What each rule that a hit satisfies makes of it: how long to wait, or why not.

use agent_common::{
    quantiles::{KNOTS, between, place, random},
    rules::{ALWAYS, Control, Fate, RULES as PLACES, Rule, Set, Tally, Tickets, WHOLE},
};
use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray},
};

#[map]
static RULES: Array<Rule> = Array::with_max_entries(PLACES as u32, 0);

#[map]
static TALLIES: PerCpuArray<Tally> = PerCpuArray::with_max_entries(PLACES as u32, 0);

#[map]
static TICKETS: Array<Tickets> = Array::with_max_entries(PLACES as u32, 0);

/// Tables of those rules that draw: by place, `KNOTS` each (ns).
#[map]
static QUANTILES: Array<u64> = Array::with_max_entries((PLACES * KNOTS) as u32, 0);

/// A hit on its way through the rules.
pub struct Hit {
    /// Rules still to be asked.
    pub rules: Set,
    pub start_ns: u64,
    pub lease_until_ns: u64,
    /// As of [`agent_common::rules::Owner`].
    pub owner_epoch: u64,
    pub size: u64,
    /// Rules for which whoever is here is exempt.
    pub exempt: Set,
    /// Rules that filter by size, and by who submitted.
    pub by_size: Set,
    pub owned: Set,
    /// 1: too many waits in a row already.
    pub row: u64,
    /// The smallest cap of all (ns).
    pub cap_ns: u64,
    /// What there is to wait (ns).
    pub wait_ns: u64,
    /// The last rule that has a share in it, and its share (ns).
    pub last: u64,
    pub last_ns: u64,
}

/// No rule, as [`Hit::last`].
pub const NONE: u64 = u64::MAX;

impl Hit {
    /// The rules of a hit that satisfies all their filters but the sizes and the owner's epoch.
    #[inline(always)]
    pub fn new(control: &Control, rules: Set, owner_epoch: u64, size: u64, start_ns: u64) -> Self {
        Self {
            rules,
            start_ns,
            lease_until_ns: control.lease_until_ns,
            owner_epoch,
            size,
            exempt: control.zero,
            by_size: control.by[agent_common::rules::Kind::Size as usize],
            owned: control.owned,
            row: control.zero,
            cap_ns: control.zero.wrapping_sub(1),
            wait_ns: control.zero,
            last: NONE | control.zero,
            last_ns: control.zero,
        }
    }

    /// Takes the next rule.
    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        if self.rules == 0 {
            return None;
        }
        let lowest = self.rules & self.rules.wrapping_neg();
        self.rules ^= lowest;
        Some(63 - lowest.leading_zeros())
    }

    #[inline(always)]
    fn concerns(&self, rule: &Rule, bit: Set) -> bool {
        if self.by_size & bit != 0 && !(rule.size_min <= self.size && self.size <= rule.size_max) {
            return false;
        }
        self.owned & bit == 0 || rule.epoch <= self.owner_epoch
    }

    /// Asks the next rule for its cap: 1 when there is none left.
    #[inline(always)]
    pub fn ask_cap(&mut self) -> i64 {
        let Some(place) = self.next() else {
            return 1;
        };
        if let Some(rule) = RULES.get(place)
            && self.concerns(rule, 1 << place)
        {
            self.cap_ns = self.cap_ns.min(rule.cap_ns);
        }
        0
    }

    /// Asks the next rule for its share of the wait: 1 when there is none left.
    #[inline(always)]
    pub fn ask(&mut self) -> i64 {
        let Some(place) = self.next() else {
            return 1;
        };
        let (Some(rule), Some(tally)) = (RULES.get(place), TALLIES.get_ptr_mut(place)) else {
            return 0;
        };
        let bit = 1 << place;
        if !self.concerns(rule, bit) {
            return 0;
        }
        // SAFETY: this CPU's own entry; see `delay.rs` on programs that run inside one another.
        let tally = unsafe { &mut *tally };
        tally.matches += 1;
        let fate = self.fate(rule, tally, bit, place);
        // By number, so that the verifier need not go on once for each.
        if fate <= Fate::Exempt as u32 {
            // SAFETY: a word of the entry.
            unsafe { *(&raw mut *tally).cast::<u64>().add(fate as usize) += 1 };
        }
        0
    }

    /// What becomes of a match. Its share is in the wait if it is a hit.
    #[inline(always)]
    fn fate(&mut self, rule: &Rule, tally: &mut Tally, bit: Set, place: u32) -> u32 {
        if self.start_ns >= rule.until_ns {
            return Fate::Ended as u32;
        }
        if self.start_ns >= self.lease_until_ns {
            return Fate::Lease as u32;
        }
        if self.exempt & bit != 0 {
            return Fate::Exempt as u32;
        }
        let mut drawn = 0;
        if rule.chance < ALWAYS || rule.every > 1 || rule.drawn != 0 {
            let ticket = ticket(place, Ticket::Match);
            let number = random(rule.seed, ticket * 2);
            if number >> 32 >= rule.chance || !(ticket + 1).is_multiple_of(rule.every.max(1)) {
                return Fate::Spared as u32;
            }
            drawn = random(rule.seed, ticket * 2 + 1);
        }
        if self.row != 0 {
            return Fate::Row as u32;
        }
        if rule.budget < WHOLE && !affords(rule, tally, self.start_ns) {
            return Fate::Budget as u32;
        }
        if rule.max_hits != u64::MAX && ticket(place, Ticket::Hit) >= rule.max_hits {
            return Fate::Ended as u32;
        }
        let asked_ns = if rule.drawn != 0 {
            draw(place, drawn)
        } else {
            rule.delay_ns
        };
        self.grant(tally, place, ramped(rule, asked_ns, self.start_ns));
        Fate::Hit as u32
    }

    /// Adds the rule's share, as far as the cap leaves room.
    #[inline(always)]
    fn grant(&mut self, tally: &mut Tally, place: u32, asked_ns: u64) {
        let room = self.cap_ns.saturating_sub(self.wait_ns);
        let share_ns = asked_ns.min(room);
        tally.asked_ns += asked_ns;
        tally.capped += u64::from(share_ns < asked_ns);
        tally.account_ns = tally.account_ns.wrapping_sub(share_ns);
        self.wait_ns += share_ns;
        if self.last != NONE {
            granted(self.last as u32, self.last_ns);
        }
        self.last = place.into();
        self.last_ns = share_ns;
    }
}

/// What a rule's hits waited: see [`achieved`].
#[map]
static TIMES: PerCpuArray<u64> =
    PerCpuArray::with_max_entries((PLACES * agent_common::bucket::BUCKETS) as u32, 0);

/// A share that is done whatever comes after it in the same wait.
#[inline(always)]
fn granted(place: u32, share_ns: u64) {
    if let Some(tally) = TALLIES.get_ptr_mut(place) {
        // SAFETY: this CPU's own entry.
        unsafe { (*tally).achieved_ns += share_ns };
    }
    count_time(place, share_ns);
}

#[inline(always)]
fn count_time(place: u32, ns: u64) {
    let key = place * agent_common::bucket::BUCKETS as u32 + agent_common::bucket::index(ns);
    if let Some(count) = TIMES.get_ptr_mut(key) {
        // SAFETY: this CPU's own word.
        unsafe { *count += 1 };
    }
}

/// The wait is over: the last rule's share is what is left of it, so the wait's error is in that rule's books.
#[inline(always)]
pub fn achieved(hit: &Hit, achieved_ns: u64) {
    let ns = (hit.last_ns + achieved_ns).saturating_sub(hit.wait_ns);
    let place = hit.last as u32;
    if let Some(tally) = TALLIES.get_ptr_mut(place) {
        // SAFETY: this CPU's own entry.
        let tally = unsafe { &mut *tally };
        tally.achieved_ns += ns;
        tally.short += u64::from(achieved_ns < hit.wait_ns);
    }
    count_time(place, ns);
}

/// What is numbered: the place of its number in [`Tickets`].
#[derive(Clone, Copy)]
enum Ticket {
    Match = 0,
    Hit = 1,
}

/// Takes a number of the rule's: each is given once, on whatever CPU.
#[inline(always)]
fn ticket(place: u32, of: Ticket) -> u64 {
    let Some(tickets) = TICKETS.get_ptr_mut(place) else {
        return 0;
    };
    // SAFETY: a word of the entry that the kernel gave.
    agent_ebpf::fetch_add(unsafe { tickets.cast::<u64>().add(of as usize) }, 1)
}

/// Longest credit of an account (ns): what was not burnt earlier cannot be burnt all at once later.
const CREDIT_NS: i64 = 1_000_000;
/// Time for which an account is credited at most (ns); it is full long before.
const PAUSE_NS: u64 = 1 << 40;

/// Whether this CPU's account is not overdrawn. It earns its share of the time that passes, and a wait may overdraw
/// it: so what is burnt is at most the share, but for the last wait.
#[inline(always)]
fn affords(rule: &Rule, tally: &mut Tally, now_ns: u64) -> bool {
    let elapsed = now_ns.saturating_sub(tally.account_at_ns).min(PAUSE_NS);
    // 2^40 * 2^16 is far below 2^63.
    let earned = ((elapsed * rule.budget) >> 16) as i64;
    let mut account = (tally.account_ns as i64).wrapping_add(earned);
    if account > CREDIT_NS {
        account = CREDIT_NS;
    }
    tally.account_ns = account as u64;
    tally.account_at_ns = now_ns;
    account >= 0
}

/// A value of the rule's distribution (ns).
#[inline(always)]
fn draw(rule: u32, random: u64) -> u64 {
    let (knot, fraction) = place(random);
    let first = rule * KNOTS as u32 + knot;
    match (QUANTILES.get(first), QUANTILES.get(first + 1)) {
        (Some(low), Some(high)) => between(*low, *high, fraction),
        _ => 0,
    }
}

/// The part of a delay that is due so long after the rule came.
#[inline(always)]
fn ramped(rule: &Rule, delay_ns: u64, now_ns: u64) -> u64 {
    let age_ns = now_ns.saturating_sub(rule.start_ns);
    if age_ns >= rule.ramp_ns {
        return delay_ns;
    }
    // Of 2^16, at most: a ramp is below 2^47 ns, some 39 hours.
    let part = (age_ns << 16) / rule.ramp_ns;
    (delay_ns * part) >> 16
}
