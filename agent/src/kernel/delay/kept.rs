//! Programs at functions by `fentry` that rules wanted and that stay loaded for the next ones, detached: while the kernel
//! verifies one, no lease is renewed. A program at a kprobe is for any function, and stays by itself.

use std::collections::BTreeMap;

use agent_common::catalogue::Backend;
use aya::Ebpf;
use log::debug;

use crate::{
    kernel::{
        attach::{Link, attach, attach_again, detach, unload},
        btf::OnDemand,
    },
    plan::Attempt,
};

/// By name, each with the function that it is for.
#[derive(Default)]
pub struct Kept(BTreeMap<String, &'static str>);

impl Kept {
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Attaches a program: at once if it was kept for that function.
    ///
    /// # Errors
    /// The kernel's reason, in one line.
    pub fn attach(
        &self,
        ebpf: &mut Ebpf,
        btf: &OnDemand,
        name: &str,
        attempt: Attempt,
    ) -> Result<Option<Link>, String> {
        if attempt.backend != Backend::Fentry {
            return attach(ebpf, None, name, attempt);
        }
        match self.0.get(name) {
            Some(symbol) if *symbol == attempt.symbol => match attach_again(ebpf, name) {
                Ok(link) => return Ok(Some(link)),
                // Before 5.13 it is refused, and where the program could not stay.
                Err(reason) => debug!("{name} is loaded again: {reason}"),
            },
            // Whoever tries again what was refused loses the program that is kept.
            Some(symbol) => return Err(format!("was refused when {symbol} was taken")),
            None => {}
        }
        attach(ebpf, Some(btf.get()?), name, attempt)
    }

    /// Detaches a program that no rule wants any more.
    pub fn leave(&mut self, ebpf: &mut Ebpf, name: String, symbol: &'static str, link: Link) {
        let is_fentry = matches!(link, Link::Fentry(_));
        if detach(ebpf, &name, link).is_err() {
            // Then by all means.
            unload(ebpf, &name);
        } else if is_fentry {
            self.0.insert(name, symbol);
        }
    }
}
