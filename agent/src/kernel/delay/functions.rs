//! Functions that rules name: `fn:NAME`. One kprobe program is at all of them, and knows them by their addresses.

use std::{collections::BTreeMap, path::Path};

use agent_common::{catalogue::slot, rules::FUNCTIONS as PLACES};
use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::{KProbe, ProgramError, kprobe::KProbeLinkId},
};
use log::warn;

use crate::{
    failure::{Failure, HOST, USAGE},
    functions::{self, Function},
    kernel::attach::reason,
};

/// The program.
pub const PROGRAM: &str = "kprobe_fn";
/// What a function begins with where the processor checks the targets of calls (`endbr64`): some kernels give the
/// address behind it.
const LANDING: u64 = 4;

pub struct Functions {
    slots: HashMap<MapData, u64, u32>,
    attached: BTreeMap<u32, Attached>,
}

struct Attached {
    name: String,
    address: u64,
    link: KProbeLinkId,
}

impl Functions {
    pub fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        Ok(Self {
            slots: HashMap::try_from(super::take(ebpf, "FUNCTIONS")?).context("map FUNCTIONS")?,
            attached: BTreeMap::new(),
        })
    }

    pub fn name(&self, slot: u32) -> Option<&str> {
        self.attached
            .get(&slot)
            .map(|function| function.name.as_str())
    }

    /// The slots of these functions, each attached now if it was not. `meanwhile` is called behind each, as all may take
    /// seconds.
    ///
    /// # Errors
    /// One cannot be: those that were attached for this are detached.
    pub fn want(
        &mut self,
        ebpf: &mut Ebpf,
        functions: &[Function],
        mut meanwhile: impl FnMut(),
    ) -> Result<Vec<u32>, Failure> {
        let before: Vec<u32> = self.attached.keys().copied().collect();
        let slots: Result<Vec<u32>, Failure> = functions
            .iter()
            .map(|function| {
                let slot = self.slot(ebpf, function);
                meanwhile();
                slot
            })
            .collect();
        if slots.is_err() {
            self.release(ebpf, |slot| before.contains(&slot), meanwhile);
        }
        slots
    }

    fn slot(&mut self, ebpf: &mut Ebpf, function: &Function) -> Result<u32, Failure> {
        let name = &function.name;
        let of_name = |function: &&Attached| function.name == *name;
        if let Some((slot, _)) = self.attached.iter().find(|(_, f)| of_name(f)) {
            return Ok(*slot);
        }
        let free = (slot::FUNCTIONS..slot::FUNCTIONS + PLACES as u32)
            .find(|slot| !self.attached.contains_key(slot))
            .ok_or_else(|| {
                Failure::new(
                    USAGE,
                    format!("fn:{name}: {PLACES} functions are delayed already"),
                )
                .hint("remove a rule, or name fewer")
            })?;
        let refused = |why: String| {
            let failure = Failure::new(HOST, format!("failed to attach at fn:{name}: {why}"));
            match functions::untraceable(Path::new("/"), name) {
                Some(why) => failure.hint(why),
                None => failure.hint("functions are delayed by kprobes: the kernel must have them and let this one be probed"),
            }
        };
        let address = function
            .address
            .ok_or_else(|| refused("the kernel does not tell its address: that takes CAP_SYSLOG, and kernel.kptr_restrict below 2".into()))?;
        let link = attach(ebpf, name).map_err(|error| refused(reason(&error)))?;
        // Known before anything else can fail: what is not wanted is released then.
        let function = Attached {
            name: name.clone(),
            address,
            link,
        };
        self.attached.insert(free, function);
        for address in [address, address + LANDING] {
            self.slots
                .insert(address, free, 0)
                .map_err(|error| refused(error.to_string()))?;
        }
        Ok(free)
    }

    /// Detaches what is not wanted. `meanwhile` as for [`Self::want`].
    pub fn release(
        &mut self,
        ebpf: &mut Ebpf,
        wanted: impl Fn(u32) -> bool,
        mut meanwhile: impl FnMut(),
    ) {
        let gone: Vec<u32> = self
            .attached
            .keys()
            .copied()
            .filter(|slot| !wanted(*slot))
            .collect();
        for slot in gone {
            let Some(function) = self.attached.remove(&slot) else {
                continue;
            };
            for address in [function.address, function.address + LANDING] {
                // It was put there with the function.
                let _gone = self.slots.remove(&address);
            }
            let detached = program(ebpf).and_then(|program| program.detach(function.link));
            if let Err(error) = detached {
                warn!("failed to detach fn:{}: {error}", function.name);
            }
            meanwhile();
        }
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut KProbe, ProgramError> {
    let program = ebpf
        .program_mut(PROGRAM)
        .ok_or(ProgramError::UnexpectedProgramType)?;
    program.try_into()
}

fn attach(ebpf: &mut Ebpf, name: &str) -> Result<KProbeLinkId, ProgramError> {
    let program = program(ebpf)?;
    match program.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
        Err(error) => return Err(error),
    }
    program.attach(name, 0)
}
