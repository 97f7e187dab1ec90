//! One attempt to load a program and attach it at a symbol.

use std::io;

use agent_common::catalogue::{Backend, Point};
use aya::{
    Btf, Ebpf,
    programs::{
        FEntry, KProbe, Program, ProgramError, RawTracePoint, fentry::FEntryLinkId,
        kprobe::KProbeLinkId,
    },
    sys::SyscallError,
};
use log::warn;

use crate::plan::Attempt;

/// The name of the program that serves `point` through a backend, as in the object.
pub fn program_name(point: &Point, attempt: Attempt) -> String {
    match attempt.backend {
        Backend::Fentry | Backend::Kprobe => {
            format!(
                "{}_{}",
                attempt.backend.name(),
                point.name.replace('.', "_")
            )
        }
        Backend::Tp => format!("tp_{}", attempt.symbol),
    }
}

/// By what a program at a function can be detached and stay loaded. One at a tracepoint has none: loaded has to mean
/// attached there.
#[derive(Debug)]
pub enum Link {
    Fentry(FEntryLinkId),
    Kprobe(KProbeLinkId),
}

/// Loads and attaches. A program that serves several points (`tp_sys_enter`) is attached once.
///
/// # Errors
/// The kernel's reason, in one line.
pub fn attach(
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    name: &str,
    attempt: Attempt,
) -> Result<Option<Link>, String> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| format!("the object has no program {name}"))?;
    match attempt.backend {
        Backend::Fentry => {
            let btf = btf.ok_or("the kernel's BTF could not be read")?;
            attach_fentry(program, attempt.symbol, btf).map(Some)
        }
        Backend::Kprobe => attach_kprobe(program, attempt.symbol).map(Some),
        Backend::Tp => attach_tracepoint(program, attempt.symbol).map(|()| None),
    }
    .map_err(|error| reason(&error))
}

/// Attaches a program again that [`detach`] left loaded, where it was.
///
/// # Errors
/// The kernel's reason, in one line; or it is not loaded.
pub fn attach_again(ebpf: &mut Ebpf, name: &str) -> Result<Link, String> {
    let attached = match ebpf.program_mut(name) {
        Some(Program::FEntry(program)) => program.attach().map(Link::Fentry),
        _ => return Err(format!("{name} has to be loaded again")),
    };
    attached.map_err(|error| reason(&error))
}

/// Detaches a program and leaves it loaded.
///
/// # Errors
/// It is not attached by this link.
pub fn detach(ebpf: &mut Ebpf, name: &str, link: Link) -> Result<(), ProgramError> {
    match (ebpf.program_mut(name), link) {
        (Some(Program::FEntry(program)), Link::Fentry(link)) => program.detach(link),
        (Some(Program::KProbe(program)), Link::Kprobe(link)) => program.detach(link),
        _ => Err(ProgramError::NotAttached),
    }
}

/// Detaches and frees a program.
pub fn unload(ebpf: &mut Ebpf, name: &str) {
    let unloaded = match ebpf.program_mut(name) {
        Some(Program::RawTracePoint(program)) => program.unload(),
        Some(Program::KProbe(program)) => program.unload(),
        Some(Program::FEntry(program)) => program.unload(),
        _ => Ok(()),
    };
    if let Err(error) = unloaded {
        warn!("failed to unload {name}: {error}");
    }
}

fn attach_fentry(program: &mut Program, function: &str, btf: &Btf) -> Result<Link, ProgramError> {
    let fentry: &mut FEntry = program.try_into()?;
    if fentry.fd().is_ok() {
        // It was kept for the next rule, and cannot be attached again.
        fentry.unload()?;
    }
    fentry.load(function, btf)?;
    match fentry.attach() {
        Ok(link) => Ok(Link::Fentry(link)),
        Err(error) => {
            // The function is chosen at load: another attempt has to load it anew.
            fentry.unload()?;
            Err(error)
        }
    }
}

fn attach_kprobe(program: &mut Program, function: &str) -> Result<Link, ProgramError> {
    let kprobe: &mut KProbe = program.try_into()?;
    load_once(kprobe.load())?;
    kprobe.attach(function, 0).map(Link::Kprobe)
}

fn attach_tracepoint(program: &mut Program, tracepoint: &str) -> Result<(), ProgramError> {
    let raw: &mut RawTracePoint = program.try_into()?;
    match raw.load() {
        // Attached already, for another point.
        Err(ProgramError::AlreadyLoaded) => return Ok(()),
        other => other?,
    }
    match raw.attach(tracepoint) {
        Ok(_link) => Ok(()),
        Err(error) => {
            // Loaded has to mean attached, see above.
            raw.unload()?;
            Err(error)
        }
    }
}

fn load_once(result: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        other => other,
    }
}

/// A patch that Debian and others have.
const PARANOID: &str = "above 2, kernel.perf_event_paranoid takes CAP_SYS_ADMIN";

/// The cause in one line: of a verifier's log, its last line that says something.
pub fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            log::trace!("the verifier's log: {log}");
            let summary = ["processed ", "stack depth ", "verification time "];
            let last = log.lines().map(str::trim).rfind(|line| {
                !line.is_empty() && !summary.iter().any(|start| line.starts_with(start))
            });
            match last {
                Some(line) => format!("the kernel refused the program: {io_error}: {line}"),
                None => format!("the kernel refused the program: {io_error}"),
            }
        }
        ProgramError::SyscallError(SyscallError { call, io_error })
            if *call == "perf_event_open" && io_error.kind() == io::ErrorKind::PermissionDenied =>
        {
            format!("the kernel refused a perf event: {io_error}: {PARANOID}")
        }
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}
