//! What each rule that a hit satisfies makes of it: how long to wait, or why not.

use agent_common::{
    bucket,
    quantiles::{KNOTS, between, place, random},
    rules::{ALWAYS, Fate, RULES as PLACES, Rule, Tally, Tickets, WHOLE},
};
use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray},
};

use super::CONTROL;
use crate::BOUNDED;

#[map]
static RULES: Array<Rule> = Array::with_max_entries(PLACES as u32, 0);

#[map]
static TALLIES: PerCpuArray<Tally> = PerCpuArray::with_max_entries(PLACES as u32, 0);

#[map]
static TICKETS: Array<Tickets> = Array::with_max_entries(PLACES as u32, 0);

/// Tables of those rules that draw: by place, `KNOTS` each, with the next knot beside it (ns).
#[map]
static QUANTILES: Array<[u64; 2]> = Array::with_max_entries((PLACES * KNOTS) as u32, 0);

/// What each rule's hits waited: counts by bucket, `BUCKETS` for each place.
#[map]
static TIMES: PerCpuArray<u64> =
    PerCpuArray::with_max_entries((PLACES * bucket::BUCKETS) as u32, 0);

/// The rule's cap, if it is for that size and below `cap_ns` (ns). A global function, see `smallest_cap`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn smaller_cap(place: u32, size: u64, cap_ns: u64) -> u64 {
    match RULES.get(place) {
        Some(rule) if concerns(rule, size) => cap_ns.min(rule.cap_ns),
        _ => cap_ns,
    }
}

/// Whether a rule, which the filters may have let pass by the size's power of two only, is for this size.
#[inline(always)]
fn concerns(rule: &Rule, size: u64) -> bool {
    rule.size_min <= size && size <= rule.size_max
}

/// What hinders all rules at a hit.
pub const EXEMPT: u64 = 1;
pub const ROW: u64 = 2;
/// A rule's answer: whether it has a share in a wait, and from this bit on the share.
pub const GRANTED_BIT: u64 = 1;
pub const SHARE_SHIFT: u32 = 1;

/// The share of the rule in a wait (ns), at most `room_ns`, as [`SHARE_SHIFT`] says. A global function, see `ruled`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn share_of(
    place: u32,
    start_ns: u64,
    size: u64,
    room_ns: u64,
    hindered: u64,
) -> u64 {
    let (Some(rule), Some(tally)) = (RULES.get(place), TALLIES.get_ptr_mut(place)) else {
        return 0;
    };
    if !concerns(rule, size) {
        return 0;
    }
    // SAFETY: this CPU's own entry; see `delay.rs` on programs that run inside one another.
    let tally = unsafe { &mut *tally };
    tally.matches += 1;
    let mut answer = 0;
    let fate = match asked_ns(rule, tally, place, start_ns, hindered) {
        Ok(asked_ns) => {
            let share_ns = asked_ns.min(room_ns);
            answer = share_ns << SHARE_SHIFT | GRANTED_BIT;
            tally.asked_ns += asked_ns;
            tally.capped += u64::from(share_ns < asked_ns);
            tally.account_ns = tally.account_ns.wrapping_sub(share_ns);
            tally.share_ns = share_ns;
            Fate::Hit
        }
        Err(fate) => fate,
    };
    // SAFETY: a word of the entry.
    unsafe { *(&raw mut *tally).cast::<u64>().add(fate as usize) += 1 };
    answer
}

/// What a rule asks for (ns), or why it asks for nothing.
#[inline(always)]
fn asked_ns(
    rule: &Rule,
    tally: &mut Tally,
    place: u32,
    start_ns: u64,
    hindered: u64,
) -> Result<u64, Fate> {
    if start_ns >= rule.until_ns {
        return Err(Fate::Ended);
    }
    if start_ns >= CONTROL.get().lease_until_ns {
        return Err(Fate::Lease);
    }
    if hindered & EXEMPT != 0 {
        return Err(Fate::Exempt);
    }
    let mut drawn = 0;
    if rule.chance < ALWAYS || rule.every > 1 || rule.drawn != 0 {
        let ticket = ticket(place, Ticket::Match);
        let number = random(rule.seed, ticket * 2);
        if number >> 32 >= rule.chance || !(ticket + 1).is_multiple_of(rule.every.max(1)) {
            return Err(Fate::Spared);
        }
        drawn = random(rule.seed, ticket * 2 + 1);
    }
    if hindered & ROW != 0 {
        return Err(Fate::Row);
    }
    if rule.budget < WHOLE && !affords(rule, tally, start_ns) {
        return Err(Fate::Budget);
    }
    if rule.max_hits != u64::MAX && ticket(place, Ticket::Hit) >= rule.max_hits {
        return Err(Fate::Ended);
    }
    let whole_ns = if rule.drawn != 0 {
        draw(place, drawn)
    } else {
        rule.delay_ns
    };
    Ok(ramped(rule, whole_ns, start_ns))
}

/// Books what a rule's share of several came to: itself, and an error (ns, two's complement). A global function, see
/// `smallest_cap`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn book_share(place: u32, error_ns: u64) -> u64 {
    match TALLIES.get(place) {
        Some(tally) => book(place, tally.share_ns.wrapping_add(error_ns), error_ns),
        None => 0,
    }
}

/// Books what a rule's share came to (ns). A global function, see `ruled`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn book(place: u32, ns: u64, error_ns: u64) -> u64 {
    let Some(tally) = TALLIES.get_ptr_mut(place) else {
        return 0;
    };
    // SAFETY: this CPU's own entry.
    let tally = unsafe { &mut *tally };
    tally.short += error_ns >> 63;
    tally.achieved_ns = tally.achieved_ns.wrapping_add(ns);
    let key = place * bucket::BUCKETS as u32 + bucket::index(ns);
    if let Some(count) = TIMES.get_ptr_mut(key) {
        // SAFETY: this CPU's own word.
        unsafe { *count += 1 };
    }
    ns
}

/// What is numbered: the place of its number in [`Tickets`].
#[derive(Clone, Copy)]
enum Ticket {
    Match = 0,
    Hit = 1,
}

/// Takes a number of the rule's: each is given once, on whatever CPU, where the kernel can tell what was there before
/// it added (since 5.12).
#[inline(always)]
fn ticket(place: u32, of: Ticket) -> u64 {
    let Some(tickets) = TICKETS.get_ptr_mut(place) else {
        return 0;
    };
    // SAFETY: a word of the entry that the kernel gave.
    let word = unsafe { tickets.cast::<u64>().add(of as usize) };
    if BOUNDED {
        // Two CPUs may be given the same number.
        // SAFETY: as above.
        let number = unsafe { word.read_volatile() };
        agent_ebpf::add(word, 1);
        return number;
    }
    agent_ebpf::fetch_add(word, 1)
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
    match QUANTILES.get(rule * KNOTS as u32 + knot) {
        Some([low, high]) => between(*low, *high, fraction),
        None => 0,
    }
}

/// The part of a delay that is due so long after the rule came.
#[inline(always)]
fn ramped(rule: &Rule, delay_ns: u64, now_ns: u64) -> u64 {
    let age_ns = now_ns.saturating_sub(rule.start_ns);
    if age_ns >= rule.ramp_ns {
        return delay_ns;
    }
    // Of 2^16, at most: a ramp is no longer than a day, below 2^47 ns.
    let part = (age_ns << 16) / rule.ramp_ns;
    (delay_ns * part) >> 16
}
