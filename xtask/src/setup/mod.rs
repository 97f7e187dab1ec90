//! `cargo xtask setup`: brings what building and testing need, into the cache and nowhere else.
//!
//! The one exception is rustup, which is asked for a toolchain or told about ours.

mod elsewhere;
mod kernels;
mod linker;
mod toolchain;
mod tools;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

use crate::cache::Cache;
use crate::debian::Debian;
use crate::disk::{filled_up, require_space};
use crate::explain::{explained, host_cannot};
use crate::platform::Platform;
use crate::process::find;

pub use kernels::{KERNELS, Kernel};
pub use linker::loaded;
pub use tools::libraries;

#[derive(clap::Args, Default)]
pub struct Args {
    /// Only report what is there and what is missing (exit code 1 if something is)
    #[arg(long)]
    check: bool,
    /// Where the compiler for eBPF comes from
    #[arg(long, value_enum, default_value_t)]
    toolchain: Source,
    /// Also the kernels that only `cargo xtask test --all-kernels` boots
    #[arg(long)]
    all_kernels: bool,
}

/// Which kernels of [`KERNELS`] are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels<'a> {
    Usual,
    All,
    /// By name.
    These(&'a [String]),
}

impl Kernels<'_> {
    /// All, or the usual ones.
    pub fn all_if(all: bool) -> Self {
        if all { Self::All } else { Self::Usual }
    }

    pub fn contains(&self, kernel: &Kernel) -> bool {
        match self {
            Self::Usual => kernel.usual,
            Self::All => true,
            Self::These(names) => names.iter().any(|name| name == kernel.name),
        }
    }
}

/// Where the compiler for eBPF comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// rustup where it can download, else Debian's packages
    #[default]
    Auto,
    Rustup,
    Debian,
}

/// What the steps share.
pub struct Setup<'a> {
    cache: &'a Cache,
    platform: Platform,
    source: Source,
    kernels: Kernels<'a>,
    debian: Debian<'a>,
}

type Check = Box<dyn Fn(&Setup) -> Option<String>>;
type Install = Box<dyn Fn(&Setup) -> Result<()>>;

/// One thing that set-up brings.
struct Step {
    name: String,
    /// Free space that installing it takes at its peak, in MiB.
    space: u64,
    /// What is there, in a few words; `None` if it is missing.
    check: Check,
    install: Install,
}

impl Step {
    fn new(
        name: impl Into<String>,
        space: u64,
        check: impl Fn(&Setup) -> Option<String> + 'static,
        install: impl Fn(&Setup) -> Result<()> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            space,
            check: Box::new(check),
            install: Box::new(install),
        }
    }
}

fn steps(kernels: Kernels) -> Vec<Step> {
    let mut steps = vec![
        Step::new("eBPF toolchain", 1000, toolchain::check, toolchain::install),
        Step::new(
            "fio",
            300,
            |setup| tools::FIO.check(setup),
            |setup| tools::FIO.install(setup),
        ),
        Step::new(
            "stress-ng",
            100,
            |setup| tools::STRESS.check(setup),
            |setup| tools::STRESS.install(setup),
        ),
        Step::new(
            "QEMU",
            300,
            |setup| tools::QEMU.check(setup),
            |setup| tools::QEMU.install(setup),
        ),
        Step::new(
            "mke2fs and xz",
            50,
            |setup| tools::DISK.check(setup),
            |setup| tools::DISK.install(setup),
        ),
    ];
    for kernel in KERNELS.iter().filter(|kernel| kernels.contains(kernel)) {
        let name = format!("kernel {}", kernel.name);
        steps.push(Step::new(
            name,
            400,
            |setup| kernel.check(setup),
            |setup| kernel.install(setup),
        ));
    }
    // Last, because it compiles for a minute: everything that can fail for want of space or network has then passed.
    steps.push(Step::new(
        "bpf-linker",
        2000,
        linker::check,
        linker::install,
    ));
    steps
}

/// The command.
pub fn command(args: &Args) -> Result<()> {
    let cache = Cache::locate()?;
    let kernels = Kernels::all_if(args.all_kernels);
    let setup = Setup::new(&cache, args.toolchain, kernels);
    if args.check {
        setup.report()
    } else {
        setup.run(true)
    }
}

/// Brings what is missing, for commands that need it; says nothing if nothing is.
pub fn ensure(cache: &Cache, kernels: Kernels) -> Result<()> {
    Setup::new(cache, Source::Auto, kernels).run(false)
}

/// Brings the tools that our probes are compared with, and returns the directory that has them.
pub fn peers(cache: &Cache) -> Result<PathBuf> {
    let setup = Setup::new(cache, Source::Auto, Kernels::Usual);
    if setup.platform != Platform::Bookworm {
        return elsewhere::peers(&setup);
    }
    let _lock = cache.lock()?;
    if tools::PEERS.check(&setup).is_none() {
        require_space(cache.root(), "install libbpf-tools", 100)?;
        progress("installing", "libbpf-tools", "...");
        tools::PEERS.install(&setup)?;
    }
    Ok(cache.path("bin"))
}

/// The name of the toolchain for eBPF, and a PATH on which bpf-linker comes first.
pub fn ebpf_environment(cache: &Cache) -> Result<(String, std::ffi::OsString)> {
    let file = cache.path(toolchain::NAME_FILE);
    let name = std::fs::read_to_string(&file).map_err(|error| {
        explained(
            format!("failed to read {}: {error}", file.display()),
            "run: cargo xtask setup",
        )
    })?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(cache.path("bin")).chain(std::env::split_paths(&path));
    Ok((name.trim().to_owned(), std::env::join_paths(dirs)?))
}

impl<'a> Setup<'a> {
    fn new(cache: &'a Cache, source: Source, kernels: Kernels<'a>) -> Self {
        Self {
            cache,
            platform: Platform::detect(),
            source,
            kernels,
            debian: Debian::new(cache),
        }
    }

    /// Says what is there. Writes nothing.
    fn report(&self) -> Result<()> {
        let mut missing = Vec::new();
        if self.platform != Platform::Bookworm {
            return elsewhere::report(self);
        }
        for step in steps(self.kernels) {
            match (step.check)(self) {
                Some(found) => row("ok", &step.name, &found),
                None => {
                    row("missing", &step.name, "");
                    missing.push(step.name);
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(explained(
            format!("failed to find {}", missing.join(", ")),
            "run: cargo xtask setup",
        ))
    }

    fn run(&self, verbose: bool) -> Result<()> {
        if self.platform != Platform::Bookworm {
            let _lock = self.cache.lock()?;
            return elsewhere::run(self, verbose);
        }
        let todo = |step: &Step| (step.check)(self).is_none();
        let _lock = self.cache.lock()?;
        let steps = steps(self.kernels);
        // On behalf of another command, stdout is for that command's result.
        let say = if verbose { row } else { progress };
        if steps.iter().any(todo) {
            self.require_tools()?;
        }
        for step in steps {
            if let Some(found) = (step.check)(self) {
                if verbose {
                    row("ok", &step.name, &found);
                }
                continue;
            }
            let what = format!("install {}", step.name);
            require_space(self.cache.root(), &what, step.space)?;
            let start = Instant::now();
            say("installing", &step.name, "...");
            (step.install)(self)
                .map_err(|error| filled_up(self.cache.root(), error, &what, step.space))?;
            let found = (step.check)(self).ok_or_else(|| {
                explained(
                    format!("failed to {what}: it is not there afterwards"),
                    format!("delete {} and try again", self.cache.root().display()),
                )
            })?;
            let seconds = start.elapsed().as_secs_f64();
            say(
                "installed",
                &step.name,
                &format!("{found} ({seconds:.1} s)"),
            );
        }
        Ok(())
    }

    /// Refuses where a program is missing that only the user can install.
    fn require_tools(&self) -> Result<()> {
        if find("cc").is_none() {
            return Err(no_cc(self.platform));
        }
        require_rustup()
    }
}

fn no_cc(platform: Platform) -> anyhow::Error {
    let hint = platform
        .install_command(&["cc"])
        .unwrap_or_else(|| "install gcc or clang".into());
    host_cannot("failed to find a C compiler: no cc on PATH", hint)
}

fn require_rustup() -> Result<()> {
    if find("rustup").is_some() {
        return Ok(());
    }
    Err(host_cannot(
        "failed to find rustup: none on PATH, and it chooses the compiler for eBPF",
        "install Rust with rustup, as its home page says, then open a new shell",
    ))
}

/// One line about one step, as the result.
fn row(state: &str, name: &str, detail: &str) {
    println!("{}", line(state, name, detail));
    // Seen at once, also through a pipe: the next thing may take a minute.
    let _ = std::io::stdout().flush();
}

fn progress(state: &str, name: &str, detail: &str) {
    eprintln!("{}", line(state, name, detail));
}

fn line(state: &str, name: &str, detail: &str) -> String {
    let line = format!("{state:<11} {name:<15} {detail}");
    line.trim_end().to_owned()
}
