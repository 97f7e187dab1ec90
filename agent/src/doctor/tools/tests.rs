use super::*;
use crate::{
    doctor::facts::fixture::facts,
    failure::FAILED,
    report::{self, Rule},
};

fn has(check: &Check, status: Status, words: &[&str]) {
    let text = format!("{check:?}");
    assert_eq!(check.status, status, "{text}");
    assert_eq!(check.remedy.is_some(), status == Warn, "{text}");
    assert!(check.reason.is_some() || status == Status::Ok, "{text}");
    for word in words {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

fn agent(rules: usize) -> Agent {
    let rule = Rule {
        name: "set".into(),
        points: vec!["vfs.read".into()],
        delay_ns: 1,
    };
    Agent {
        schema: 1,
        agent: report::Agent {
            version: "0".into(),
            pid: 7,
            uptime_ns: 1,
            socket: "/run/s".into(),
            backend: "auto".into(),
            lease_ns: 1,
            capabilities: Vec::new(),
        },
        rules: vec![rule; rules],
        points: Vec::new(),
    }
}

fn owner(pid: u32, comm: &str, programs: &[u32]) -> Owner {
    Owner {
        pid,
        comm: comm.into(),
        programs: programs.into(),
    }
}

#[test]
fn the_agent_at_the_socket_is_told_with_its_rules() {
    let of = |agent| at_socket(Path::new("/run/s"), agent);
    has(&of(Ok(None)), Status::Ok, &["none at /run/s"]);
    let (idle, busy) = (agent(0), agent(2));
    has(&of(Ok(Some(&idle))), Status::Ok, &["pid 7 at /run/s"]);
    has(
        &of(Ok(Some(&busy))),
        Warn,
        &["rules in force: 2", "iolag reset"],
    );
    let failure = Failure::new(FAILED, "/run/s is not a socket").hint("name another");
    has(&of(Err(&failure)), Warn, &["not a socket", "name another"]);
}

#[test]
fn other_agents_are_those_that_do_not_serve_the_socket() {
    let owners = [owner(7, "iolag", &[1]), owner(9, "bpftrace", &[2])];
    has(&other_agents(&owners, Some(7)), Status::Ok, &[]);
    has(&other_agents(&owners, None), Warn, &["pid 7", "add up"]);
}

#[test]
fn programs_of_others_are_told_with_their_owners() {
    let program = |id, name: &str| TracingProgram {
        id,
        name: name.into(),
    };
    let of = |loaded| {
        let owners = vec![owner(7, "iolag", &[1]), owner(9, "bpftrace", &[2])];
        other_programs(&Programs { loaded, owners }, None)
    };
    has(&of(Ok(vec![program(1, "tp_sys_enter")])), Status::Ok, &[]);
    let both = vec![program(2, "x"), program(3, ""), program(1, "ours")];
    let check = of(Ok(both));
    has(
        &check,
        Warn,
        &["2 others", "x of bpftrace (pid 9)", "unnamed of no process"],
    );
    has(&of(Err("not permitted".into())), Skip, &["not permitted"]);
    // An agent under another name.
    let programs = Programs {
        loaded: Ok(vec![program(2, "x")]),
        owners: vec![owner(9, "other", &[2])],
    };
    has(&other_programs(&programs, Some(9)), Status::Ok, &[]);
}

#[test]
fn long_lists_are_cut() {
    let names = (0..7).map(|number| number.to_string()).collect();
    assert_eq!(some(names), "0, 1, 2, 3, 4 and 2 more");
}

#[test]
fn modules_that_delay_are_told() {
    let of = |modules| facts(&[("proc/modules", modules)]);
    let none = of("ext4 1 2 - Live 0x0\n");
    has(&io_delayer(&none), Status::Ok, &[]);
    has(&dm_delay(&none), Status::Ok, &["not loaded"]);
    has(
        &io_delayer(&of("io_delayer 16384 0 - Live 0x0 (OE)\n")),
        Warn,
        &["rmmod"],
    );
    has(
        &dm_delay(&of("dm_delay 16384 0 - Live 0x0\n")),
        Status::Ok,
        &["not used"],
    );
    has(
        &dm_delay(&of("dm_delay 16384 2 - Live 0x0\n")),
        Warn,
        &["used by 2"],
    );
}
