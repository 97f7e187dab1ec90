//! Directories that rules name, watched: a rule ends with its directory, as the number that it goes by is another one's
//! next. An open descriptor would keep the number, but its file system from being unmounted too.

use std::{
    collections::BTreeMap,
    fs::File,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};

use crate::{
    events::ready::Ready,
    failure::{FAILED, Failure, USAGE},
    rules::{force::Asked, resolve},
};

pub struct Directories {
    /// None where the kernel gives none.
    inotify: Option<Inotify>,
    /// The rules that name a directory, by id, and how each of them does.
    watched: BTreeMap<WatchDescriptor, BTreeMap<u64, PathBuf>>,
}

/// A directory that is watched for a rule that is about to come.
pub type Watched = (WatchDescriptor, PathBuf);

impl Directories {
    #[must_use]
    pub fn new() -> Self {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags)
            .inspect_err(|error| log::warn!("rules outlive their directories: {error}"));
        Self {
            inotify: inotify.ok(),
            watched: BTreeMap::new(),
        }
    }

    /// Watches the directories of a rule that is about to come. One that the kernel does not watch (it may know no
    /// more of it than its name, as of one on NFS that root may not read) is done without.
    ///
    /// # Errors
    /// One has gone since it was looked up.
    pub fn watch(&mut self, asked: &Asked) -> Result<Vec<Watched>, Failure> {
        let mut watched = Vec::new();
        for (path, number) in asked.spec.filters.under.iter().zip(&asked.subjects.under) {
            let shown = path.display();
            // Held meanwhile, so that what is watched is what the number is of.
            let directory = File::options()
                .read(true)
                .custom_flags(libc::O_PATH)
                .open(path);
            let is_it = |file: &File| resolve::identity(Path::new("/"), file) == Some(*number);
            let Some(directory) = directory.ok().filter(is_it) else {
                let gone = format!("--under {shown}: it is not the directory that it was");
                return Err(Failure::new(USAGE, gone).hint("was it replaced just now? Try again"));
            };
            let Some(inotify) = &self.inotify else {
                continue;
            };
            let held = format!("/proc/self/fd/{}", directory.as_raw_fd());
            // An unmount is told in any case.
            let flags = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_ONLYDIR;
            match inotify.add_watch(held.as_str(), flags) {
                Ok(watch) => {
                    self.watched.entry(watch).or_default();
                    watched.push((watch, path.clone()));
                }
                Err(error) => log::warn!("a rule would outlive {shown}: {error}"),
            }
        }
        Ok(watched)
    }

    /// The rule has come.
    pub fn add(&mut self, rule: u64, watched: Vec<Watched>) {
        for (watch, path) in watched {
            self.watched.entry(watch).or_default().insert(rule, path);
        }
    }

    /// Forgets rules that are not among these, and directories without one.
    pub fn keep(&mut self, in_force: &[u64]) {
        let inotify = &self.inotify;
        self.watched.retain(|watch, rules| {
            rules.retain(|rule, _| in_force.contains(rule));
            if let (true, Some(inotify)) = (rules.is_empty(), inotify) {
                // It may have gone just now.
                let _gone = inotify.rm_watch(*watch);
            }
            !rules.is_empty()
        });
    }

    /// Rules of which a directory has gone since this was asked last, and why they have to end.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn gone(&mut self) -> Result<Vec<(u64, String)>, Failure> {
        let mut ends = Vec::new();
        let Some(inotify) = &self.inotify else {
            return Ok(ends);
        };
        loop {
            let events = match inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok(ends),
                Err(error) => {
                    let what = format!("failed to read which directories have gone: {error}");
                    return Err(Failure::new(FAILED, what));
                }
            };
            for event in events {
                let what = if event.mask.contains(AddWatchFlags::IN_DELETE_SELF) {
                    "is gone"
                } else if event.mask.contains(AddWatchFlags::IN_UNMOUNT) {
                    "was unmounted"
                } else {
                    // The kernel says of each watch that it is over.
                    continue;
                };
                for (rule, path) in self.watched.remove(&event.wd).unwrap_or_default() {
                    ends.push((rule, format!("its directory {} {what}", path.display())));
                }
            }
        }
    }

    /// Ready when a directory has gone. Within a runtime.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn ready(&self) -> Result<Option<Ready>, Failure> {
        let Some(inotify) = &self.inotify else {
            return Ok(None);
        };
        let descriptor = inotify.as_fd().try_clone_to_owned().map_err(|error| {
            Failure::new(FAILED, format!("failed to watch directories: {error}"))
        })?;
        Ready::new(descriptor).map(Some)
    }
}
