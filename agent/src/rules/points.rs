//! What a rule may ask of each point.

use agent_common::{
    catalogue::{POINTS, Point, slot, slot_of},
    probes::block::op,
};

use super::spec::Filters;
use crate::{
    failure::{Failure, USAGE},
    measure::unknown,
};

/// What stands before the name of a kernel function.
pub const FUNCTION: &str = "fn:";
/// Longest name or glob of a function (bytes); the kernel's own names are shorter than 512.
const FUNCTION_LENGTH: usize = 128;

/// A point of a rule.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    Point(&'static Point),
    /// The name or glob of a kernel function.
    Function(&'a str),
}

impl<'a> At<'a> {
    /// Reads `vfs.read` or `fn:NAME`.
    ///
    /// # Errors
    /// No such point (the nearest is told); nothing that a function could be called.
    pub fn parse(name: &'a str) -> Result<Self, Failure> {
        let Some(function) = name.strip_prefix(FUNCTION) else {
            let point = POINTS.iter().find(|point| point.name == name);
            return point.map(Self::Point).ok_or_else(|| {
                let mut known: Vec<&str> = POINTS.iter().map(|point| point.name).collect();
                known.push("fn:NAME");
                unknown("point", name, &known)
            });
        };
        let refused = |why: &str| {
            Err(Failure::new(
                USAGE,
                format!("the point {name:?} names no function: {why}"),
            )
            .hint("a name or a glob of letters, digits, _ and .: fn:ext4_sync_*"))
        };
        if function.is_empty() {
            return refused("there is nothing behind fn:");
        }
        if function.len() > FUNCTION_LENGTH {
            return refused("it is longer than 128 bytes");
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.*?[]!-".contains(c);
        if !function.chars().all(plain) {
            return refused("it has other characters");
        }
        if let Err(error) = glob::Pattern::new(function) {
            return refused(&error.to_string());
        }
        Ok(Self::Function(function))
    }

    /// Hits there may have this operation of the probe `block`.
    #[must_use]
    pub fn may_be(self, operation: u32) -> bool {
        match self {
            Self::Point(point) => point.op.is_none_or(|op| op == operation),
            Self::Function(_) => false,
        }
    }

    /// Hits there have a size in bytes.
    #[must_use]
    pub fn has_size(self) -> bool {
        self.may_be(op::READ) || self.may_be(op::WRITE)
    }

    /// Hits there have a file that is known.
    #[must_use]
    pub fn has_file(self) -> bool {
        match self {
            Self::Point(point) => {
                !self.is_block() && slot_of(point.name) != Some(slot::VFS_OPEN as usize)
            }
            Self::Function(_) => false,
        }
    }

    /// Hits there are requests of a block device.
    #[must_use]
    pub fn is_block(self) -> bool {
        matches!(self, Self::Point(Point { op: None, .. }))
    }
}

/// The points that are meant: `vfs.open` comes before the file is known, so where files are asked for it is
/// `vfs.opened`.
#[must_use]
pub fn meant(points: Vec<String>, filters: &Filters) -> Vec<String> {
    let (open, opened) = (
        POINTS[slot::VFS_OPEN as usize].name,
        POINTS[slot::VFS_OPENED as usize].name,
    );
    if filters.under.is_empty() && filters.devices.is_empty() {
        return points;
    }
    points
        .into_iter()
        .map(|point| if point == open { opened.into() } else { point })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_have_what_their_hits_have() {
        let of = |name| {
            let at = At::parse(name).unwrap();
            let ops: Vec<u32> = (0..op::COUNT).filter(|op| at.may_be(*op)).collect();
            (ops, at.has_size(), at.has_file(), at.is_block())
        };
        assert_eq!(of("vfs.read"), (vec![op::READ], true, true, false));
        assert_eq!(of("vfs.write"), (vec![op::WRITE], true, true, false));
        assert_eq!(of("vfs.fsync"), (vec![op::FLUSH], false, true, false));
        assert_eq!(of("vfs.open"), (vec![], false, false, false));
        assert_eq!(of("vfs.opened"), (vec![], false, true, false));
        assert_eq!(of("vfs.lookup"), (vec![], false, true, false));
        assert_eq!(
            of("block.issue"),
            ((0..op::COUNT).collect(), true, false, true)
        );
        assert_eq!(of("fn:vfs_read"), (vec![], false, false, false));
    }

    #[test]
    fn what_is_no_point_is_refused() {
        let told = |name| At::parse(name).unwrap_err().to_string();
        assert!(told("vfs.raed").contains("did you mean vfs.read?"));
        assert!(told("").contains("unknown point"));
        assert!(told("fn:").contains("nothing behind fn:"));
        assert!(told("fn:a b").contains("other characters"));
        assert!(told("fn:a**b").contains("names no function"));
        assert!(told("fn:[a").contains("names no function"));
        assert!(told(&format!("fn:{}", "a".repeat(129))).contains("128 bytes"));
    }

    #[test]
    fn opens_of_certain_files_are_delayed_where_the_file_is_known() {
        let points = || vec!["vfs.open".to_owned(), "vfs.read".to_owned()];
        let mut filters = Filters::default();
        assert_eq!(meant(points(), &filters), points());
        filters.under.push("/srv".into());
        assert_eq!(meant(points(), &filters), ["vfs.opened", "vfs.read"]);
    }
}
