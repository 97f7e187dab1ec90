//! Events for people: a line each.

use std::fmt::Write as _;

use crate::{
    report::events::{Event, OomKill},
    units::format_bytes,
};

#[must_use]
pub fn line(event: &Event) -> String {
    match event {
        Event::OomKill(kill) => oom_kill(kill) + "\n",
        Event::Lost { count } => {
            format!("{count} events were lost: they came faster than they were taken\n")
        }
    }
}

fn oom_kill(kill: &OomKill) -> String {
    let victim = &kill.victim;
    let mut text = format!(
        "{} killed {} ({})",
        kill.time,
        victim.task.pid,
        printable(&victim.task.comm)
    );
    if let Some(cgroup) = victim.memory_cgroup.as_ref().or(victim.cgroup.as_ref()) {
        let _infallible = write!(text, " of {}", printable(cgroup));
    }
    let memory: Vec<String> = [
        ("anon", victim.anon_rss_bytes),
        ("file", victim.file_rss_bytes),
        ("shmem", victim.shmem_rss_bytes),
        ("total-vm", victim.total_vm_bytes),
    ]
    .into_iter()
    .filter_map(|(name, bytes)| Some(format!("{name} {}", format_bytes(bytes?))))
    .collect();
    if !memory.is_empty() {
        let _infallible = write!(text, ", {}", memory.join(" "));
    }
    let asker = &kill.asked_by;
    let _infallible = write!(
        text,
        ", oom_score_adj {}; {} ({}) asked",
        victim.oom_score_adj,
        asker.pid,
        printable(&asker.comm)
    );
    if let Some(constraint) = &kill.constraint {
        let _infallible = write!(text, "; constraint {constraint}");
    }
    if let Some(limit) = &kill.limit_cgroup {
        let _infallible = write!(text, ", limit of {}", printable(limit));
    }
    text
}

/// Processes choose their names, terminals obey control characters.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::events::{Task, Victim};

    #[test]
    fn a_kill_is_one_line_whatever_the_victim_is_called() {
        let task = |pid, comm: &str| Task {
            pid,
            tid: pid,
            comm: comm.into(),
        };
        let mut kill = OomKill {
            time: "2026-11-22T08:00:00.000Z".into(),
            at_ns: 1,
            victim: Victim {
                task: task(17, "a\n\u{1b}[2J"),
                cgroup: Some("/u".into()),
                memory_cgroup: Some("/m".into()),
                oom_score_adj: 1000,
                total_vm_bytes: Some(2 << 20),
                anon_rss_bytes: Some(1 << 20),
                file_rss_bytes: Some(0),
                shmem_rss_bytes: None,
            },
            asked_by: task(18, "b"),
            constraint: None,
            limit_cgroup: None,
            order: None,
        };
        let text = line(&Event::OomKill(Box::new(kill.clone())));
        assert!(
            text.lines().count() == 1 && !text.contains('\u{1b}'),
            "{text}"
        );
        for part in [
            "killed 17 (a??[2J) of /m",
            "oom_score_adj 1000; 18 (b) asked",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(
            !text.contains("constraint") && !text.contains("shmem"),
            "{text}"
        );
        kill.constraint = Some("memcg".into());
        kill.limit_cgroup = Some("/m".into());
        let text = line(&Event::OomKill(Box::new(kill)));
        assert!(text.ends_with("constraint memcg, limit of /m\n"), "{text}");
    }
}
