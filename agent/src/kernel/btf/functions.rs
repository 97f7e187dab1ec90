//! Functions among the kernel's types.
//!
//! To attach a program by `fentry` aya asks BTF for a function's id and for nothing else. An agent that keeps the kernel's
//! BTF for that, as aya has it, keeps 13 MB; one that reads it again whenever a rule wants a point renews no lease
//! meanwhile: 100 ms, and on a machine under load that emulates another some 30 s. So the ids are kept.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use aya::{Btf, Endianness};

use super::{
    HEADER, MAGIC, VERSION, Vetted,
    entries::{Entries, FUNC, FWD, HEAD},
    failed, sections,
};
use crate::failure::Failure;

/// The ids of some functions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FunctionIds(BTreeMap<String, u32>);

impl FunctionIds {
    /// Finds those of `wanted` that are there; of several of one name, the first.
    ///
    /// # Errors
    /// None for what is vetted.
    pub fn find<'a>(
        btf: &Vetted,
        wanted: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Failure> {
        let wanted: BTreeSet<&[u8]> = wanted.into_iter().map(str::as_bytes).collect();
        let (types, strings) = sections(&btf.0).map_err(failed)?;
        let entries = Entries::read(types, strings).map_err(failed)?;
        let mut ids = BTreeMap::new();
        for id in (1..=entries.last()).filter(|id| entries.get(*id).kind == FUNC) {
            let name = &strings[entries.name(id) as usize..];
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if wanted.contains(name) {
                let name = String::from_utf8_lossy(name).into_owned();
                ids.entry(name).or_insert(id);
            }
        }
        Ok(Self(ids))
    }

    /// The id of one of them.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.0.get(name).copied()
    }

    /// BTF in which these functions have these ids, and which says nothing else.
    ///
    /// # Errors
    /// aya's own.
    pub fn btf(&self) -> Result<Btf, Failure> {
        let last = self.0.values().copied().max().unwrap_or(0) as usize;
        let mut strings = vec![0];
        // What is not known of a type is said by a structure without a name that is declared elsewhere.
        let mut types = [0, u32::from(FWD) << 24, 0].repeat(last);
        for (name, id) in &self.0 {
            let place = (*id as usize - 1) * HEAD / 4;
            types[place] = strings.len() as u32;
            types[place + 1] = u32::from(FUNC) << 24;
            strings.extend(name.as_bytes());
            strings.push(0);
        }
        let length = types.len() as u32 * 4;
        let header = [HEADER as u32, 0, length, length, strings.len() as u32];
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([VERSION, 0]);
        let words = header.iter().chain(&types);
        bytes.extend(words.flat_map(|word| word.to_ne_bytes()));
        bytes.extend(strings);
        Btf::parse(&bytes, Endianness::default()).map_err(|error| failed(error.to_string()))
    }
}

/// [`FunctionIds::btf`], made when it is first needed: some MB, and not needed where a program is still loaded.
pub struct OnDemand {
    ids: Option<FunctionIds>,
    made: OnceCell<Result<Btf, String>>,
}

impl OnDemand {
    pub fn new(ids: Option<FunctionIds>) -> Self {
        let made = OnceCell::new();
        Self { ids, made }
    }

    /// # Errors
    /// There are no ids, or aya's own; in one line.
    pub fn get(&self) -> Result<&Btf, String> {
        let make = || {
            let ids = self.ids.as_ref();
            let btf = ids.ok_or("the kernel's BTF could not be read")?.btf();
            btf.map_err(|failure| failure.to_string())
        };
        self.made.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// Drops what was made, and tells whether anything was.
    pub fn forget(&mut self) -> bool {
        self.made.take().is_some()
    }
}
