//! aya's loader, made once.
//!
//! [`EbpfLoader::new`] reads and parses the kernel's BTF, some 60 ms, needed or not. No object here is relocated
//! by BTF (offsets are constants that it is given, see `types`), so one loader without it serves all objects of the process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{LazyLock, Mutex, PoisonError},
    thread,
};

use agent_common::constant;
use aya::{Ebpf, EbpfError, EbpfLoader};

use super::patched::Patched;

/// What an object is given before it is loaded.
#[derive(Default)]
pub struct Given<'a> {
    /// Constants of the object, by name, in instructions or else as globals. A global that is not given here is what it was
    /// compiled to be, or 0 once another object was given one of that name.
    pub constants: &'a [(&'static str, u32)],
    /// Constants that an object has in instructions, or has no use for.
    pub offered: &'a [(&'static str, u32)],
    /// Sizes of maps.
    pub max_entries: &'a [(&'static str, u32)],
    /// Which of the programs' logs are passed on, if the object has any.
    pub log_level: u8,
}

struct Loader {
    aya: EbpfLoader<'static>,
    /// Names of globals that were set: aya keeps them for the next object, which need not have them.
    set: BTreeSet<&'static str>,
}

static LOADER: LazyLock<Mutex<Loader>> = LazyLock::new(|| {
    let mut aya = EbpfLoader::new();
    aya.btf(None);
    Mutex::new(Loader {
        aya,
        set: BTreeSet::new(),
    })
});

/// Makes the loader in a thread of its own, while the caller does other things.
pub fn prepare() {
    // Who needs it waits for it, or makes it if there is no thread to be had.
    let _no_thread = thread::Builder::new().spawn(|| LazyLock::force(&LOADER));
}

/// Creates the maps of an object. Its programs are loaded one by one, by whoever attaches them.
///
/// # Errors
/// The kernel's or aya's own.
pub fn load(object: &[u8], given: &Given<'_>) -> Result<Ebpf, EbpfError> {
    let mut loader = LOADER.lock().unwrap_or_else(PoisonError::into_inner);
    let Loader { aya, set } = &mut *loader;
    for name in std::mem::take(set) {
        aya.override_global(name, lasting(&0_u32.to_ne_bytes()), false);
    }
    let (patched, globals) = with_constants(object, given.constants, given.offered);
    for (name, value) in globals {
        set.insert(name);
        aya.override_global(name, lasting(&value.to_ne_bytes()), true);
    }
    aya.override_global("AYA_LOG_LEVEL", lasting(&[given.log_level]), false);
    for (name, entries) in given.max_entries {
        aya.map_max_entries(name, *entries);
    }
    aya.load(patched.as_ref().map_or(object, Patched::bytes))
}

/// The object with the constants that it has in instructions, if it has any, and the others.
fn with_constants<'a>(
    object: &[u8],
    constants: &'a [(&'static str, u32)],
    offered: &[(&'static str, u32)],
) -> (Option<Patched>, Vec<&'a (&'static str, u32)>) {
    let by_id: BTreeMap<i32, u32> = constants
        .iter()
        .chain(offered)
        .map(|(name, value)| (constant::id(name), *value))
        .collect();
    let mut found = BTreeSet::new();
    let patched = Patched::new(object, |instruction| {
        let Some((id, value)) =
            constant::id_in(instruction).and_then(|id| by_id.get_key_value(&id))
        else {
            return instruction;
        };
        found.insert(*id);
        constant::with(instruction, *value)
    });
    let globals = constants
        .iter()
        .filter(|(name, _)| !found.contains(&constant::id(name)));
    (patched, globals.collect())
}

/// The same bytes for as long as the process lives. Each value is kept once, and there are few: offsets, sizes.
fn lasting(bytes: &[u8]) -> &'static [u8] {
    static KEPT: Mutex<BTreeSet<&'static [u8]>> = Mutex::new(BTreeSet::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = kept.get(bytes) {
        return bytes;
    }
    let bytes: &'static [u8] = bytes.to_vec().leak();
    kept.insert(bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use agent_common::probes::PROBES;

    use super::*;
    use crate::kernel::measure::object;

    const OFFERED: &[(&str, u32)] = &[("BY", 7), ("CPUS", 7)];

    /// A probe's own.
    fn constants(probe: &agent_common::probes::Probe) -> Vec<(&'static str, u32)> {
        let own = probe.constants.iter().map(|constant| constant.global);
        own.map(|name| (name, 7)).collect()
    }

    #[test]
    fn no_constant_is_left_without_its_value() {
        for probe in PROBES {
            let given = constants(probe);
            let object = object(probe.name).unwrap();
            let (patched, _) = with_constants(object, &given, OFFERED);
            let mut left = BTreeSet::new();
            Patched::new(patched.unwrap().bytes(), |word| {
                left.extend(constant::id_in(word));
                word
            });
            assert!(left.is_empty(), "{}: {left:x?}", probe.name);
        }
    }

    #[test]
    fn constants_of_a_probe_have_ids_of_their_own() {
        for probe in PROBES {
            let given = [&constants(probe)[..], OFFERED].concat();
            let ids: BTreeSet<_> = given.iter().map(|(name, _)| constant::id(name)).collect();
            assert_eq!(ids.len(), given.len(), "{}", probe.name);
        }
    }
}
