use super::*;

fn refusal(backend: Backend, symbol: &str, reason: &str) -> Refusal {
    Refusal {
        backend: backend.name().into(),
        symbol: symbol.into(),
        reason: reason.into(),
    }
}

/// What this kernel has of each point: the tracepoints refused or not, and fentry refused everywhere.
fn trials(tracepoints: bool) -> Vec<Trial> {
    let mut trials = Vec::new();
    for backend in BACKENDS {
        for point in &POINTS {
            let came = match backend {
                Backend::Fentry => {
                    let refused = refusal(backend, point.functions[0], "not permitted");
                    Came::Refused(vec![refused])
                }
                Backend::Kprobe => Came::Nothing(vec![refusal(backend, "x", "no kprobes")]),
                Backend::Tp if point.tracepoint.is_empty() => {
                    Came::Nothing(vec![refusal(backend, point.name, "no tracepoint")])
                }
                Backend::Tp if tracepoints => Came::Attached(point.tracepoint),
                Backend::Tp => Came::Refused(vec![refusal(backend, point.tracepoint, point.name)]),
            };
            trials.push(Trial {
                point,
                backend,
                came,
            });
        }
    }
    trials
}

fn others(fine: bool) -> Others {
    Others {
        exit: if fine { Ok(()) } else { Err("no".into()) },
        functions: if fine {
            Ok(())
        } else {
            Err("no kprobes".into())
        },
        filters: if fine {
            Ok(vec!["block_getrq"])
        } else {
            Err("no BTF".into())
        },
    }
}

fn find<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().find(|check| check.name == name).unwrap()
}

#[test]
fn one_backend_at_each_point_does_for_the_main_job() {
    let trials = trials(true);
    assert!(main_job(&trials));
    let checks = checks(&trials, &others(true));
    assert!(
        checks.iter().all(|check| check.status != Fail),
        "{checks:?}"
    );
    let fentry = find(&checks, "backend.fentry");
    assert_eq!(
        (fentry.status, fentry.value.as_str()),
        (Warn, "0 of 7 points")
    );
    assert_eq!(fentry.reason.as_deref(), Some("not permitted"));
    let kprobe = find(&checks, "backend.kprobe");
    assert_eq!(
        (kprobe.status, kprobe.reason.as_deref()),
        (Skip, Some("no kprobes"))
    );
    let tp = find(&checks, "backend.tp");
    assert_eq!(
        (tp.status, tp.value.as_str()),
        (Status::Ok, "6 of 7 points")
    );
    let read = find(&checks, "vfs.read");
    assert_eq!(
        (read.status, read.value.as_str()),
        (Status::Ok, "tp at sys_enter")
    );
    assert_eq!(read.refused.len(), 2);
    // For rules only, so nothing that the main job needs.
    let lookup = find(&checks, "vfs.lookup");
    assert_eq!((lookup.status, lookup.value.as_str()), (Warn, "none"));
    let reason = lookup.reason.as_deref().unwrap();
    assert_eq!(
        reason,
        "fentry lookup_slow: not permitted; kprobe x: no kprobes; tp: no tracepoint"
    );
}

#[test]
fn without_any_backend_the_main_job_fails_with_all_reasons() {
    let trials = trials(false);
    assert!(!main_job(&trials));
    let checks = checks(&trials, &others(false));
    for point in POINTS.iter().filter(|point| point.layer != Layer::Rules) {
        let check = find(&checks, point.name);
        assert_eq!(check.status, Fail, "{check:?}");
        for word in ["fentry", "kprobe", "tp "] {
            assert!(check.reason.as_deref().unwrap().contains(word), "{check:?}");
        }
        assert!(check.remedy.is_some());
    }
    // Reasons that differ are told point by point.
    let tp = find(&checks, "backend.tp");
    assert!(
        tp.reason
            .as_deref()
            .unwrap()
            .contains("vfs.read: vfs.read; "),
        "{tp:?}"
    );
    for name in ["fn:NAME", "filters", "exit"] {
        let check = find(&checks, name);
        assert_eq!(check.status, Warn, "{check:?}");
        assert!(check.reason.is_some() && check.remedy.is_some());
    }
}

#[test]
fn the_cheapest_backend_is_the_one_that_is_taken() {
    let mut trials = trials(true);
    for trial in &mut trials {
        if trial.backend == Backend::Fentry {
            trial.came = Came::Attached(trial.point.functions[0]);
        }
    }
    let checks = checks(&trials, &others(true));
    assert_eq!(
        find(&checks, "vfs.read").value,
        "fentry at vfs_read; also tp at sys_enter"
    );
    assert_eq!(find(&checks, "backend.fentry").status, Status::Ok);
    assert_eq!(find(&checks, "vfs.lookup").status, Status::Ok);
}

#[test]
fn a_single_point_that_is_lost_fails_the_main_job() {
    let mut trials = trials(true);
    let lost = trials
        .iter_mut()
        .find(|trial| trial.backend == Backend::Tp && trial.point.name == "block.issue");
    let trial = lost.unwrap();
    trial.came = Came::Refused(vec![refusal(Backend::Tp, "block_rq_issue", "gone")]);
    assert!(!main_job(&trials));
    let checks = checks(&trials, &others(true));
    assert_eq!(find(&checks, "block.issue").status, Fail);
    let failed = checks.iter().filter(|check| check.status == Fail).count();
    assert_eq!(failed, 1);
}

#[test]
fn what_was_not_tried_has_the_same_rows() {
    let names = |checks: Vec<Check>| -> Vec<String> {
        checks.into_iter().map(|check| check.name).collect()
    };
    let tried = names(checks(&trials(true), &others(true)));
    let skipped = not_tried("no root");
    assert!(skipped.iter().all(|check| check.status == Skip));
    assert_eq!(names(skipped), tried);
}
