//! Input that was well formed before it was changed at random, for tests of what reads that which others write. The same
//! number gives the same input, so a failure can be had again.

use agent_common::quantiles::random;

/// Changes of one input at most.
const CHANGES: u64 = 6;
/// What is put in: what ends things too early, what no number should be, and what no text should have.
const PIECES: [&[u8]; 20] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\0",
    b"\n",
    b"\xff\xfe",
    b"-1",
    b"0",
    b"1e308",
    b"18446744073709551615",
    b"18446744073709551616",
    b"0.5",
    b"null",
    b"true",
    b"\\u0000",
];

/// The changed input of that number.
#[must_use]
pub fn mutated(seeds: &[&[u8]], number: u64) -> Vec<u8> {
    let mut drawn = 0;
    let mut below = |bound: usize| {
        drawn += 1;
        (random(number, drawn) % bound.max(1) as u64) as usize
    };
    let mut bytes = seeds[below(seeds.len())].to_vec();
    for _ in 0..=below(CHANGES as usize) {
        let place = below(bytes.len() + 1);
        let end = place + below(bytes.len() - place + 1);
        match below(6) {
            0 => bytes.truncate(place),
            1 => drop(bytes.drain(place..end)),
            2 => {
                let piece = PIECES[below(PIECES.len())];
                drop(bytes.splice(place..place, piece.iter().copied()));
            }
            3 => {
                let piece = PIECES[below(PIECES.len())];
                drop(bytes.splice(place..end, piece.iter().copied()));
            }
            4 => {
                let twice = bytes[place..end].to_vec();
                drop(bytes.splice(end..end, twice));
            }
            _ => {
                let bit = below(8);
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << bit;
                }
            }
        }
    }
    bytes
}

/// As [`mutated`], for what is made of words of 4 bytes: some become others, and few come or go.
#[must_use]
pub fn mutated_words(seeds: &[&[u8]], number: u64) -> Vec<u8> {
    let mut drawn = 0;
    let mut below = |bound: usize| {
        drawn += 1;
        (random(!number, drawn) % bound.max(1) as u64) as usize
    };
    let mut bytes = seeds[below(seeds.len())].to_vec();
    for _ in 0..=below(CHANGES as usize) {
        let place = below(bytes.len() / 4) * 4;
        let other = below(bytes.len() / 4) * 4;
        let Some(word) = bytes.get(place..place + 4) else {
            break;
        };
        let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        let word = match below(8) {
            0 => below(40) as u32,
            1 => word.wrapping_add(1),
            2 => word.wrapping_sub(1),
            3 => [u32::MAX, 1 << 31, 0xffff, 0xff_ffff][below(4)],
            4 => word ^ 1 << below(32),
            // The kind of a type, or the length of its list.
            5 => word & 0xff_ffff | (below(20) as u32) << 24,
            6 => word & 0xffff_0000 | below(8) as u32,
            _ => {
                bytes.copy_within(other..other + 4, place);
                continue;
            }
        };
        bytes[place..place + 4].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}
