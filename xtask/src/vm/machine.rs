//! One virtual machine, from its start to its end.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::accelerator::Accelerator;
use super::console::{Outcome, Watcher};
use super::logs;

/// How long QEMU may take to end after the verdict, and how long we read on after a kernel panic: its trace follows.
const GRACE: Duration = Duration::from_secs(5);

pub struct Machine {
    pub name: String,
    pub qemu: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// Never written to.
    pub disk: PathBuf,
    pub log: PathBuf,
    pub tests: Vec<String>,
    /// Faults are tried as often as the documents say.
    pub long: bool,
    pub accelerator: Accelerator,
}

/// QEMU, ended when it goes out of scope.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    /// Boots, follows the console until the verdict or until the kernel is in trouble, and ends QEMU.
    pub fn run(&self, limit: Duration, show: bool) -> Result<Outcome> {
        let mut log = File::create(&self.log)
            .with_context(|| format!("failed to open {}", self.log.display()))?;
        let mut qemu = Running(self.command().spawn().context("failed to start QEMU")?);
        let lines = follow(qemu.0.stdout.take().context("failed to read the console")?);
        let errors = follow(
            qemu.0
                .stderr
                .take()
                .context("failed to read QEMU's errors")?,
        );
        let mut watcher = Watcher::default();
        let mut end = Instant::now() + limit;
        let mut cut_short = false;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(log, "{line}")
                        .with_context(|| format!("failed to write {}", self.log.display()))?;
                    if show {
                        println!("{:>5}| {line}", self.name);
                    }
                    if watcher.feed(&line) && !cut_short {
                        cut_short = true;
                        end = end.min(Instant::now() + GRACE);
                    }
                }
                Err(RecvTimeoutError::Timeout) if cut_short => break,
                Err(RecvTimeoutError::Timeout) => {
                    watcher.problem(format!("no verdict within {} s", limit.as_secs()));
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // QEMU ended. If that was its own idea, it said why.
                    for line in errors.iter().filter(|_| !cut_short) {
                        watcher.problem(format!("QEMU: {line}"));
                    }
                    break;
                }
            }
        }
        Ok(watcher.finish())
    }

    fn command(&self) -> Command {
        let mut qemu = Command::new(&self.qemu);
        match self.accelerator {
            Accelerator::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
            // Without la57: page tables of five levels make emulation slower and nothing else.
            Accelerator::Tcg => qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]),
            // The clock jumps while the CPU idles, instead of waiting.
            Accelerator::Instructions => qemu.args([
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=0,sleep=off",
                "-cpu",
                "max,la57=off",
            ]),
        };
        let cpus = match self.accelerator {
            Accelerator::Instructions => "1",
            _ => "2",
        };
        qemu.args([
            "-M",
            "pc",
            "-smp",
            cpus,
            "-m",
            "1024",
            "-nic",
            "none",
            "-no-reboot",
        ]);
        qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        qemu.arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initrd);
        qemu.args(["-append", &self.kernel_arguments()]);
        // Writes go to a temporary file that is gone with QEMU.
        let disk = format!(
            "file={},format=raw,if=virtio,snapshot=on",
            self.disk.display().to_string().replace(',', ",,")
        );
        qemu.args(["-drive", &disk]).env("TMPDIR", logs());
        qemu.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: prctl is async-signal-safe, and the closure touches no memory of the parent.
        unsafe {
            qemu.pre_exec(|| {
                // However this program dies, the kernel then ends QEMU.
                match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        qemu
    }

    fn kernel_arguments(&self) -> String {
        // loglevel=5 shows warnings and worse, which the watcher looks for; more would slow the boot down.
        // panic=-1 reboots at once, which -no-reboot turns into the end of QEMU.
        let mut arguments =
            "console=ttyS0 loglevel=5 printk.time=1 panic=-1 mitigations=off".to_owned();
        if !self.tests.is_empty() {
            arguments += &format!(" iolag.tests={}", self.tests.join(","));
        }
        if self.long {
            arguments += " iolag.long";
        }
        if self.accelerator == Accelerator::Tcg {
            // All its CPUs read one clock. A kernel that doubts it (6.1 on AMD with two CPUs) gives the
            // scheduler one that jumps from tick to tick instead. And to clear each page that is allocated is
            // slow where it is emulated.
            arguments += " tsc=reliable init_on_alloc=0";
        }
        arguments
    }
}

/// Reads lines in a thread of its own, so that the reader can have a deadline.
fn follow(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while reader
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|count| count > 0)
        {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
