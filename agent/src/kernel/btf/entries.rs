//! The types of BTF, one behind the other: each is where the one before ends, of a known kind, and so are its names.

use std::ffi::CStr;

/// Most types; as `BTF_MAX_TYPE` (`include/uapi/linux/btf.h`).
const MOST: usize = 0xf_ffff;
/// Most bytes of names, each counted as often as it is used: they are copied. Kernels have some 10 MiB.
const NAMES: usize = 64 << 20;
/// Bytes of `struct btf_type`.
pub const HEAD: usize = 12;
/// Bits of `info` that have a meaning; as `BTF_INFO_MASK` (`kernel/bpf/btf.c`).
const MEANT: u32 = 0x9f00_ffff;

pub const INT: u8 = 1;
pub const PTR: u8 = 2;
pub const ARRAY: u8 = 3;
pub const STRUCT: u8 = 4;
pub const UNION: u8 = 5;
pub const ENUM: u8 = 6;
pub const FWD: u8 = 7;
pub const TYPEDEF: u8 = 8;
pub const VOLATILE: u8 = 9;
pub const CONST: u8 = 10;
pub const RESTRICT: u8 = 11;
pub const FUNC: u8 = 12;
pub const FUNC_PROTO: u8 = 13;
pub const VAR: u8 = 14;
pub const DATASEC: u8 = 15;
pub const FLOAT: u8 = 16;
pub const DECL_TAG: u8 = 17;
pub const TYPE_TAG: u8 = 18;
pub const ENUM64: u8 = 19;

/// All types, by id from 1 on.
pub struct Entries<'a> {
    types: &'a [u8],
    /// Where each begins (bytes).
    starts: Vec<u32>,
}

/// One type.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub kind: u8,
    /// Offsets of members are bit-fields' too.
    pub flag: bool,
    /// Bytes, or the type that this one refers to.
    pub size_or_type: u32,
    /// What comes behind the head: words, or records of some words each.
    pub behind: &'a [u8],
}

/// A word of the bytes, which have that many.
pub fn word(bytes: &[u8], place: usize) -> u32 {
    let bytes = &bytes[place * 4..place * 4 + 4];
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Bytes behind the head of a type, and whether that is for each of what it lists.
fn layout(kind: u8) -> Option<(usize, bool)> {
    Some(match kind {
        PTR | FWD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => (0, false),
        INT | VAR | DECL_TAG => (4, false),
        ARRAY => (12, false),
        STRUCT | UNION | DATASEC | ENUM64 => (12, true),
        ENUM | FUNC_PROTO => (8, true),
        _ => return None,
    })
}

impl<'a> Entries<'a> {
    /// Goes through all of them.
    ///
    /// # Errors
    /// One is cut short or of no known kind, a name is outside of the strings, or they are too many.
    pub fn read(types: &'a [u8], strings: &[u8]) -> Result<Self, String> {
        let mut starts = Vec::with_capacity(types.len() / 32);
        let mut names = Names { strings, used: 0 };
        let mut place = 0;
        while place < types.len() {
            let id = starts.len() + 1;
            if id > MOST {
                return Err(format!("it has more than {MOST} types"));
            }
            let entry = Entry::at(&types[place..]).map_err(|why| format!("type {id} {why}"))?;
            names
                .check(&entry, word(&types[place..], 0))
                .map_err(|why| format!("type {id} {why}"))?;
            starts.push(place as u32);
            place += HEAD + entry.behind.len();
        }
        Ok(Self { types, starts })
    }

    /// Ids are from 1 up to this one.
    pub fn last(&self) -> u32 {
        self.starts.len() as u32
    }

    /// The type of that id, which is one of them.
    pub fn get(&self, id: u32) -> Entry<'a> {
        let start = self.starts[id as usize - 1] as usize;
        // It could be read before.
        Entry::at(&self.types[start..]).unwrap_or(Entry::NONE)
    }

    /// Where in the strings the name of that type is.
    pub fn name(&self, id: u32) -> u32 {
        let start = self.starts[id as usize - 1] as usize;
        word(&self.types[start..], 0)
    }
}

impl<'a> Entry<'a> {
    const NONE: Entry<'static> = Entry {
        kind: FWD,
        flag: false,
        size_or_type: 0,
        behind: &[],
    };

    fn at(bytes: &'a [u8]) -> Result<Self, String> {
        let short = || "is cut short".to_owned();
        if bytes.len() < HEAD {
            return Err(short());
        }
        let info = word(bytes, 1);
        let kind = (info >> 24 & 0x1f) as u8;
        let Some((each, listed)) = layout(kind) else {
            return Err(format!("is of the unknown kind {kind}"));
        };
        if info & !MEANT != 0 {
            return Err("has flags that nobody knows".into());
        }
        let count = if listed { info as usize & 0xffff } else { 1 };
        Ok(Self {
            kind,
            flag: info >> 31 == 1,
            size_or_type: word(bytes, 2),
            behind: bytes.get(HEAD..HEAD + each * count).ok_or_else(short)?,
        })
    }

    /// What it lists: members, enumerators, parameters, variables.
    pub fn listed(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let each = match layout(self.kind) {
            Some((each, true)) => each,
            // Nothing, whatever the size.
            _ => self.behind.len() + 1,
        };
        self.behind.chunks_exact(each)
    }
}

/// The strings, and how much of them was used.
struct Names<'a> {
    strings: &'a [u8],
    used: usize,
}

impl Names<'_> {
    /// Checks the name of a type and those of what it lists.
    fn check(&mut self, entry: &Entry<'_>, name: u32) -> Result<(), String> {
        self.use_one(name)?;
        if entry.kind != DATASEC {
            for listed in entry.listed() {
                self.use_one(word(listed, 0))?;
            }
        }
        Ok(())
    }

    fn use_one(&mut self, offset: u32) -> Result<(), String> {
        if offset == 0 {
            return Ok(());
        }
        // The last byte of all is a zero.
        let name = self.strings.get(offset as usize..);
        let Some(name) = name.and_then(|bytes| CStr::from_bytes_until_nul(bytes).ok()) else {
            return Err(format!("has its name at {offset}, outside of the strings"));
        };
        self.used += name.count_bytes() + 1;
        if self.used > NAMES {
            return Err(format!("brings the names to more than {} MiB", NAMES >> 20));
        }
        Ok(())
    }
}
