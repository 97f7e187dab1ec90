//! The tasks that the probe `sched` knows, read through a mapping.

use std::cmp::Reverse;

use agent_common::probes::sched::{DEAD, TASK_BITS, Task};
use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{Map, MapData, PerCpuArray},
};

use super::mapped::Mapped;
use crate::kernel::now_ns;

/// What tasks are ranked by: time waited, time on CPUs (ns), waits (count).
const ORDERS: [fn(&Task) -> u64; 3] = [|t| t.wait_ns, |t| t.oncpu_ns, |t| t.waits];
const ENTRIES: usize = 1 << TASK_BITS;

/// Tries to see a CPU stay with a task while that task is read.
const TRIES: usize = 3;

pub struct Tasks {
    tasks: MapData,
    /// Of each CPU the time of the last switch (ns), and the pid that was switched in.
    switched: PerCpuArray<MapData, [u64; 2]>,
}

impl Tasks {
    /// Takes the maps out of a loaded object; none if it has none.
    ///
    /// # Errors
    /// They are not of the kinds that they should be.
    pub fn take(ebpf: &mut Ebpf) -> anyhow::Result<Option<Self>> {
        let Some(tasks) = ebpf.take_map("TASKS") else {
            return Ok(None);
        };
        let Map::Array(tasks) = tasks else {
            anyhow::bail!("TASKS is no array");
        };
        let switched = ebpf.take_map("SWITCHED").context("no map SWITCHED")?;
        Ok(Some(Self {
            tasks,
            switched: PerCpuArray::try_from(switched)?,
        }))
    }

    /// Of each order the first `most` tasks, as they are since the probe was loaded, in no order and each once.
    ///
    /// # Errors
    /// The mapping or a look-up is refused.
    pub fn read(&self, most: usize) -> anyhow::Result<Vec<Task>> {
        let table = Table(Mapped::new(
            &self.tasks,
            ENTRIES * size_of::<Task>(),
            "TASKS",
        )?);
        let running = self.running(&table)?;
        let mut leaders = ORDERS.map(|order| Leaders::new(order, most));
        for place in 0..ENTRIES {
            let Some(mut task) = table.read(place) else {
                continue;
            };
            if let Some(now) = running.iter().find(|now| now.pid == task.pid) {
                // What was read of it first, unless it left its CPU since.
                task.oncpu_ns = task.oncpu_ns.max(now.oncpu_ns);
            }
            for order in &mut leaders {
                order.offer(&task);
            }
        }
        let mut tasks: Vec<Task> = leaders.into_iter().flat_map(Leaders::done).collect();
        tasks.sort_by_key(|task| task.pid);
        tasks.dedup_by_key(|task| task.pid);
        Ok(tasks)
    }

    /// The tasks that are on CPUs, with their time there until now: the programs add it when they leave.
    fn running(&self, table: &Table) -> anyhow::Result<Vec<Task>> {
        let switched = || self.switched.get(&0, 0).context("failed to read SWITCHED");
        let mut seen: Vec<Task> = Vec::new();
        for _ in 0..TRIES {
            let before = switched()?;
            let now = now_ns();
            let tasks: Vec<Option<Task>> = before
                .iter()
                .map(|[_, pid]| table.find(*pid as u32))
                .collect();
            let after = switched()?;
            for ((before, after), task) in before.iter().zip(after.iter()).zip(tasks) {
                let [since, pid] = *before;
                match task {
                    // It was there all the while, so that its entry did not have this stretch yet.
                    Some(mut task) if before == after && since != 0 && pid != 0 => {
                        task.oncpu_ns += now.saturating_sub(since);
                        seen.retain(|other| other.pid != task.pid);
                        seen.push(task);
                    }
                    _ => {}
                }
            }
        }
        Ok(seen)
    }
}

struct Table(Mapped);

impl Table {
    /// None if the entry is free, or changes hands.
    fn read(&self, place: usize) -> Option<Task> {
        debug_assert!((place + 1) * size_of::<Task>() <= self.0.bytes());
        // SAFETY: the entry lies within the mapping, aligned; any bytes are a task. Programs write aligned words.
        unsafe {
            let entry = self.0.address().cast::<Task>().add(place);
            let pid = (&raw const (*entry).pid).read_volatile();
            if pid == 0 {
                return None;
            }
            let task = entry.read_volatile();
            ((&raw const (*entry).pid).read_volatile() == pid && task.pid == pid).then_some(task)
        }
    }

    /// The entry of a task that is alive.
    fn find(&self, pid: u32) -> Option<Task> {
        let first = pid as usize & (ENTRIES - 1);
        [first, first ^ (ENTRIES / 2)]
            .into_iter()
            .filter_map(|place| self.read(place))
            .find(|task| task.pid == pid && task.flags & DEAD == 0)
    }
}

/// The tasks that are first in an order, of which those that have nothing of it are not part.
struct Leaders {
    order: fn(&Task) -> u64,
    most: usize,
    /// Up to twice as many as are wanted, so that they are rarely sorted.
    kept: Vec<Task>,
    /// What the last of the leaders has at least.
    least: u64,
}

impl Leaders {
    fn new(order: fn(&Task) -> u64, most: usize) -> Self {
        Self {
            order,
            most,
            kept: Vec::with_capacity(2 * most),
            least: 0,
        }
    }

    fn offer(&mut self, task: &Task) {
        if (self.order)(task) <= self.least {
            return;
        }
        self.kept.push(*task);
        if self.kept.len() == 2 * self.most {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let order = self.order;
        self.kept.sort_unstable_by_key(|task| Reverse(order(task)));
        self.kept.truncate(self.most);
        if self.kept.len() == self.most {
            self.least = self.kept.last().map_or(0, order);
        }
    }

    fn done(mut self) -> Vec<Task> {
        self.cut();
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaders_are_those_that_sorting_would_find() {
        let tasks: Vec<Task> = (0..10_000u64)
            .map(|place| Task {
                pid: place as u32 + 1,
                wait_ns: (place * 7_919) % 10_007,
                ..Task::default()
            })
            .collect();
        let mut leaders = Leaders::new(|task| task.wait_ns, 50);
        for task in &tasks {
            leaders.offer(task);
        }
        let mut sorted = tasks.clone();
        sorted.sort_by_key(|task| Reverse(task.wait_ns));
        assert_eq!(leaders.done(), sorted[..50]);
        let mut few = Leaders::new(|task| task.wait_ns, 50);
        few.offer(&tasks[0]);
        few.offer(&tasks[1]);
        assert_eq!(
            few.done(),
            tasks[1..2],
            "who waited for nothing is no leader"
        );
    }
}
