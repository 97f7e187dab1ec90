//! Where a profile goes: whole or not at all.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::failure::{FAILED, Failure, USAGE};

pub enum Output {
    Stdout,
    File(Target),
}

/// A file that may be written.
pub struct Target {
    path: PathBuf,
    force: bool,
}

impl Output {
    /// Finds out at once what would be a pity to find out after the recording.
    ///
    /// # Errors
    /// The file is there and may not be replaced, or its directory cannot be written to.
    pub fn parse(given: &str, force: bool) -> Result<Self, Failure> {
        if given == "-" {
            return Ok(Self::Stdout);
        }
        // Where a link leads to is replaced, not the link.
        let path = fs::canonicalize(given).unwrap_or_else(|_| given.into());
        let target = Target { path, force };
        target.check()?;
        target.draft("")?.discard();
        Ok(Self::File(target))
    }
}

impl Target {
    fn check(&self) -> Result<(), Failure> {
        let path = self.path.display();
        match fs::metadata(&self.path) {
            Ok(file) if !file.is_file() => Err(Failure::new(
                USAGE,
                format!("-o {path}: it is there and no regular file"),
            )
            .hint("name a file, or - for stdout")),
            Ok(_) if !self.force => Err(Failure::new(
                USAGE,
                format!("-o {path}: it is there already"),
            )
            .hint("--force replaces it")),
            _ => Ok(()),
        }
    }

    /// Puts `text` there, by way of a file of another name beside it.
    ///
    /// # Errors
    /// It cannot be written, or came to be there meanwhile.
    pub fn write(&self, text: &str) -> Result<(), Failure> {
        let draft = self.draft(text)?;
        if let Err(failure) = self.check() {
            draft.discard();
            return Err(failure);
        }
        fs::rename(&draft.0, &self.path).map_err(|error| {
            draft.discard();
            self.failed(&error)
        })
    }

    fn draft(&self, text: &str) -> Result<Draft, Failure> {
        let Some(name) = self.path.file_name() else {
            return Err(
                Failure::new(USAGE, format!("-o {}: it is no file", self.path.display()))
                    .hint("name a file, or - for stdout"),
            );
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let draft = Draft(self.path.with_file_name(hidden));
        write(&draft.0, text).map_err(|error| {
            draft.discard();
            self.failed(&error)
        })?;
        Ok(draft)
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::new(
            FAILED,
            format!("-o {}: failed to write it: {error}", self.path.display()),
        )
        .hint("name a file in a directory that is there and has room, or - for stdout")
    }
}

/// A file that is not yet what it will be.
struct Draft(PathBuf);

impl Draft {
    fn discard(&self) {
        drop(fs::remove_file(&self.0));
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A directory that goes with the test.
    pub(in crate::record) struct Scratch(PathBuf);

    impl Scratch {
        pub(in crate::record) fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("iolag-record-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(in crate::record) fn file(&self, name: &str) -> String {
            self.0.join(name).display().to_string()
        }

        fn names(&self) -> Vec<std::ffi::OsString> {
            let entries = fs::read_dir(&self.0).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn refusal(given: &str, force: bool) -> String {
        match Output::parse(given, force) {
            Ok(_) => panic!("{given} is taken"),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn a_file_is_replaced_only_if_asked_and_whole() {
        let dir = Scratch::new("replace");
        let path = dir.file("disk.json");
        let Ok(Output::File(file)) = Output::parse(&path, false) else {
            panic!("{path} is refused");
        };
        assert!(dir.names().is_empty());
        file.write("first").unwrap();
        assert_eq!(
            (
                fs::read_to_string(&path).unwrap().as_str(),
                dir.names().len()
            ),
            ("first", 1)
        );
        assert!(file.write("second").is_err());
        assert!(refusal(&path, false).contains("it is there already (hint: --force"));
        let Ok(Output::File(file)) = Output::parse(&path, true) else {
            panic!("{path} is refused");
        };
        file.write("third").unwrap();
        assert_eq!(
            (
                fs::read_to_string(&path).unwrap().as_str(),
                dir.names().len()
            ),
            ("third", 1)
        );
    }

    #[test]
    fn what_is_no_place_for_a_file_is_refused_before_anything_is_recorded() {
        let dir = Scratch::new("place");
        assert!(refusal(&dir.file("."), true).contains("no regular file"));
        assert!(refusal("/dev/null", true).contains("no regular file"));
        assert!(refusal(&dir.file("nowhere/disk.json"), false).contains("failed to write it"));
        assert!(refusal("", false).starts_with("-o "));
        assert!(matches!(Output::parse("-", false), Ok(Output::Stdout)));
    }
}
