//! Profiles that come with iolag. Nobody measured them: each is computed from published figures, which its `source`
//! names together with the way from these to the curve. `figures.rs` computes them anew and compares.

use crate::{failure::Failure, measure::unknown};

/// Name and document.
const PROFILES: [(&str, &str); 4] = [
    ("hdd-7200", include_str!("../../../profiles/hdd-7200.json")),
    ("ssd-sata", include_str!("../../../profiles/ssd-sata.json")),
    (
        "cloud-volume",
        include_str!("../../../profiles/cloud-volume.json"),
    ),
    ("nfs-lan", include_str!("../../../profiles/nfs-lan.json")),
];

/// What a built-in profile may be preceded by, where a file has the same name.
const PREFIX: &str = "profile:";

#[must_use]
pub fn names() -> Vec<&'static str> {
    PROFILES.iter().map(|(name, _)| *name).collect()
}

/// The document of `hdd-7200` or `profile:hdd-7200`; none if it is a file that is meant.
///
/// # Errors
/// There is no profile of that name, and it cannot be a file.
pub(super) fn find(flag: &str, given: &str) -> Result<Option<&'static str>, Failure> {
    let (prefixed, name) = match given.strip_prefix(PREFIX) {
        Some(name) => (true, name),
        None => (false, given),
    };
    let found = PROFILES.iter().find(|(known, _)| *known == name);
    let file = !prefixed && (given.contains(['/', '.']) || std::path::Path::new(given).exists());
    match found {
        Some((_, document)) => Ok(Some(document)),
        None if file => Ok(None),
        None => {
            let failure = unknown("profile or file", name, &names());
            let hint = failure.hint.clone().unwrap_or_default();
            Err(
                Failure::new(failure.code, format!("{flag} {given}: {}", failure.message))
                    .hint(hint),
            )
        }
    }
}
