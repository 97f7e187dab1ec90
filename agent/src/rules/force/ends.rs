//! How rules end.

use std::path::Path;

use agent_common::rules::{Kind, Set};

use super::InForce;
use crate::{
    failure::Failure,
    kernel::{DelayProbe, now_ns},
};

impl InForce {
    /// Takes a rule out of force; false if there is none of that name.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(
        &mut self,
        probe: &mut DelayProbe,
        name: &str,
        why: &str,
    ) -> Result<bool, Failure> {
        let Some(place) = self.place_of(name) else {
            return Ok(false);
        };
        self.remove_places(probe, 1 << place, why)?;
        Ok(true)
    }

    /// As [`Self::remove`], by its id. Returns the name.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_id(
        &mut self,
        probe: &mut DelayProbe,
        id: u64,
        why: &str,
    ) -> Result<Option<String>, Failure> {
        let found = self.rules().find(|(_, placed)| placed.id == id);
        let Some((place, name)) = found.map(|(place, placed)| (place, placed.spec.name.clone()))
        else {
            return Ok(None);
        };
        self.remove_places(probe, 1 << place, why)?;
        Ok(Some(name))
    }

    /// Takes all rules out of force.
    ///
    /// # Errors
    /// The kernel refuses: they end with the lease.
    pub fn clear(&mut self, probe: &mut DelayProbe, why: &str) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        self.remove_places(probe, Set::MAX, why)
            .map_err(|failure| self.give_up(probe, &failure.message))
    }

    fn remove_places(
        &mut self,
        probe: &mut DelayProbe,
        places: Set,
        why: &str,
    ) -> Result<(), Failure> {
        let mut table = self.table.clone();
        for (place, placed) in table.iter_mut().enumerate() {
            if places & (1 << place) != 0 {
                *placed = None;
            }
        }
        self.change(probe, table, Some(why))
    }

    /// Takes rules out of force that are at their end: time, hits, or processes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn expire(&mut self, probe: &mut DelayProbe) -> Result<(), Failure> {
        let now_ns = now_ns();
        if self.compiled.control.by[Kind::Pid as usize] != 0 {
            probe.rules.forget_dead(Path::new("/"))?;
        }
        let mut ended = Vec::new();
        for (place, placed) in self.rules() {
            let spec = &placed.spec;
            let why = if spec
                .for_ns
                .is_some_and(|length| now_ns >= placed.start_ns + length)
            {
                "its time is over"
            } else if let Some(max) = spec.max_hits
                && probe.rules.hits(place as u32)? >= max
            {
                "it had its hits"
            } else if !placed.subjects.pids.is_empty() && probe.rules.processes(1 << place) == 0 {
                "its processes are gone"
            } else {
                continue;
            };
            ended.push((spec.name.clone(), why));
        }
        for (name, why) in ended {
            self.remove(probe, &name, why)?;
            log::info!("rule {name} ends: {why}");
        }
        Ok(())
    }
}
