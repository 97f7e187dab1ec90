//! Attaching the programs of measuring probes.

use agent_common::probes::{ASKED_FOR, Field, Hook, Kind, Part, Variant};
use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, FEntry, FExit, KProbe, PerfEvent, Program, ProgramError, RawTracePoint,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
};

use super::{HostTypes, attach::reason};

/// The variant of a part that attached: its place among the part's, and the programs' names.
pub struct AttachedPart {
    pub backend: &'static str,
    pub programs: Vec<&'static str>,
    /// Variants that were preferred, and why they were refused.
    pub refused: Vec<String>,
}

/// What was asked of a probe.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// By what its series are told apart.
    pub fields: &'a [Field],
    /// The only backend that will do.
    pub backend: Option<&'a str>,
    /// What [`ASKED_FOR`] stands for.
    pub function: Option<&'a str>,
}

/// Attaches the first variant of which every hook attaches.
///
/// # Errors
/// The reasons, if none does; nothing of the part stays attached.
pub fn attach_part(
    ebpf: &mut Ebpf,
    types: &HostTypes,
    part: &'static Part,
    asked: Asked<'_>,
) -> Result<AttachedPart, String> {
    let mut refused = Vec::new();
    for variant in part.variants {
        if asked
            .backend
            .is_some_and(|only| only != variant.backend.name())
        {
            continue;
        }
        match attach_variant(ebpf, types, variant, asked) {
            Ok(()) => {
                return Ok(AttachedPart {
                    backend: variant.backend.name(),
                    programs: wanted(variant, asked).map(|hook| hook.program).collect(),
                    refused,
                });
            }
            Err(reason) => refused.push(reason),
        }
    }
    if refused.is_empty() {
        let backend = asked.backend.unwrap_or("auto");
        refused.push(format!("there are no programs for the backend {backend}"));
    }
    Err(refused.join("; "))
}

fn attach_variant(
    ebpf: &mut Ebpf,
    types: &HostTypes,
    variant: &'static Variant,
    asked: Asked<'_>,
) -> Result<(), String> {
    for (place, hook) in wanted(variant, asked).enumerate() {
        let Err(reason) = attach_hook(ebpf, types, hook, asked.function) else {
            continue;
        };
        for attached in wanted(variant, asked).take(place) {
            detach(ebpf, attached);
        }
        let symbol = hook
            .symbols
            .first()
            .map_or(hook.program, |symbol| asked_for(symbol, asked.function));
        return Err(format!("{} {symbol}: {reason}", variant.backend.name()));
    }
    Ok(())
}

/// The hooks of a variant that serve what was asked.
fn wanted<'a>(
    variant: &'static Variant,
    asked: Asked<'a>,
) -> impl Iterator<Item = &'static Hook> + 'a {
    let serves = move |hook: &&Hook| {
        hook.only_by
            .is_none_or(|field| asked.fields.contains(&field))
    };
    variant.hooks.iter().filter(serves)
}

/// The symbol itself, or the function for which it stands.
fn asked_for<'a>(symbol: &'a str, function: Option<&'a str>) -> &'a str {
    match function {
        Some(function) if symbol == ASKED_FOR => function,
        _ => symbol,
    }
}

fn attach_hook(
    ebpf: &mut Ebpf,
    types: &HostTypes,
    hook: &Hook,
    function: Option<&str>,
) -> Result<(), String> {
    if let Some(expected) = hook.arguments {
        for symbol in hook.symbols {
            match types.tracepoint_arguments(symbol) {
                None => return Err("this kernel has no such tracepoint".into()),
                Some(arguments) if arguments != expected => {
                    return Err(format!(
                        "the tracepoint has {arguments} arguments here, not {expected}"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    let program = ebpf
        .program_mut(hook.program)
        .ok_or_else(|| format!("the object has no program {}", hook.program))?;
    if hook.kind == Kind::MajorFaults {
        return attach_major_faults(program);
    }
    let mut last = String::new();
    for symbol in hook.symbols {
        match attach_at(program, &types.aya, hook.kind, asked_for(symbol, function)) {
            Ok(()) => return Ok(()),
            Err(error) => last = reason(&error),
        }
    }
    Err(last)
}

/// Loads and attaches; a program that loads but does not attach is unloaded.
fn attach_at(
    program: &mut Program,
    btf: &Btf,
    kind: Kind,
    symbol: &str,
) -> Result<(), ProgramError> {
    let attached = match kind {
        Kind::TpBtf => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(symbol, btf)?;
            program.attach().map(drop)
        }
        Kind::RawTp => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program.attach(symbol).map(drop)
        }
        Kind::Fentry => {
            let program: &mut FEntry = program.try_into()?;
            program.load(symbol, btf)?;
            program.attach().map(drop)
        }
        Kind::Fexit => {
            let program: &mut FExit = program.try_into()?;
            program.load(symbol, btf)?;
            program.attach().map(drop)
        }
        Kind::Kprobe | Kind::Kretprobe => {
            let program: &mut KProbe = program.try_into()?;
            program.load()?;
            program.attach(symbol, 0).map(drop)
        }
        Kind::MajorFaults => Ok(()),
    };
    if attached.is_err() {
        unload(program);
    }
    attached
}

/// On each CPU, every time.
fn attach_major_faults(program: &mut Program) -> Result<(), String> {
    let attach = |program: &mut Program| -> Result<(), ProgramError> {
        let program: &mut PerfEvent = program.try_into()?;
        program.load()?;
        for cpu in aya::util::online_cpus().map_err(|(_, error)| ProgramError::IOError(error))? {
            program.attach(
                PerfEventConfig::Software(SoftwareEvent::PageFaultsMaj),
                PerfEventScope::AllProcessesOneCpu { cpu },
                SamplePolicy::Period(1),
                false,
            )?;
        }
        Ok(())
    };
    attach(program).map_err(|error| {
        unload(program);
        reason(&error)
    })
}

fn detach(ebpf: &mut Ebpf, hook: &Hook) {
    if let Some(program) = ebpf.program_mut(hook.program) {
        unload(program);
    }
}

/// Unloading a program drops its links.
fn unload(program: &mut Program) {
    let unloaded = match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::RawTracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::PerfEvent(program) => program.unload(),
        _ => Ok(()),
    };
    if let Err(error) = unloaded {
        log::debug!("failed to unload a program: {error}");
    }
}
