//! Whether there is room for one more rule, and what it is called. Pure.

use agent_common::rules::RULES;

use crate::{
    failure::{Failure, USAGE},
    measure::unknown,
};

/// Rules that io-delayer's commands replace.
const RESERVED: [&str; 2] = ["set", "set-blk"];

/// The name of a rule that comes beside those in force: its own, or, if that is empty, one of its first point and a
/// number: `vfs.read-1`. Also the number of the last name that was made up, which was `last` before: none is made up
/// twice, as somebody may still go by it.
///
/// # Errors
/// 64 rules are in force, or one of that name; or it is the name of another command's rule.
pub fn admit(
    name: &str,
    first_point: &str,
    in_force: &[&str],
    last: u64,
) -> Result<(String, u64), Failure> {
    if in_force.len() >= RULES {
        return Err(Failure::new(
            USAGE,
            format!("{RULES} rules are in force, and no more can be"),
        )
        .hint("end one: iolag remove NAME; iolag rules shows them"));
    }
    if RESERVED.contains(&name) {
        return Err(Failure::new(
            USAGE,
            format!("--name {name:?} is the rule of iolag {name}, which would replace this one"),
        )
        .hint("choose another name"));
    }
    if !name.is_empty() {
        return if in_force.contains(&name) {
            Err(Failure::new(
                USAGE,
                format!("--name {name:?} is the name of a rule in force"),
            )
            .hint(format!(
                "end it first: iolag remove {name}; or choose another"
            )))
        } else {
            Ok((name.into(), last))
        };
    }
    let plain = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    let point = first_point.rsplit(':').next().unwrap_or_default();
    let stem: String = point.chars().filter(plain).take(STEM).collect();
    let stem = if stem.is_empty() { "rule".into() } else { stem };
    Ok((last + 1..)
        .map(|number| (format!("{stem}-{number}"), number))
        .find(|(name, _)| !in_force.contains(&name.as_str()))
        // There are at most 64 others.
        .unwrap_or((stem, last)))
}

/// What is left of a point's name in a rule's (characters).
const STEM: usize = 24;

/// Refuses a name that no rule in force has.
///
/// # Errors
/// There is none; the nearest is told.
pub fn known(name: &str, in_force: &[&str]) -> Result<(), Failure> {
    if in_force.contains(&name) {
        return Ok(());
    }
    Err(if in_force.is_empty() {
        Failure::new(USAGE, format!("unknown rule {name:?}: none is in force"))
            .hint("iolag rules shows those that are")
    } else {
        unknown("rule", name, in_force)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::check;

    #[test]
    fn names_are_unique() {
        let (name, number) = admit("slow", "vfs.read", &["fast"], 7).unwrap();
        assert_eq!((name.as_str(), number), ("slow", 7));
        let taken = admit("slow", "vfs.read", &["slow"], 0).unwrap_err();
        assert!(taken.to_string().contains("iolag remove slow"), "{taken}");
        assert!(admit("set-blk", "vfs.read", &[], 0).is_err());
        assert!(known("slow", &["slow"]).is_ok());
        let nearest = known("slov", &["slow"]).unwrap_err().to_string();
        assert!(nearest.contains("did you mean slow?"), "{nearest}");
        assert!(known("slow", &[]).is_err());
    }

    #[test]
    fn who_has_no_name_is_given_one() {
        let given = |point, in_force: &[&str]| admit("", point, in_force, 0).unwrap().0;
        assert_eq!(given("vfs.read", &[]), "vfs.read-1");
        assert_eq!(given("vfs.read", &["vfs.read-1"]), "vfs.read-2");
        assert_eq!(given("fn:ext4_*", &[]), "ext4_-1");
        assert_eq!(given("fn:*", &[]), "rule-1");
        let long = given(&format!("fn:{}", "x".repeat(128)), &[]);
        assert_eq!(check::name(&long), Ok(()));
    }

    #[test]
    fn no_name_is_made_up_twice() {
        let (first, number) = admit("", "vfs.read", &[], 0).unwrap();
        // It has ended, and whoever it was for may still go by its name.
        let (second, number) = admit("", "vfs.read", &[], number).unwrap();
        assert_eq!(
            (first.as_str(), second.as_str()),
            ("vfs.read-1", "vfs.read-2")
        );
        let (third, number) = admit("", "vfs.read", &["vfs.read-3"], number).unwrap();
        assert_eq!((third.as_str(), number), ("vfs.read-4", 4));
    }

    #[test]
    fn the_65th_is_refused() {
        let names: Vec<String> = (0..64).map(|n| format!("r{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(admit("", "vfs.read", &names[..63], 0).is_ok());
        let full = admit("slow", "vfs.read", &names, 0).unwrap_err();
        assert!(full.to_string().contains("64 rules are in force"), "{full}");
    }
}
