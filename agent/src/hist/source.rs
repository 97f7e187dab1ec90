//! Where the figures come from.

use std::path::Path;

use super::Request;
use crate::{
    control::{
        client::{call, call_if_any},
        protocol::Command,
    },
    failure::Failure,
    host::Facts,
    kernel::HostTypes,
    measure::Measurement,
    plan,
    report::{dump::Dump, probes::Row},
    session::SYSCALL_ENTRY,
};

pub enum Source<'a> {
    Agent(&'a Path),
    Own(Box<Measurement>),
}

/// What an agent is to a request.
enum Agent {
    Serves,
    /// Its probe is not loaded, or does not tell apart what is needed.
    Lacks,
    /// It is there, and cannot be asked or does not answer.
    Silent(Failure),
    None,
}

impl<'a> Source<'a> {
    /// The agent at `socket`, if there is one whose probe tells apart what is needed; else the probe is
    /// loaded here, for `command`. `endless`: what an agent answers at once would take until somebody ends it, so an
    /// agent that is there and silent is a failure.
    pub fn open(
        request: &mut Request,
        socket: &'a Path,
        command: &str,
        endless: bool,
    ) -> Result<Self, Failure> {
        let agent = match Agent::ask(request, socket) {
            Agent::Serves => return Ok(Self::Agent(socket)),
            Agent::Silent(failure) if endless => return Err(failure),
            other => other,
        };
        let facts = Facts::read(Path::new("/"));
        plan::may_load(&facts, command)?;
        let types = HostTypes::read(&facts)?;
        let backend = request.backend.as_deref();
        let own = Measurement::start(&request.target, &request.fields(), &types, backend)?;
        // Only now: where nothing can be loaded either, that is what there is to say.
        if let Some(line) = agent.warning(request, own.probe().attached_at(SYSCALL_ENTRY)) {
            log::warn!("{line}");
        }
        Ok(Self::Own(Box::new(own)))
    }

    pub fn dump(&mut self, request: &Request) -> Result<Dump, Failure> {
        match self {
            Self::Agent(socket) => call(
                socket,
                &Command::Dump {
                    probe: request.target.name(),
                    by_cpu: request.by_cpu(),
                },
            ),
            Self::Own(own) => own.dump(request.by_cpu()),
        }
    }
}

impl Agent {
    fn ask(request: &mut Request, socket: &Path) -> Self {
        match call_if_any::<Vec<Row>>(socket, &Command::ProbeList) {
            Ok(Some(rows)) if request.serve_from(&rows) => Self::Serves,
            Ok(Some(_)) => Self::Lacks,
            Ok(None) => Self::None,
            Err(failure) => Self::Silent(failure),
        }
    }

    /// What a measurement without it may be wrong about; `at_entry`: the probe has a program where the agent's delays of
    /// system calls are.
    fn warning(&self, request: &Request, at_entry: bool) -> Option<String> {
        match self {
            Self::Silent(failure) => Some(format!("measured without the agent: {failure}")),
            Self::Lacks if at_entry => Some(format!(
                "the running agent's delays end before this probe's clock starts: to measure them, \
                 iolag probe load {}",
                request.target.name()
            )),
            Self::Serves | Self::Lacks | Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead as _, BufReader, Write as _},
        os::unix::net::UnixListener,
        path::PathBuf,
        thread,
    };

    use iolag_tests::agent::scratch_dir;
    use serde_json::json;

    use super::*;
    use crate::{control::protocol::answer, failure::FAILED};

    /// A directory for a socket, which goes with the test.
    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    impl Scratch {
        fn new() -> Self {
            Self(scratch_dir().unwrap())
        }

        fn socket(&self) -> PathBuf {
            self.0.join("iolag.sock")
        }

        /// What is said of somebody at the socket who reads the request, says this and hangs up.
        fn warning(&self, said: String, at_entry: bool) -> Option<String> {
            let listener = UnixListener::bind(self.socket()).unwrap();
            let other = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                stream.write_all(said.as_bytes()).unwrap();
            });
            let warning = warning(&self.socket(), at_entry);
            other.join().unwrap();
            fs::remove_file(self.socket()).unwrap();
            warning
        }
    }

    fn warning(socket: &Path, at_entry: bool) -> Option<String> {
        let mut request = Request::parse("vfs", None, None, None, &[], "auto").unwrap();
        Agent::ask(&mut request, socket).warning(&request, at_entry)
    }

    #[test]
    fn an_agent_that_is_there_and_does_not_answer_is_told() {
        let dir = Scratch::new();
        let told = dir.warning(String::new(), false).unwrap();
        assert!(told.starts_with("measured without the agent: "), "{told}");
        assert!(told.contains("hung up without an answer"), "{told}");
        let refused = answer(Err(Failure::new(FAILED, "not now")));
        let told = dir.warning(format!("{refused}\n"), false).unwrap();
        assert_eq!(told, "measured without the agent: not now");
        fs::write(dir.socket(), "").unwrap();
        let told = warning(&dir.socket(), false).unwrap();
        assert!(told.contains("is not a socket"), "{told}");
    }

    #[test]
    fn who_would_measure_without_end_is_told_that_and_no_more() {
        let dir = Scratch::new();
        fs::write(dir.socket(), "").unwrap();
        let mut request = Request::parse("vfs", None, None, None, &[], "auto").unwrap();
        let socket = dir.socket();
        let failure = Source::open(&mut request, &socket, "iolag hist", true)
            .err()
            .unwrap();
        assert_eq!(failure.code, FAILED);
        assert!(failure.message.contains("is not a socket"), "{failure:?}");
    }

    #[test]
    fn an_agent_without_the_probe_is_told_of_where_its_delays_are_not_seen() {
        let dir = Scratch::new();
        let none = || format!("{}\n", answer(Ok(json!([]))));
        assert_eq!(dir.warning(none(), false), None);
        let told = dir.warning(none(), true).unwrap();
        assert!(told.ends_with("iolag probe load vfs"), "{told}");
    }

    #[test]
    fn where_no_agent_is_there_is_nothing_to_tell() {
        let dir = Scratch::new();
        assert_eq!(warning(&dir.socket(), true), None);
        drop(UnixListener::bind(dir.socket()).unwrap());
        assert_eq!(warning(&dir.socket(), true), None);
    }
}
