//! BTF with one fault each.

use super::{Btf, CONST, FLAG, FUNC, FUNC_PROTO, FWD, INT, PTR, STRUCT, TYPEDEF, UNION, sound};

/// Its name, and words of the refusal.
type Named = (&'static str, &'static str);
/// What makes it, behind an integer of 4 bytes.
type Fault = (Named, fn(&mut Btf) -> u32);

/// Each way to be wrong that is known: its name, words of the refusal, and the bytes.
#[must_use]
pub fn hostile() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut all = broken();
    for ((name, words), make) in FAULTS.into_iter().chain(BOMBS) {
        let mut btf = Btf::default();
        btf.integer(4);
        make(&mut btf);
        all.push((name, words, btf.bytes()));
    }
    all
}

/// As a whole: no BTF, cut, or with a header that is wrong.
fn broken() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let sound = sound();
    let bytes = sound.bytes();
    let (types, strings) = (sound.types.len() as u32 * 4, sound.strings.len() as u32);
    let headers = [
        (
            ("a header of nothing", "header says"),
            [0, 0, types, types, strings],
        ),
        (
            ("a header beyond the end", "types end at"),
            [u32::MAX, 0, types, types, strings],
        ),
        (
            ("types beyond the end", "types end at"),
            [24, bytes.len() as u32, types, types, strings],
        ),
        (
            ("strings beyond the end", "strings end at"),
            [24, 0, types, u32::MAX, strings],
        ),
        (
            ("types of 4 GiB", "types end at"),
            [24, 0, u32::MAX, types, strings],
        ),
        (
            ("types that are strings", "overlap"),
            [24, 0, types, types - 4, strings],
        ),
        (
            ("strings that do not end", "begin and end"),
            [24, 0, types, types, strings - 1],
        ),
        (
            ("types cut in a type", "is cut short"),
            [24, 0, types - 4, types, strings],
        ),
    ];
    let mut all = vec![
        ("nothing", "shorter than its header", Vec::new()),
        (
            "text",
            "does not begin",
            b"no BTF at all, but long enough".to_vec(),
        ),
        ("half of it", "end at", bytes[..bytes.len() / 2].to_vec()),
        ("40 MiB", "larger than 32 MiB", vec![0; 40 << 20]),
    ];
    all.extend(headers.map(|((name, words), header)| (name, words, sound.with_header(header))));
    all
}

/// One type is wrong. Type 1 is an integer of 4 bytes, so theirs are from 2 on.
const FAULTS: [Fault; 30] = [
    (("a name just outside", "outside of the strings"), |btf| {
        btf.raw(20, FUNC << 24, 1, &[])
    }),
    (("a name outside", "outside of the strings"), |btf| {
        btf.raw(9999, STRUCT << 24, 0, &[])
    }),
    (("a name beyond memory", "outside of the strings"), |btf| {
        btf.raw(u32::MAX, TYPEDEF << 24, 1, &[])
    }),
    (
        ("a member's name outside", "outside of the strings"),
        |btf| btf.raw(0, STRUCT << 24 | 1, 4, &[77, 1, 0]),
    ),
    (("an unknown kind", "unknown kind 31"), |btf| {
        btf.raw(0, 31 << 24, 0, &[])
    }),
    (("kind 0", "unknown kind 0"), |btf| btf.raw(0, 0, 0, &[])),
    (("unknown flags", "flags"), |btf| {
        btf.raw(0, INT << 24 | 1 << 20, 4, &[32])
    }),
    (("more members than bytes", "is cut short"), |btf| {
        btf.raw(0, STRUCT << 24 | 0xffff, 4, &[0, 1, 0])
    }),
    (("more parameters than bytes", "is cut short"), |btf| {
        btf.raw(0, FUNC_PROTO << 24 | 0xffff, 0, &[0, 1])
    }),
    (("a pointer to nowhere", "refers to type 4000"), |btf| {
        btf.of(PTR, "", 4000)
    }),
    (("a function of nowhere", "refers to type 4000"), |btf| {
        btf.of(FUNC, "vfs_read", 4000)
    }),
    (("a member of nowhere", "refers to type 4000"), |btf| {
        btf.structure("a", 8, &[("b", 4000, 0)])
    }),
    (("a parameter of nowhere", "refers to type 4000"), |btf| {
        btf.prototype(1, 4000)
    }),
    (("an array of nowhere", "refers to type 4000"), |btf| {
        btf.array(4000, 1, 1)
    }),
    (("a type of itself", "refers to itself"), |btf| {
        btf.of(TYPEDEF, "a", 2)
    }),
    (("a pointer to itself", "refers to itself"), |btf| {
        btf.of(PTR, "", 2)
    }),
    (("two of each other", "refers to itself"), |btf| {
        btf.of(CONST, "", 3);
        btf.of(TYPEDEF, "b", 2)
    }),
    (("a declaration of itself", "declared only"), |btf| {
        btf.of(FWD, "a", 2)
    }),
    (("a structure in itself", "contains itself"), |btf| {
        btf.structure("a", 8, &[("b", 2, 0)])
    }),
    (
        ("a nameless structure in itself", "contains itself"),
        |btf| btf.structure("task_struct", 8, &[("", 2, 0)]),
    ),
    (("an array of itself", "contains itself"), |btf| {
        btf.array(2, 1, 1)
    }),
    (("an array counted by itself", "contains itself"), |btf| {
        btf.array(1, 2, 1)
    }),
    (("an array beyond memory", "beyond 4 GiB"), |btf| {
        btf.array(1, 1, 1 << 20);
        btf.array(2, 1, 1 << 20)
    }),
    (
        ("a member behind its structure", "outside of its 8 bytes"),
        |btf| btf.structure("a", 8, &[("b", 1, 8)]),
    ),
    (("a member half outside", "outside of its 8 bytes"), |btf| {
        btf.structure("a", 8, &[("b", 1, 6)])
    }),
    (("a bit-field outside", "outside of its 4 bytes"), |btf| {
        btf.raw(0, FLAG | STRUCT << 24 | 1, 4, &[0, 1, 5 << 24 | 30])
    }),
    (("a union too small", "outside of its 2 bytes"), |btf| {
        btf.raw(0, UNION << 24 | 1, 2, &[0, 1, 0])
    }),
    (
        ("a structure in a smaller one", "outside of its 4 bytes"),
        |btf| {
            btf.structure("a", 8, &[("b", 1, 0)]);
            btf.structure("c", 4, &[("d", 2, 0)])
        },
    ),
    (
        ("an array in a smaller structure", "outside of its 8 bytes"),
        |btf| {
            btf.array(1, 1, 3);
            btf.structure("c", 8, &[("d", 2, 0)])
        },
    ),
    (
        ("a thousand within each other", "types within types"),
        nested,
    ),
];

/// Well formed, and too much for whoever follows them.
const BOMBS: [Fault; 4] = [
    (
        ("a thousand before each other", "types within types"),
        before,
    ),
    (("ways without number", "members"), ways),
    (("a long name for all", "names to more than"), long_name),
    (("a million types", "more than 1048575 types"), million),
];

/// A structure in a structure in a structure: whoever goes down finds the stack's end.
fn nested(btf: &mut Btf) -> u32 {
    (1..=1000).fold(1, |_, id| btf.structure("", 4, &[("", id, 0)]))
}

/// The same, and the first that is come by is the outermost.
fn before(btf: &mut Btf) -> u32 {
    for id in 3..1002 {
        btf.of(CONST, "", id);
    }
    btf.of(CONST, "", 1)
}

/// Nameless structures within each other, two of the next in each: 2^40 ways to the last.
fn ways(btf: &mut Btf) -> u32 {
    (1..=40).fold(1, |_, id| {
        let name = if id == 40 { "task_struct" } else { "" };
        btf.structure(name, 4, &[("", id, 0), ("", id, 0)])
    })
}

/// Copied for each, it would be 20 GiB.
fn long_name(btf: &mut Btf) -> u32 {
    let name = btf.string(&"x".repeat(1 << 20));
    (0..20_000).fold(1, |_, _| btf.raw(name, TYPEDEF << 24, 1, &[]))
}

fn million(btf: &mut Btf) -> u32 {
    (0..1 << 20).fold(1, |_, _| btf.of(PTR, "", 1))
}
