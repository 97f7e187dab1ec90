//! Which program goes where, by the catalogue.

use agent_common::{
    catalogue::{Backend, FORKS, POINTS, SUBMITTERS},
    probes::{ASKED_FOR, PROBES},
};

/// A program and where it may be attached.
#[derive(Debug)]
pub struct Use {
    pub object: &'static str,
    pub program: String,
    /// The first that can be attached is taken.
    pub symbols: Vec<&'static str>,
    /// Attached only where the tracepoint has so many arguments.
    pub arguments: Option<usize>,
    /// What it serves, as `docs/kernels.md` names it, and over which backend.
    pub serves: String,
    pub backend: Backend,
}

pub fn uses() -> Vec<Use> {
    points().chain(watched()).chain(probes()).collect()
}

/// The programs' names are made as the agent does.
fn points() -> impl Iterator<Item = Use> {
    POINTS.iter().flat_map(|point| {
        let one = |backend: Backend, end: &str, symbols: &[&'static str]| Use {
            object: "delay",
            program: format!("{}_{end}", backend.name()),
            symbols: symbols.to_vec(),
            arguments: None,
            serves: format!("delay {}", point.name),
            backend,
        };
        let name = point.name.replace('.', "_");
        let mut uses = Vec::new();
        for backend in [Backend::Fentry, Backend::Kprobe] {
            uses.push(one(backend, &name, point.functions));
            for further in point.further {
                let end = format!("{name}_{}", further.name);
                uses.push(one(backend, &end, further.functions));
            }
        }
        if !point.tracepoint.is_empty() {
            uses.push(one(Backend::Tp, point.tracepoint, &[point.tracepoint]));
        }
        uses
    })
}

/// What tells filters who submits requests and who forks whom.
fn watched() -> impl Iterator<Item = Use> {
    SUBMITTERS.into_iter().chain(FORKS).map(|one| Use {
        object: "delay",
        program: one.program.into(),
        symbols: vec![one.tracepoint],
        arguments: Some(one.arguments),
        serves: "delay block.issue".into(),
        backend: Backend::Tp,
    })
}

fn probes() -> impl Iterator<Item = Use> {
    PROBES.iter().flat_map(|probe| {
        let variants = probe.parts.iter().flat_map(|part| part.variants);
        variants.flat_map(|variant| {
            variant.hooks.iter().map(|hook| Use {
                object: probe.name,
                program: hook.program.into(),
                symbols: hook
                    .symbols
                    .iter()
                    .copied()
                    .filter(|symbol| *symbol != ASKED_FOR)
                    .collect(),
                arguments: hook.arguments,
                serves: format!("hist {}", probe.name),
                backend: variant.backend,
            })
        })
    })
}
