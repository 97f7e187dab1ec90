//! The tasks that waited for a CPU or had one, of the probe `sched`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use agent_common::probes::sched::{self, DEAD};
use serde::{Deserialize, Serialize};

/// Tasks that are shown of each order.
pub const SHOWN: usize = 20;
/// Tasks of each order that the agent hands out: enough that an interval misses none that matters.
pub const KEPT: usize = 200;

/// What one task (a thread) did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The kernel's own number of the thread.
    pub pid: u32,
    /// Its name; empty if it is not known.
    pub comm: String,
    /// Time on CPUs until now.
    pub oncpu_ns: u64,
    /// Waits for a CPU that are over (count).
    pub waits: u64,
    /// Sum of these waits.
    pub wait_ns: u64,
    /// It has ended.
    pub ended: bool,
}

/// What tasks are ranked by.
const ORDERS: [fn(&Task) -> u64; 3] = [|t| t.wait_ns, |t| t.oncpu_ns, |t| t.waits];

impl Task {
    /// From what the kernel side knows; `root` is `/`.
    #[must_use]
    pub fn new(task: &sched::Task, root: &Path) -> Self {
        let end = task.comm.iter().position(|byte| *byte == 0);
        let mut comm = String::from_utf8_lossy(&task.comm[..end.unwrap_or(16)]).into_owned();
        if comm.is_empty() {
            // It changes its name; nothing is known if it has ended.
            let path = root.join(format!("proc/{}/comm", task.pid));
            comm = fs::read_to_string(path).map_or(comm, |text| text.trim_end().into());
        }
        Self {
            pid: task.pid,
            comm,
            oncpu_ns: task.oncpu_ns,
            waits: task.waits,
            wait_ns: task.wait_ns,
            ended: task.flags & DEAD != 0,
        }
    }

    fn less(&self, [wait_ns, oncpu_ns, waits]: [u64; 3]) -> Self {
        Self {
            oncpu_ns: self.oncpu_ns.saturating_sub(oncpu_ns),
            waits: self.waits.saturating_sub(waits),
            wait_ns: self.wait_ns.saturating_sub(wait_ns),
            ..self.clone()
        }
    }

    /// The same task later, and not one that got its number, or lost its entry meanwhile.
    fn continues(&self, before: &Self) -> bool {
        ORDERS.iter().all(|order| order(self) >= order(before)) && (self.ended || !before.ended)
    }
}

/// What the tasks did between two readings. Of one that was not among the first [`KEPT`] of any order before:
/// at least that, as it had no more than the last of these.
#[must_use]
pub fn since(now: &[Task], before: &[Task]) -> Vec<Task> {
    let least = ORDERS.map(|order| {
        let mut sorted: Vec<u64> = before.iter().map(order).collect();
        sorted.sort_unstable_by_key(|value| Reverse(*value));
        sorted.get(KEPT - 1).copied().unwrap_or(0)
    });
    let before: BTreeMap<u32, &Task> = before.iter().map(|task| (task.pid, task)).collect();
    now.iter()
        .map(|task| match before.get(&task.pid) {
            Some(before) if task.continues(before) => task.less(ORDERS.map(|order| order(before))),
            Some(_) => task.clone(),
            None => task.less(least),
        })
        .filter(|task| ORDERS.iter().any(|order| order(task) > 0))
        .collect()
}

/// The [`SHOWN`] tasks that waited longest and those that had CPUs longest, each once, the longest wait first.
#[must_use]
pub fn first(mut tasks: Vec<Task>) -> Vec<Task> {
    let mut shown = BTreeSet::new();
    for order in [ORDERS[1], ORDERS[0]] {
        tasks.sort_by_key(|task| (Reverse(order(task)), task.pid));
        let leaders = tasks.iter().filter(|task| order(task) > 0).take(SHOWN);
        shown.extend(leaders.map(|task| task.pid));
    }
    tasks.retain(|task| shown.contains(&task.pid));
    tasks
}

/// Keeps the tasks that have these labels. A task has a name; by anything else it cannot be told.
pub fn filter(tasks: &mut Vec<Task>, filters: &[(String, String)]) {
    tasks.retain(|task| {
        filters
            .iter()
            .all(|(key, value)| key == "comm" && *value == task.comm)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(pid: u32, wait_ns: u64, oncpu_ns: u64) -> Task {
        Task {
            pid,
            comm: "fio".into(),
            oncpu_ns,
            waits: wait_ns.min(1),
            wait_ns,
            ended: false,
        }
    }

    #[test]
    fn an_interval_is_the_difference_by_pid() {
        let before = [task(1, 10, 100), task(2, 5, 5), task(3, 50, 50)];
        let now = [
            task(1, 15, 100),
            task(2, 5, 5),
            task(3, 20, 60),
            task(4, 7, 0),
        ];
        let interval = since(&now, &before);
        let of = |pid| {
            interval
                .iter()
                .find(|t| t.pid == pid)
                .map(|t| (t.wait_ns, t.oncpu_ns))
        };
        assert_eq!(of(1), Some((5, 0)));
        assert_eq!(of(2), None, "it did nothing");
        assert_eq!(
            of(3),
            Some((20, 60)),
            "less than before: it is another task"
        );
        assert_eq!(of(4), Some((7, 0)), "it is new");
    }

    #[test]
    fn a_pid_that_lives_again_is_another_task() {
        let ended = Task {
            ended: true,
            ..task(1, 10, 10)
        };
        assert_eq!(since(&[task(1, 12, 12)], &[ended])[0].wait_ns, 12);
    }

    #[test]
    fn a_task_that_was_not_handed_out_before_gained_at_least_the_rest() {
        let before: Vec<Task> = (1..=KEPT as u32).map(|pid| task(pid, 30, 40)).collect();
        let interval = since(&[task(9_999, 100, 39)], &before);
        assert_eq!((interval[0].wait_ns, interval[0].oncpu_ns), (70, 0));
    }

    #[test]
    fn the_first_of_both_orders_are_shown_once() {
        let tasks = (0..100).map(|n| task(n + 1, u64::from(n), u64::from(99 - n)));
        let shown = first(tasks.collect());
        assert_eq!(shown.len(), 2 * SHOWN);
        assert_eq!((shown[0].wait_ns, shown[0].oncpu_ns), (99, 0));
        assert_eq!(shown[2 * SHOWN - 1].wait_ns, 0);
        assert_eq!(first(vec![task(1, 1, 1)]).len(), 1);
    }

    #[test]
    fn a_filter_by_anything_but_the_name_leaves_no_task() {
        let of = |key: &str, value: &str| {
            let mut tasks = vec![task(1, 1, 1)];
            filter(&mut tasks, &[(key.to_owned(), value.to_owned())]);
            tasks.len()
        };
        assert_eq!(
            [of("comm", "fio"), of("comm", "dd"), of("cpu", "0")],
            [1, 0, 0]
        );
    }
}
