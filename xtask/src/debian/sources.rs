//! Where this machine gets Debian 12 from: its own apt sources, in both formats.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::Suite;
use crate::explain::explained;

/// One source: a mirror, its suites, and how apt is to trust it.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uris: String,
    suites: Vec<String>,
    /// `Signed-By` as written, which may be a key of many lines.
    signed_by: Option<String>,
    trusted: bool,
}

/// The sources of `suite`, as a deb822 file of their main component: those of Debian 12 that are named below `etc_apt`;
/// for other suites the same mirrors, which have them beside it.
pub fn of(suite: Suite, etc_apt: &Path) -> Result<String> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc_apt.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => found.extend(deb822(&text)),
            Some("list") => found.extend(text.lines().filter_map(one_line)),
            _ => {}
        }
    }
    let stanzas: String = found
        .iter()
        .filter_map(|source| stanza(suite, source))
        .collect();
    if stanzas.is_empty() {
        return Err(explained(
            format!(
                "failed to find a mirror of Debian 12: no source below {} names bookworm",
                etc_apt.display()
            ),
            "add one, see sources.list(5)",
        ));
    }
    Ok(stanzas)
}

/// The deb822 stanza of a source, if it serves a suite that we read.
fn stanza(suite: Suite, source: &Source) -> Option<String> {
    let ours = |suite: &&String| {
        matches!(
            suite.as_str(),
            "bookworm" | "bookworm-updates" | "bookworm-security"
        )
    };
    let mut suites: Vec<&str> = source
        .suites
        .iter()
        .filter(ours)
        .map(String::as_str)
        .collect();
    if suites.is_empty() {
        return None;
    }
    // A mirror has its suites side by side, as the security archive has its own.
    let (main, security) = (
        suites.contains(&"bookworm"),
        suites.contains(&"bookworm-security"),
    );
    match suite {
        Suite::Bookworm => {}
        Suite::Backports if main => suites.push("bookworm-backports"),
        Suite::Backports => {}
        Suite::Bullseye => {
            suites.clear();
            suites.extend(main.then_some("bullseye"));
            suites.extend(security.then_some("bullseye-security"));
        }
        Suite::TrixieBackports => {
            suites.clear();
            suites.extend(main.then_some("trixie-backports"));
        }
    }
    if suites.is_empty() {
        return None;
    }
    let mut text = format!(
        "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\n",
        source.uris,
        suites.join(" ")
    );
    if let Some(signed_by) = &source.signed_by {
        text += &format!("Signed-By: {signed_by}\n");
    }
    if source.trusted {
        text += "Trusted: yes\n";
    }
    Some(text + "\n")
}

/// Reads a deb822 file: stanzas of fields, where an indented line continues its field.
fn deb822(text: &str) -> Vec<Source> {
    let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    without_comments
        .split(|line| line.trim().is_empty())
        .filter_map(deb822_stanza)
        .collect()
}

fn deb822_stanza(lines: &[&str]) -> Option<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut()?;
            *value += &format!("\n{line}");
        } else {
            let (name, value) = line.split_once(':')?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let field = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    };
    let binary = field("types")?.split_whitespace().any(|kind| kind == "deb");
    let enabled = field("enabled").is_none_or(|value| value != "no");
    let main = field("components")?
        .split_whitespace()
        .any(|component| component == "main");
    (binary && enabled && main).then_some(Source {
        uris: words(field("uris")?).join(" "),
        suites: words(field("suites")?),
        signed_by: field("signed-by").map(str::to_owned),
        trusted: field("trusted") == Some("yes"),
    })
}

/// Reads a line `deb [option=value] URI SUITE COMPONENT...`.
fn one_line(line: &str) -> Option<Source> {
    let rest = line
        .trim()
        .strip_prefix("deb")?
        .strip_prefix([' ', '\t'])?
        .trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let option = |name: &str| {
        options
            .split_whitespace()
            .find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    };
    let mut parts = rest.split('#').next()?.split_whitespace();
    let (uri, suite) = (parts.next()?, parts.next()?);
    parts.any(|component| component == "main").then(|| Source {
        uris: uri.to_owned(),
        suites: vec![suite.to_owned()],
        signed_by: option("signed-by").map(str::to_owned),
        trusted: option("trusted") == Some("yes"),
    })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deb822_keeps_the_mirror_and_its_key() {
        let text = "Types: deb\n# a comment\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main contrib\nSigned-By: /usr/share/keyrings/k.gpg\n\n\
                    Types: deb\nEnabled: no\nURIs: http://off.test\nSuites: bookworm\nComponents: main\n";
        let sources = deb822(text);
        assert_eq!(sources.len(), 1);
        assert_eq!(
            stanza(Suite::Bookworm, &sources[0]).unwrap(),
            "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\
             Signed-By: /usr/share/keyrings/k.gpg\n\n"
        );
    }

    #[test]
    fn a_key_of_many_lines_survives() {
        let text = "Types: deb\nURIs: http://m.test\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN\n .\n x\n";
        assert!(
            stanza(Suite::Bookworm, &deb822(text)[0])
                .unwrap()
                .contains("Signed-By: \n -----BEGIN\n .\n x\n")
        );
    }

    #[test]
    fn one_line_sources_are_read() {
        let line = "deb [arch=amd64 signed-by=/k.gpg] http://m.test/debian-security bookworm-security main # note";
        let source = one_line(line).unwrap();
        assert_eq!(source.uris, "http://m.test/debian-security");
        assert_eq!(source.suites, ["bookworm-security"]);
        assert_eq!(source.signed_by.as_deref(), Some("/k.gpg"));
        assert_eq!(one_line("deb-src http://m.test bookworm main"), None);
        assert_eq!(one_line("# deb http://m.test bookworm main"), None);
        assert_eq!(one_line("deb http://m.test bookworm contrib"), None);
    }

    #[test]
    fn other_suites_come_from_the_mirrors_of_debian_12() {
        let security = one_line("deb http://m.test/security bookworm-security main").unwrap();
        let main = one_line("deb http://m.test/debian bookworm main").unwrap();
        let suites = |suite, source| {
            let text = stanza(suite, source)?;
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("Suites: "))?;
            Some(line.to_owned())
        };
        for (suite, of_main, of_security) in [
            (
                Suite::Backports,
                "bookworm bookworm-backports",
                Some("bookworm-security"),
            ),
            (Suite::Bullseye, "bullseye", Some("bullseye-security")),
            (Suite::TrixieBackports, "trixie-backports", None),
        ] {
            assert_eq!(suites(suite, &main).as_deref(), Some(of_main));
            assert_eq!(suites(suite, &security).as_deref(), of_security);
        }
    }

    #[test]
    fn other_suites_are_left_alone() {
        assert_eq!(
            stanza(
                Suite::Bookworm,
                &one_line("deb http://m.test trixie main").unwrap()
            ),
            None
        );
        let error = of(Suite::Bookworm, Path::new("/nonexistent"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no source below /nonexistent names bookworm"),
            "{error}"
        );
    }
}
