//! BTF (Documentation/bpf/btf.rst) built by hand, for tests of who reads it: sound, or wrong in one place.

mod hostile;

mod pretend;

pub use hostile::hostile;
pub use pretend::{BTF, all_are_refused, pretend};

const MAGIC: u16 = 0xeb9f;

pub const INT: u32 = 1;
pub const PTR: u32 = 2;
pub const ARRAY: u32 = 3;
pub const STRUCT: u32 = 4;
pub const UNION: u32 = 5;
pub const ENUM: u32 = 6;
pub const FWD: u32 = 7;
pub const TYPEDEF: u32 = 8;
pub const CONST: u32 = 10;
pub const FUNC: u32 = 12;
pub const FUNC_PROTO: u32 = 13;
/// In `info`, beside the kind: offsets of members hold the width of bit-fields.
pub const FLAG: u32 = 1 << 31;

/// Types and strings.
#[derive(Clone, Debug)]
pub struct Btf {
    types: Vec<u32>,
    strings: Vec<u8>,
    last: u32,
}

impl Default for Btf {
    fn default() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
            last: 0,
        }
    }
}

impl Btf {
    /// The id that the next type gets.
    #[must_use]
    pub fn next(&self) -> u32 {
        self.last + 1
    }

    /// Adds a string; its offset.
    pub fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let offset = self.strings.len() as u32;
        self.strings.extend(text.bytes());
        self.strings.push(0);
        offset
    }

    /// Adds a type word by word; its id. `info` is the kind's number in the uppermost byte, and the length of its list.
    pub fn raw(&mut self, name: u32, info: u32, size_or_type: u32, behind: &[u32]) -> u32 {
        self.types.extend([name, info, size_or_type]);
        self.types.extend(behind);
        self.last += 1;
        self.last
    }

    /// Adds an integer of so many bytes.
    pub fn integer(&mut self, bytes: u32) -> u32 {
        self.raw(0, INT << 24, bytes, &[bytes * 8])
    }

    /// Adds a type that is another one with a word before it: `PTR`, `CONST`, `TYPEDEF`, or a `FUNC` of a prototype.
    pub fn of(&mut self, kind: u32, name: &str, other: u32) -> u32 {
        let name = self.string(name);
        self.raw(name, kind << 24, other, &[])
    }

    /// Adds an array.
    pub fn array(&mut self, element: u32, index: u32, count: u32) -> u32 {
        self.raw(0, ARRAY << 24, 0, &[element, index, count])
    }

    /// Adds a structure of so many bytes; its members have a name, a type and an offset in bytes.
    pub fn structure(&mut self, name: &str, bytes: u32, members: &[(&str, u32, u32)]) -> u32 {
        let name = self.string(name);
        let mut behind = Vec::new();
        for (member, id, offset) in members {
            behind.extend([self.string(member), *id, offset * 8]);
        }
        self.raw(name, STRUCT << 24 | members.len() as u32, bytes, &behind)
    }

    /// Adds an enumeration.
    pub fn enumeration(&mut self, values: &[(&str, u32)]) -> u32 {
        let mut behind = Vec::new();
        for (name, value) in values {
            behind.extend([self.string(name), *value]);
        }
        self.raw(0, ENUM << 24 | values.len() as u32, 4, &behind)
    }

    /// Adds the prototype of a function with so many arguments of that type.
    pub fn prototype(&mut self, arguments: usize, id: u32) -> u32 {
        let behind = [0, id].repeat(arguments);
        self.raw(0, FUNC_PROTO << 24 | arguments as u32, 0, &behind)
    }

    /// The whole, with its header.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let types = self.types.len() as u32 * 4;
        self.with_header([24, 0, types, types, self.strings.len() as u32])
    }

    /// With these words in the header behind the version: its own length, then offset and length of the types and
    /// of the strings.
    #[must_use]
    pub fn with_header(&self, words: [u32; 5]) -> Vec<u8> {
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(self.types.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(&self.strings);
        bytes
    }
}

/// Some of what an agent asks its kernel for.
#[must_use]
pub fn sound() -> Btf {
    let mut btf = Btf::default();
    let long = btf.integer(8);
    let word = btf.integer(4);
    let void = btf.of(PTR, "", 0);
    let path = btf.structure("path", 16, &[("mnt", void, 0), ("dentry", void, 8)]);
    btf.structure("file", 64, &[("f_inode", void, 0), ("f_path", path, 16)]);
    let inner = btf.structure("", 8, &[("tgid", word, 0), ("flags", word, 4)]);
    let text = btf.array(word, word, 4);
    let constant = btf.of(CONST, "", word);
    btf.structure(
        "task_struct",
        64,
        &[
            ("", inner, 0),
            ("comm", text, 8),
            ("pid", constant, 24),
            ("mm", void, 32),
        ],
    );
    btf.enumeration(&[("cpuset_cgrp_id", 0), ("io_cgrp_id", 3)]);
    let prototype = btf.prototype(3, long);
    let pointer = btf.of(PTR, "", prototype);
    btf.of(TYPEDEF, "btf_trace_block_rq_issue", pointer);
    btf.of(FUNC, "vfs_read", prototype);
    btf.of(FWD, "later", 0);
    btf.raw(0, FLAG | UNION << 24 | 1, 4, &[0, word, 5 << 24 | 3]);
    btf
}
