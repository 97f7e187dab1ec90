//! A process that makes system calls when it is told to, and times each. As it is forked from a process with threads,
//! it makes system calls only, on what was opened before.

use std::{
    ffi::{c_int, c_void},
    sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

/// Most calls of a round.
const MOST: usize = 64;
const STACK: usize = 64 << 10;
/// How often somebody looks whether there is something to do.
const POLL: Duration = Duration::from_micros(500);
/// Longest round.
const LIMIT: Duration = Duration::from_secs(30);

/// Given the number of the round or of the call, from 0; false is a failure, with its cause in `errno`.
pub type Step = Box<dyn FnMut(u32) -> bool>;

/// Who makes the calls of a round.
#[derive(Clone, Copy)]
enum By {
    Itself,
    /// A new thread each time.
    Thread,
    /// A new child each time.
    Child,
}

/// What a worker will do.
pub struct Work {
    set_up: Step,
    before: Step,
    call: Step,
    by: By,
    stack: Vec<u8>,
}

impl Work {
    /// Makes this call again and again.
    pub fn new(call: impl FnMut(u32) -> bool + 'static) -> Self {
        Self {
            set_up: Box::new(|_| true),
            before: Box::new(|_| true),
            call: Box::new(call),
            by: By::Itself,
            stack: vec![0; STACK],
        }
    }

    /// Once, before it is ready.
    #[must_use]
    pub fn set_up(mut self, step: impl FnMut(u32) -> bool + 'static) -> Self {
        self.set_up = Box::new(step);
        self
    }

    /// Before each round, untimed.
    #[must_use]
    pub fn before(mut self, step: impl FnMut(u32) -> bool + 'static) -> Self {
        self.before = Box::new(step);
        self
    }

    /// The calls are those of a new thread in each round.
    #[must_use]
    pub fn by_thread(mut self) -> Self {
        self.by = By::Thread;
        self
    }

    /// The calls are those of a new child in each round.
    #[must_use]
    pub fn by_child(mut self) -> Self {
        self.by = By::Child;
        self
    }

    /// Forks the worker, and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be made, or its set-up fails.
    pub fn start(mut self) -> Result<Worker> {
        // SAFETY: a new mapping, which overlaps nothing.
        let shared = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        ensure!(shared != libc::MAP_FAILED, "failed to map shared memory");
        let shared = shared.cast::<Shared>();
        // SAFETY: the mapping is as large, all zeroes are a value, and it lasts as long as the worker.
        let memory = unsafe { &*shared };
        // SAFETY: the child makes system calls only.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            live(memory, &mut self);
        }
        let worker = Worker {
            pid,
            shared,
            rounds: 0,
        };
        ensure!(pid > 0, "failed to fork");
        worker.wait("set up", |shared| shared.ready.load(SeqCst) != 0)?;
        Ok(worker)
    }
}

/// What worker and parent tell each other.
#[repr(C)]
struct Shared {
    ready: AtomicU32,
    /// Rounds asked for, and calls of each.
    asked: AtomicU32,
    calls: AtomicU32,
    /// Rounds done, and calls of the round that is going on.
    done: AtomicU32,
    made: AtomicU32,
    /// Cause of a failure, and one more.
    failed: AtomicU32,
    /// Of the thread that makes the calls; the kernel clears it.
    thread: AtomicU32,
    times: [AtomicU64; MOST],
}

fn live(shared: &Shared, work: &mut Work) -> ! {
    check(shared, (work.set_up)(0));
    // SAFETY: numbers only. After the set-up, as another user would not have it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    shared.ready.store(1, SeqCst);
    for round in 0.. {
        while shared.asked.load(SeqCst) <= round {
            sleep(POLL);
        }
        check(shared, (work.before)(round));
        match work.by {
            By::Itself => calls(shared, work),
            By::Thread => thread(shared, work),
            By::Child => child(shared, work),
        }
        shared.done.store(round + 1, SeqCst);
    }
    fail(shared)
}

fn calls(shared: &Shared, work: &mut Work) {
    for number in 0..shared.calls.load(SeqCst) {
        let start = Instant::now();
        let done = (work.call)(number);
        let time = start.elapsed();
        check(shared, done);
        shared.times[number as usize % MOST].store(time.as_nanos() as u64, SeqCst);
        shared.made.store(number + 1, SeqCst);
        sleep(super::PAUSE);
    }
}

fn thread(shared: &Shared, work: &mut Work) {
    extern "C" fn run(both: *mut c_void) -> c_int {
        // SAFETY: what `thread` passes, which waits for the end.
        let (shared, work) = unsafe { &mut *both.cast::<(&Shared, &mut Work)>() };
        calls(shared, work);
        0
    }
    let top = work.stack.as_mut_ptr_range().end;
    let mut both = (shared, work);
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_CHILD_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    let id = shared.thread.as_ptr();
    shared.thread.store(1, SeqCst);
    let none = std::ptr::null_mut::<c_void>();
    // SAFETY: a stack of its own, aligned down to 64 bytes, and arguments that live until it has ended.
    let thread = unsafe {
        let top = top.sub(top.addr() % 64);
        libc::clone(
            run,
            top.cast(),
            flags,
            (&raw mut both).cast(),
            none,
            none,
            id,
        )
    };
    check(shared, thread > 0);
    while shared.thread.load(SeqCst) != 0 {
        sleep(POLL);
    }
}

fn child(shared: &Shared, work: &mut Work) {
    // SAFETY: the child makes system calls only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        calls(shared, work);
        // SAFETY: ends the child without what others registered for their end.
        unsafe { libc::_exit(0) };
    }
    check(shared, child > 0 && succeeds(child));
}

/// Waits for a child of the caller's, and says whether it succeeds. System calls only.
#[must_use]
pub fn succeeds(child: libc::pid_t) -> bool {
    let mut status = 0;
    // SAFETY: room for the answer.
    child > 0 && unsafe { libc::waitpid(child, &raw mut status, 0) } == child && status == 0
}

fn check(shared: &Shared, done: bool) {
    if !done {
        fail(shared);
    }
}

fn fail(shared: &Shared) -> ! {
    let cause = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    shared.failed.store(cause.unsigned_abs() + 1, SeqCst);
    // SAFETY: ends the process without what others registered for their end.
    unsafe { libc::_exit(1) };
}

/// A process that does its [`Work`] in rounds. Dropping it kills it.
pub struct Worker {
    pid: libc::pid_t,
    shared: *mut Shared,
    rounds: u32,
}

impl Worker {
    #[must_use]
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    fn shared(&self) -> &Shared {
        // SAFETY: mapped until this is dropped, and never but through atomics.
        unsafe { &*self.shared }
    }

    /// Has it begin a round.
    pub fn begin(&mut self, calls: usize) {
        assert!(calls <= MOST, "{calls} calls are too many");
        self.rounds += 1;
        self.shared().made.store(0, SeqCst);
        self.shared().calls.store(calls as u32, SeqCst);
        self.shared().asked.store(self.rounds, SeqCst);
    }

    /// Waits until so many calls of the round were made.
    ///
    /// # Errors
    /// It fails or hangs.
    pub fn has_made(&self, calls: usize) -> Result<()> {
        self.wait("call", |shared| shared.made.load(SeqCst) as usize >= calls)
    }

    /// Waits for the end of the round. What each call took (ns).
    ///
    /// # Errors
    /// It fails or hangs.
    pub fn finish(&self) -> Result<Vec<u64>> {
        self.wait("call", |shared| shared.done.load(SeqCst) == self.rounds)?;
        let made = self.shared().made.load(SeqCst) as usize;
        let times = &self.shared().times[..made.min(MOST)];
        Ok(times.iter().map(|time| time.load(SeqCst)).collect())
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Shared) -> bool) -> Result<()> {
        let start = Instant::now();
        while !is_so(self.shared()) {
            match self.shared().failed.load(SeqCst) {
                0 => {}
                cause => {
                    let cause = std::io::Error::from_raw_os_error((cause - 1).cast_signed());
                    bail!("a worker failed to {what}: {cause}");
                }
            }
            ensure!(start.elapsed() < LIMIT, "a worker hangs: {what}");
            sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: our own child, which is waited for, and our own mapping, which nobody has any more.
        unsafe {
            if self.pid > 0 {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, std::ptr::null_mut(), 0);
            }
            libc::munmap(self.shared.cast(), size_of::<Shared>());
        }
    }
}
