//! Whether the processes of a rule still live: one whose processes are all gone can match nobody any more, but
//! for their children.

use std::{fs, path::Path};

/// Processes, told from others that come to have their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processes(Vec<(u32, u64)>);

impl Processes {
    /// Those that live now.
    #[must_use]
    pub fn new(root: &Path, pids: &[u32]) -> Self {
        let started = |pid: &u32| Some((*pid, start(root, *pid)?));
        Self(pids.iter().filter_map(started).collect())
    }

    /// One of them lives.
    #[must_use]
    pub fn any(&self, root: &Path) -> bool {
        self.0
            .iter()
            .any(|(pid, started)| start(root, *pid) == Some(*started))
    }
}

/// When a process started (ticks after the boot); none if it has ended, whether its parent knows or not.
fn start(root: &Path, pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(root.join(format!("proc/{pid}/stat"))).ok()?;
    // The second field is the command in brackets, which may have any in it.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_another_has_is_no_life() {
        let root = std::env::temp_dir().join(format!("iolag-alive-{}", std::process::id()));
        let says = |pid: u32, state: &str, started: u64| {
            fs::create_dir_all(root.join(format!("proc/{pid}"))).unwrap();
            let zeroes = "0 ".repeat(18);
            let text = format!("{pid} (a) b) {state} {zeroes}{started} 4096 7\n");
            fs::write(root.join(format!("proc/{pid}/stat")), text).unwrap();
        };
        says(7, "S", 100);
        says(8, "R", 200);
        let processes = Processes::new(&root, &[7, 8, 9]);
        assert!(processes.any(&root));
        says(7, "S", 300);
        assert!(processes.any(&root), "8 lives");
        says(8, "Z", 200);
        assert!(!processes.any(&root));
        assert!(Processes::new(&root, &[7]).any(&root));
        assert!(!Processes::new(&root, &[]).any(&root));
        fs::remove_dir_all(&root).unwrap();
        let own = [std::process::id()];
        assert!(Processes::new(Path::new("/"), &own).any(Path::new("/")));
    }
}
