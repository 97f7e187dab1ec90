//! The kernel's BTF (Documentation/bpf/btf.rst), vetted before anybody parses it.
//!
//! It comes from the kernel, but from which one is not for us to say: a file can be mounted over it, and what made it may
//! have been wrong. The two crates that parse it trust what they read: aya-obj 0.3 panics at a name that is just
//! outside of the strings, and btfparse 1.3 follows types that refer to themselves until the stack is full, copies a
//! name of megabytes for each type that has it, and looks at a member as often as there are ways to it. So the bytes
//! are checked here first, once, in some milliseconds; [`Vetted`] is what they take.

mod entries;
mod exercise;
mod functions;
mod nesting;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    time::Instant,
};

use aya::{Btf, Endianness};
use log::debug;

use crate::failure::{Failure, HOST};
use entries::Entries;
pub use exercise::exercise;
pub use functions::{FunctionIds, OnDemand};

/// The largest BTF that is read (bytes); kernels have some 5 MiB.
const LARGEST: usize = 32 << 20;
/// Bytes of `struct btf_header` as every kernel has it; what newer ones add comes behind.
const HEADER: usize = 24;
const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;

/// BTF in which every offset, name and type is where it has to be.
#[derive(Debug)]
pub struct Vetted(Vec<u8>);

impl Vetted {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read, or what is in it is no BTF that can be trusted.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        Self::new(bytes(path).map_err(|error| unreadable(path, &error))?).map_err(failed)
    }

    /// Checks bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() > LARGEST {
            return Err(format!("it is larger than {} MiB", LARGEST >> 20));
        }
        let start = Instant::now();
        let (types, strings) = sections(&bytes)?;
        nesting::check(&Entries::read(types, strings)?)?;
        debug!(
            "{} KiB of BTF vetted in {:?}",
            bytes.len() >> 10,
            start.elapsed()
        );
        Ok(Self(bytes))
    }

    /// As aya has it.
    ///
    /// # Errors
    /// aya refuses it all the same.
    pub fn aya(&self) -> Result<Btf, Failure> {
        Btf::parse(&self.0, Endianness::default()).map_err(|error| failed(error.to_string()))
    }

    /// Whether anything in it has that name.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        sections(&self.0).is_ok_and(|(_, strings)| {
            let mut names = strings.split(|byte| *byte == 0);
            names.any(|one| one == name.as_bytes())
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is told of BTF that cannot be used.
pub(super) fn failed(why: impl std::fmt::Display) -> Failure {
    Failure::new(HOST, format!("failed to read the kernel's BTF: {why}"))
        .hint("delays by --backend tp need none; iolag doctor says what else works")
}

/// What is told of a file that cannot be read.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Failure {
    failed(format!("{}: {error}", path.display()))
}

/// The content of the file, but no more of it than can be BTF.
///
/// # Errors
/// The system call's own.
pub fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(LARGEST);
    // Room for one more, by which the reader finds the end.
    let mut bytes = Vec::with_capacity(length.min(LARGEST) + 1);
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Types and strings.
fn sections(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    if bytes.len() < HEADER {
        return Err("it is shorter than its header".into());
    }
    if u16::from_ne_bytes([bytes[0], bytes[1]]) != MAGIC {
        return Err("it does not begin as BTF does".into());
    }
    if bytes[2] != VERSION {
        return Err(format!("its version is {} and not {VERSION}", bytes[2]));
    }
    let word = |place| entries::word(bytes, place) as usize;
    let header = word(1);
    if header < HEADER {
        return Err(format!("its header says that it has {header} bytes"));
    }
    let section = |what: &str, place| {
        let start = header.saturating_add(word(place));
        let end = start.saturating_add(word(place + 1));
        let section = bytes.get(start..end);
        section.ok_or_else(|| {
            let all = bytes.len();
            format!("it has {all} bytes, its header says that its {what} end at {end}")
        })
    };
    let (types, strings) = (section("types", 2)?, section("strings", 4)?);
    // Other sections may come with newer kernels, but each byte is of one.
    if word(2) < word(4) + word(5) && word(4) < word(2) + word(3) {
        return Err("its types and its strings overlap".into());
    }
    match (strings.first(), strings.last()) {
        (Some(0), Some(0)) => Ok((types, strings)),
        _ => Err("its strings do not begin and end with an empty one".into()),
    }
}
