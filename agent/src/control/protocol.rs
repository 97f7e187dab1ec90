//! Requests and answers.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    failure::{FAILED, Failure, USAGE},
    report::{Rule, SCHEMA},
    rules::spec::Spec,
};

/// The longest answer (bytes): a dump of a thousand series is some MiB. Requests are far shorter, see the server.
pub const MAX_LINE: usize = 64 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Replaces the rule of that name; a delay of 0 removes it. Answers with `null`.
    Set(Rule),
    /// Answers with a [`crate::report::Status`].
    Status,
    /// Answers with a list of [`crate::report::probes::Row`].
    ProbeList,
    /// Loads a measuring probe; answers with its [`crate::report::probes::Row`].
    ProbeLoad {
        probe: String,
        /// Fields by which its series are told apart; empty: the probe's own choice.
        by: Vec<String>,
        /// `auto`, or one backend.
        backend: String,
    },
    /// Unloads a measuring probe and forgets what it recorded. Answers with `null`.
    ProbeUnload { probe: String },
    /// Answers with a [`crate::report::dump::Dump`] of what a loaded probe recorded.
    Dump { probe: String, by_cpu: bool },
    /// Answers with a list of [`crate::report::events::Event`], those that the agent kept; with `follow` then
    /// with one more answer for each event that comes, until the connection is closed.
    Events { follow: bool },
    /// Puts a rule in force beside the others. Answers with a [`crate::rules::spec::Came`]; the agent chooses its name
    /// if it has none.
    Inject(Box<Spec>),
    /// Answers with a list of [`crate::rules::spec::Outcome`].
    Rules,
    /// Removes the rule of that name, or all. Answers with `null`.
    Remove { name: Option<String> },
    /// Removes the rule of that id, and none that has its name by now. Answers with `null`.
    End { id: u64 },
    /// Removes all rules. Answers with `null`.
    Reset,
    /// Detaches everything, answers with `null`, exits.
    Stop,
    /// Makes the agent panic, without an answer: it has to detach everything then too, and that can be tried so.
    Panic,
}

#[derive(Serialize)]
struct Request<'a> {
    schema: u32,
    #[serde(flatten)]
    command: &'a Command,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    schema: u32,
    ok: bool,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    result: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

/// A request as a line, without its newline.
#[must_use]
pub fn request(command: &Command) -> String {
    let request = Request {
        schema: SCHEMA,
        command,
    };
    // Strings and integers only: there is nothing that could fail.
    serde_json::to_string(&request).expect("a request is plain data")
}

/// Reads a request.
///
/// # Errors
/// Not JSON, another schema, an unknown command.
pub fn parse_request(line: &[u8]) -> Result<Command, Failure> {
    let mut value: Value = serde_json::from_slice(line)
        .map_err(|error| Failure::new(USAGE, format!("failed to read the request: {error}")))?;
    if value.get("schema") != Some(&Value::from(SCHEMA)) {
        return Err(Failure::new(
            USAGE,
            format!("failed to read the request: \"schema\" must be {SCHEMA}"),
        ));
    }
    // What is left is the command's own, of which a rule refuses fields that it does not know.
    if let Value::Object(fields) = &mut value {
        fields.remove("schema");
    }
    serde_json::from_value(value)
        .map_err(|error| Failure::new(USAGE, format!("failed to read the request: {error}")))
}

/// An answer as a line, without its newline.
#[must_use]
pub fn answer(result: Result<Value, Failure>) -> String {
    let answer = match result {
        Ok(result) => Answer {
            schema: SCHEMA,
            ok: true,
            result,
            error: None,
        },
        Err(failure) => Answer {
            schema: SCHEMA,
            ok: false,
            result: Value::Null,
            error: Some(failure),
        },
    };
    serde_json::to_string(&answer).expect("an answer is plain data")
}

/// Reads an answer; the agent's own refusal comes back as it left.
///
/// # Errors
/// The agent refused, or this is no answer of an agent.
pub fn parse_answer<T: DeserializeOwned>(line: &[u8]) -> Result<T, Failure> {
    let foreign = |cause: String| {
        Failure::new(
            FAILED,
            format!("failed to read the agent's answer: {cause}"),
        )
        .hint("the socket belongs to another program, or to another version of iolag")
    };
    let answer: Answer =
        serde_json::from_slice(line).map_err(|error| foreign(error.to_string()))?;
    if answer.schema != SCHEMA {
        return Err(foreign(format!(
            "schema {} instead of {SCHEMA}",
            answer.schema
        )));
    }
    match answer.error {
        // Made anew, as whoever wrote it may not have kept to one line, or to a code that is a failure's.
        Some(Failure {
            code,
            message,
            hint,
        }) => {
            let code = if code == 0 { FAILED } else { code };
            let failure = Failure::new(code, message);
            Err(match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
        None if answer.ok => {
            serde_json::from_value(answer.result).map_err(|error| foreign(error.to_string()))
        }
        None => Err(foreign("neither a result nor an error".into())),
    }
}

#[cfg(test)]
mod tests {
    use iolag_tests::mutated::mutated;

    use super::*;
    use crate::rules::spec::{Delay, Filters};

    #[test]
    fn requests_survive_the_wire() {
        for command in [
            Command::Set(Rule {
                name: "set".into(),
                points: vec!["vfs.read".into()],
                delay_ns: 100_000,
            }),
            Command::Inject(Box::new(rule())),
            Command::Rules,
            Command::Remove { name: None },
            Command::Remove {
                name: Some("slow".into()),
            },
            Command::End { id: u64::MAX },
            Command::Status,
            Command::Reset,
            Command::Stop,
        ] {
            assert_eq!(
                parse_request(request(&command).as_bytes()).unwrap(),
                command
            );
        }
        assert_eq!(request(&Command::Stop), r#"{"schema":1,"command":"stop"}"#);
    }

    fn rule() -> Spec {
        Spec {
            name: String::new(),
            points: vec!["vfs.read".into()],
            delay: Delay::Drawn {
                asked: "normal".into(),
                quantiles: vec![1, 2, 3],
            },
            filters: Filters {
                size: Some((4096, u64::MAX)),
                ..Filters::default()
            },
            chance: 1 << 32,
            every: 1,
            for_ns: None,
            ramp_ns: Some(1),
            max_hits: None,
            cpu_budget: 1 << 16,
            cap_ns: 1_000_000_000,
            seed: u64::MAX,
            abort_if: vec!["memory.oom > 0".into()],
        }
    }

    #[test]
    fn a_changed_request_is_refused_or_one_that_survives_the_wire() {
        let set = Rule {
            name: "set".into(),
            points: vec!["vfs.read".into()],
            delay_ns: 100_000,
        };
        let seeds = [
            Command::Set(set),
            Command::Inject(Box::new(rule())),
            Command::End { id: 7 },
            Command::Events { follow: true },
        ]
        .map(|command| request(&command));
        let seeds = seeds.each_ref().map(|line| line.as_bytes());
        let mut accepted = 0;
        for number in 0..300_000 {
            let line = mutated(&seeds, number);
            match parse_request(&line) {
                Ok(command) => {
                    let again = parse_request(request(&command).as_bytes());
                    assert_eq!(again.unwrap(), command, "number {number}");
                    accepted += 1;
                }
                Err(failure) => assert_eq!(failure.code, USAGE, "number {number}"),
            }
        }
        // Both ways were gone.
        assert!((1_000..150_000).contains(&accepted), "{accepted} accepted");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for line in [
            "",
            "{",
            "[]",
            "null",
            "{}",
            r#"{"schema":2,"command":"stop"}"#,
            r#"{"command":"stop"}"#,
            r#"{"schema":1,"command":"fly"}"#,
            r#"{"schema":1,"command":"set"}"#,
            r#"{"schema":1,"command":"set","name":"x","points":[],"delay_ns":-1}"#,
            r#"{"schema":1,"command":"inject"}"#,
            r#"{"schema":1,"command":"inject","name":"","points":[],"delay":{"kind":"fixed","ns":1},"cap_ns":1,"wings":2}"#,
            "\u{0}\u{ff}",
        ] {
            assert_eq!(
                parse_request(line.as_bytes()).unwrap_err().code,
                USAGE,
                "{line}"
            );
        }
    }

    #[test]
    fn a_refusal_comes_back_whole() {
        let failure = Failure::new(3, "no").hint("yes");
        let line = answer(Err(failure.clone()));
        assert_eq!(parse_answer::<()>(line.as_bytes()).unwrap_err(), failure);
        assert!(parse_answer::<()>(answer(Ok(Value::Null)).as_bytes()).is_ok());
        assert!(
            parse_answer::<()>(b"220 smtp ready")
                .unwrap_err()
                .to_string()
                .contains("another program")
        );
    }
}
