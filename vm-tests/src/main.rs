//! PID 1 of the test machines: sets the machine up, runs each test as a process of its own, says the verdict on the
//! console and powers off. Called by hand, it only lists the tests.

mod guest;
mod init;
mod tests;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--test", name] => tests::run(name),
        _ if std::process::id() == 1 => init::main(),
        ["--list"] => list(),
        _ => {
            eprintln!("error: failed to run: this is PID 1 of a test machine");
            eprintln!("hint: run: cargo xtask vm");
            ExitCode::from(2)
        }
    }
}

/// A test a line: name, level, and whether it is timed.
fn list() -> ExitCode {
    for test in tests::TESTS {
        let timed = if test.timed { "timed" } else { "untimed" };
        println!("{}\t{}\t{timed}", test.name, test.level.name());
    }
    ExitCode::SUCCESS
}
