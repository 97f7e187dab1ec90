//! A running agent's state: the probe and the rules in force. Dropping it detaches everything.

use std::time::{Duration, Instant};

use agent_common::{
    catalogue::{POINTS, slot_of},
    pod::{Control, MAX_DELAY_NS},
};

use crate::{
    failure::{Failure, HOST, USAGE},
    host::Facts,
    kernel::{DelayProbe, KernelLog, now_ns},
    measure::Measurement,
    plan::{self, Choice},
    probes::{Probes, Wanted},
    report::{self, Rule, SCHEMA, Status, probes::Row},
    rules::spec::{Outcome, Spec},
};

/// Delays end this long after the last renewal. One more hit may begin just before that and take up
/// to a second, which still is well within the 5 s that are promised.
pub const LEASE: Duration = Duration::from_millis(3_500);
/// How often the agent renews. Two renewals may be lost before a delay is cut.
pub const RENEWAL: Duration = Duration::from_secs(1);

/// The tracepoint at which probes and delays meet, and at which their order matters.
pub const SYSCALL_ENTRY: &str = "sys_enter";

pub struct Session {
    probe: DelayProbe,
    rules: Vec<Rule>,
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
            rules: Vec::new(),
            choice,
            started: Instant::now(),
            probes: Probes::new(facts.clone()),
            measured_at_entry: 0,
        };
        Ok((session, log))
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
            self.probe.attach_last()?;
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
        let mut rules = self.rules.clone();
        rules.retain(|other| other.name != rule.name);
        if rule.delay_ns > 0 {
            rules.push(rule);
            rules.sort_by(|a, b| a.name.cmp(&b.name));
        }
        self.apply(&rules)?;
        self.rules = rules;
        Ok(())
    }

    /// Removes all rules.
    ///
    /// # Errors
    /// A refusal of the kernel.
    pub fn reset(&mut self) -> Result<(), Failure> {
        self.apply(&[])?;
        self.rules.clear();
        Ok(())
    }

    /// Extends the lease. Does nothing while no rule is in force, so that an agent at rest rests.
    ///
    /// # Errors
    /// A refusal of the kernel.
    pub fn renew(&mut self) -> Result<(), Failure> {
        if self.rules.is_empty() {
            return Ok(());
        }
        let rules = std::mem::take(&mut self.rules);
        let result = self.apply(&rules);
        self.rules = rules;
        result
    }

    fn apply(&mut self, rules: &[Rule]) -> Result<(), Failure> {
        let mut control = Control {
            lease_until_ns: now_ns() + LEASE.as_nanos() as u64,
            ..Control::default()
        };
        for rule in rules {
            for slot in rule.points.iter().filter_map(|point| slot_of(point)) {
                control.delay_ns[slot] = (control.delay_ns[slot] + rule.delay_ns).min(MAX_DELAY_NS);
            }
        }
        Ok(self.probe.control(&control)?)
    }

    /// Everything that `status` shows.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn status(&self, socket: &str) -> Result<Status, Failure> {
        let mut points = Vec::new();
        for (slot, attached) in self.probe.points().iter().enumerate() {
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
            },
            rules: self.rules.clone(),
            points,
        })
    }
}

/// Rules that the probe cannot carry out yet.
impl Session {
    /// Puts a rule in force beside the others, or refuses it whole. Returns its name.
    ///
    /// # Errors
    /// Always.
    pub fn inject(&mut self, _spec: Spec) -> Result<String, Failure> {
        Err(no_rules())
    }

    /// What came of each rule in force.
    ///
    /// # Errors
    /// Always.
    pub fn outcomes(&self) -> Result<Vec<Outcome>, Failure> {
        Err(no_rules())
    }

    /// Removes the rule of that name, or all.
    ///
    /// # Errors
    /// Always.
    pub fn remove(&mut self, _name: Option<&str>) -> Result<(), Failure> {
        Err(no_rules())
    }
}

fn no_rules() -> Failure {
    Failure::new(HOST, "this agent does not carry out rules yet")
        .hint("delay with iolag set or iolag set-blk")
}
