//! A running agent's state: the probe and the rules in force. Dropping it detaches everything.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use agent_common::{
    catalogue::{POINTS, slot_of},
    pod::MAX_DELAY_NS,
};

use crate::{
    events::ready::Ready,
    failure::{FAILED, Failure, USAGE},
    host::Facts,
    kernel::{DelayProbe, Fields, KernelLog},
    measure::Measurement,
    plan::{self, Choice},
    privileges::kept,
    probes::{Probes, Wanted},
    report::{self, Rule, SCHEMA, Status, probes::Row},
    rules::{
        admit::{admit, known},
        asked::asked,
        force::{Asked, InForce},
        spec::{Came, Delay, Outcome, Spec},
        table::Subjects,
    },
};

mod conditions;
mod directories;

use conditions::Conditions;
use directories::Directories;

/// Delays end this long after the last renewal. One more hit may begin just before that and take up
/// to a second, which still is well within the 5 s that are promised.
pub const LEASE: Duration = Duration::from_millis(3_500);
/// How often the agent renews. Two renewals may be lost before a delay is cut.
pub const RENEWAL: Duration = Duration::from_secs(1);

/// The tracepoint at which probes and delays meet, and at which their order matters.
pub const SYSCALL_ENTRY: &str = "sys_enter";

pub struct Session {
    probe: DelayProbe,
    rules: InForce,
    conditions: Conditions,
    directories: Directories,
    /// Of the last name that was made up for a rule.
    last_number: u64,
    facts: Facts,
    choice: Choice,
    started: Instant,
    probes: Probes,
    /// Probes at [`SYSCALL_ENTRY`] when the delays were attached.
    measured_at_entry: usize,
}

impl Session {
    /// Loads and attaches.
    ///
    /// # Errors
    /// This host cannot; nothing stays attached.
    pub fn start(choice: Choice, facts: &Facts) -> Result<(Self, Option<KernelLog>), Failure> {
        let plans = plan::plan(choice, facts)?;
        let (probe, log) = DelayProbe::load(plans, choice, facts)?;
        let session = Self {
            probe,
            rules: InForce::new(LEASE),
            conditions: Conditions::default(),
            directories: Directories::new(),
            last_number: 0,
            facts: facts.clone(),
            choice,
            started: Instant::now(),
            probes: Probes::new(facts.clone()),
            measured_at_entry: 0,
        };
        Ok((session, log))
    }

    /// See [`crate::kernel::RuleMaps::end_of_lease`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn end_of_lease(&self) -> Result<impl Fn() + Send + Sync + use<>, Failure> {
        let end = self.probe.rules.end_of_lease();
        end.map_err(|error| Failure::new(FAILED, format!("failed to share the lease: {error:#}")))
    }

    /// The measuring probes.
    #[must_use]
    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// The measuring probes, for their events. What attaches or detaches goes through this session.
    pub fn probes_mut(&mut self) -> &mut Probes {
        &mut self.probes
    }

    /// Takes a measuring probe that was loaded.
    ///
    /// # Errors
    /// The delays cannot be attached behind it: it is unloaded again, and all is as before.
    pub fn add_probe(&mut self, measurement: Measurement) -> Result<Row, Failure> {
        let name = measurement.target().name();
        let row = self.probes.add(measurement);
        if let Err(failure) = self.delays_last() {
            // It would not see the delays: better none than one that measures something else.
            drop(self.take_probe(&name)?);
            return Err(failure);
        }
        Ok(row)
    }

    /// Loads the probes that `run --probes` names, as [`Probes::load_wanted`].
    ///
    /// # Errors
    /// As [`Probes::load_wanted`]; or the delays cannot be attached behind them.
    pub fn load_probes(&mut self, wanted: Wanted) -> Result<(), Failure> {
        self.probes.load_wanted(wanted)?;
        self.delays_last()
    }

    /// Takes a measuring probe out, as [`Probes::take`].
    ///
    /// # Errors
    /// As [`Probes::take`].
    pub fn take_probe(&mut self, name: &str) -> Result<Measurement, Failure> {
        let taken = self.probes.take(name)?;
        self.measured_at_entry = self.probes.attached_at(SYSCALL_ENTRY);
        Ok(taken)
    }

    /// Programs at a tracepoint run in the order in which they were attached, so a delay attached before a
    /// probe would end before that probe's clock starts. At functions it is the other way round: what was
    /// attached last runs first.
    fn delays_last(&mut self) -> Result<(), Failure> {
        let measured = self.probes.attached_at(SYSCALL_ENTRY);
        if measured > self.measured_at_entry {
            self.rules.attach_last(&mut self.probe)?;
        }
        self.measured_at_entry = measured;
        Ok(())
    }

    /// Replaces the rule of that name; a delay of 0 removes it.
    ///
    /// # Errors
    /// An unknown point, a delay above one second, a refusal of the kernel. The rules in force
    /// stay as they were.
    pub fn set(&mut self, rule: Rule) -> Result<(), Failure> {
        if let Some(unknown) = rule.points.iter().find(|point| slot_of(point).is_none()) {
            let known: Vec<_> = POINTS.iter().map(|point| point.name).collect();
            return Err(Failure::new(USAGE, format!("unknown point {unknown:?}"))
                .hint(format!("points are {}", known.join(", "))));
        }
        if rule.delay_ns > MAX_DELAY_NS {
            return Err(Failure::new(
                USAGE,
                format!(
                    "delay {} ns is above 1 s, the longest that iolag waits",
                    rule.delay_ns
                ),
            ));
        }
        if rule.delay_ns == 0 {
            self.rules.remove(&mut self.probe, &rule.name, "set to 0")?;
            return Ok(());
        }
        let asked = Asked {
            spec: spec_of(&rule),
            subjects: Subjects::default(),
            functions: Vec::new(),
        };
        let host = (self.choice, &self.facts);
        self.rules.add(&mut self.probe, asked, true, host)?;
        Ok(())
    }

    /// Puts a rule into force beside the others.
    ///
    /// # Errors
    /// It makes no sense, or not on this host; or as [`InForce::add`]. The rules in force stay as they were.
    pub fn inject(&mut self, mut spec: Spec) -> Result<Came, Failure> {
        let first = spec.points.first().map_or("", String::as_str);
        let (name, number) = admit(&spec.name, first, &self.names(), self.last_number)?;
        self.last_number = number;
        spec.name.clone_from(&name);
        let hierarchy = |controller: Option<&str>| self.fields()?.hierarchy(controller);
        let asked = asked(spec, Path::new("/"), hierarchy)?;
        let conditions = &asked.spec.abort_if;
        let watch = Conditions::look(conditions, Path::new("/"), &self.probes)?;
        let host = (self.choice, &self.facts);
        let watched = self.directories.watch(&asked);
        let added = watched.and_then(|watched| {
            let id = self.rules.add(&mut self.probe, asked, false, host)?;
            self.directories.add(id, watched);
            Ok(id)
        });
        self.directories.keep(&self.rules.ids());
        let id = added?;
        self.conditions.add(&name, watch);
        Ok(Came { id, name })
    }

    /// Ready when [`Self::end_with_directories`] has to be called; none where the kernel does not tell.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn directories_ready(&self) -> Result<Option<Ready>, Failure> {
        self.directories.ready()
    }

    /// Takes rules out of force of which a directory has gone.
    ///
    /// # Errors
    /// The kernel does not tell, or refuses.
    pub fn end_with_directories(&mut self) -> Result<(), Failure> {
        for (id, why) in self.directories.gone()? {
            if let Some(name) = self.rules.remove_id(&mut self.probe, id, &why)? {
                log::info!("rule {name} ends: {why}");
            }
        }
        Ok(())
    }

    /// Names of the rules in force.
    fn names(&self) -> Vec<&str> {
        let specs = self.rules.specs();
        specs.into_iter().map(|spec| spec.name.as_str()).collect()
    }

    /// What filters read of this kernel; none until [`Self::know`].
    #[must_use]
    pub fn fields(&self) -> Option<&Fields> {
        self.rules.fields()
    }

    /// What has to be read of the host before a rule can filter, to be done by a thread; none if it was.
    #[must_use]
    pub fn to_learn(&self) -> Option<Facts> {
        self.fields().is_none().then(|| self.facts.clone())
    }

    /// Learns where the kernel's fields are.
    ///
    /// # Errors
    /// As [`InForce::know`].
    pub fn know(&mut self, fields: Fields) -> Result<(), Failure> {
        let own = crate::rules::resolve::own_program(Path::new("/")).unwrap_or_default();
        self.rules
            .know(&mut self.probe, fields, (own.0, own.1.into()))
    }

    /// What came of the rules in force, then of those that ended.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn outcomes(&self) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = self.rules.outcomes(&self.probe)?;
        outcomes.extend(self.rules.ended().cloned());
        Ok(outcomes)
    }

    /// Takes a rule out of force, or all.
    ///
    /// # Errors
    /// There is none of that name; the kernel refuses.
    pub fn remove(&mut self, name: Option<&str>) -> Result<(), Failure> {
        let Some(name) = name else {
            return self.reset();
        };
        if self.rules.remove(&mut self.probe, name, "removed")? {
            return Ok(());
        }
        known(name, &self.names())
    }

    /// Takes the rule of that id out of force. Returns its name.
    ///
    /// # Errors
    /// It is not in force any more; the kernel refuses.
    pub fn remove_id(&mut self, id: u64) -> Result<String, Failure> {
        let removed = self.rules.remove_id(&mut self.probe, id, "removed")?;
        removed.ok_or_else(|| Failure::new(USAGE, format!("the rule of id {id} is not in force")))
    }

    /// Removes all rules.
    ///
    /// # Errors
    /// A refusal of the kernel.
    pub fn reset(&mut self) -> Result<(), Failure> {
        self.rules.clear(&mut self.probe, "reset")
    }

    /// Takes rules that are at their end out of force, all of them if a condition is met, and extends the lease of
    /// the others.
    ///
    /// # Errors
    /// A refusal of the kernel.
    pub fn renew(&mut self) -> Result<(), Failure> {
        self.rules.expire(&mut self.probe)?;
        self.directories.keep(&self.rules.ids());
        self.abort_if()?;
        self.rules.renew(&mut self.probe)
    }

    fn abort_if(&mut self) -> Result<(), Failure> {
        let specs = self.rules.specs();
        let in_force: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        self.conditions.keep(&in_force);
        if let Some(why) = self.conditions.met(Path::new("/"), &mut self.probes) {
            log::warn!("all rules end: {why}");
            self.rules.clear(&mut self.probe, &why)?;
        }
        Ok(())
    }

    /// Everything that `status` shows.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn status(&self, socket: &str) -> Result<Status, Failure> {
        let mut points = Vec::new();
        for (slot, attached) in self.probe.points() {
            let sample = self.probe.sample(slot)?;
            points.push(report::Point::new(
                attached.point.name,
                attached.attempt.symbol,
                attached.attempt.backend.name(),
                &attached.refused,
                &sample,
            ));
        }
        Ok(Status {
            schema: SCHEMA,
            agent: report::Agent {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: std::process::id(),
                uptime_ns: self.started.elapsed().as_nanos() as u64,
                socket: socket.into(),
                backend: self.choice.map_or("auto", |backend| backend.name()).into(),
                lease_ns: LEASE.as_nanos() as u64,
                capabilities: kept(),
            },
            rules: self.rules.specs().into_iter().map(Rule::of).collect(),
            points,
        })
    }
}

/// What `set` and `set-blk` ask for.
fn spec_of(rule: &Rule) -> Spec {
    let points: Vec<&str> = rule.points.iter().map(String::as_str).collect();
    let delay = Delay::Fixed { ns: rule.delay_ns };
    Spec::plain(&rule.name, &points, delay)
}
