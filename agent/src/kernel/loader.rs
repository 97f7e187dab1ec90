//! aya's loader, made once.
//!
//! [`EbpfLoader::new`] reads and parses the kernel's BTF, some 60 ms, needed or not. No object here is relocated
//! by BTF (offsets are globals, see `types`), so one loader without it serves all objects of the process.

use std::{
    collections::BTreeSet,
    sync::{LazyLock, Mutex, PoisonError},
    thread,
};

use aya::{Ebpf, EbpfError, EbpfLoader};

/// What an object is given before it is loaded.
#[derive(Default)]
pub struct Given<'a> {
    /// Globals, by name, which the object has. One that is not given here is what it
    /// was compiled to be, or 0 once another object was given one of that name.
    pub globals: &'a [(&'static str, u32)],
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
    for (name, value) in given.globals {
        set.insert(name);
        aya.override_global(name, lasting(&value.to_ne_bytes()), true);
    }
    aya.override_global("AYA_LOG_LEVEL", lasting(&[given.log_level]), false);
    for (name, entries) in given.max_entries {
        aya.map_max_entries(name, *entries);
    }
    aya.load(object)
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
