//! Lines for a terminal of 80 columns.

/// Columns of the longest line.
pub const COLUMNS: usize = 79;

/// The shortest that a label's value is cut to (columns).
const LEAST: usize = 4;

/// `text` in lines of at most [`COLUMNS`], each with its newline, all but the first indented by so many
/// columns. A word that is longer than a line is cut into several.
#[must_use]
pub fn wrap(text: &str, indent: usize) -> String {
    hang("", text, indent)
}

/// As [`wrap`], behind a first word or several that stay as they are.
#[must_use]
pub fn hang(first: &str, text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut line = first.to_owned();
    let mut fresh = true;
    for word in text.split([' ', '\n']) {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let used = line.chars().count();
            let gap = usize::from(!fresh);
            if used + gap + word.len() <= COLUMNS {
                line.extend((!fresh).then_some(' '));
                line.extend(word);
                fresh = false;
                break;
            }
            if fresh {
                line.extend(word.drain(..COLUMNS - used));
            }
            lines += &format!("{line}\n");
            line = " ".repeat(indent);
            fresh = true;
        }
    }
    lines + &line + "\n"
}

/// `KEY=VALUE ...` in one line of at most [`COLUMNS`]: the longest values are cut until it fits.
#[must_use]
pub fn labels<'a>(labels: impl Iterator<Item = (&'a String, &'a String)> + Clone) -> String {
    let cut_to = |most| {
        let pairs = labels.clone();
        let pairs = pairs.map(|(key, value)| format!("{key}={}", end_of(value, most)));
        pairs.collect::<Vec<_>>().join(" ")
    };
    (LEAST..=COLUMNS)
        .rev()
        .map(cut_to)
        .find(|line| line.chars().count() <= COLUMNS)
        .unwrap_or_else(|| cut_to(LEAST))
}

/// The end, which of a path tells more than its start, behind `...` if something is left out. Without control
/// characters, which a command may have.
fn end_of(text: &str, most: usize) -> String {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    let all = text.chars().count();
    if all <= most {
        return text.chars().map(clean).collect();
    }
    let end = text.chars().skip(all - (most - 3)).map(clean);
    "...".chars().chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_within_those_that_are_too_long() {
        let text = format!("first {} last", "x".repeat(100));
        assert_eq!(
            wrap(&text, 2),
            format!("first\n  {}\n  {} last\n", "x".repeat(77), "x".repeat(23))
        );
        assert_eq!(wrap("said\nmore", 2), "said more\n");
        let fits = "a".repeat(COLUMNS);
        assert_eq!(wrap(&fits, 2), format!("{fits}\n"));
        assert_eq!(wrap(&format!("{fits} b"), 2), format!("{fits}\n  b\n"));
    }

    #[test]
    fn of_a_long_value_the_end_stays_and_the_others_are_whole() {
        let pairs = [
            ("cgroup", format!("/{}/tail", "long/".repeat(40))),
            ("comm", "fio\n".into()),
        ];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value));
        let line = labels(pairs.iter().map(|(key, value)| (key, value)));
        assert_eq!(line.chars().count(), COLUMNS, "{line}");
        assert!(line.starts_with("cgroup=..."), "{line}");
        assert!(line.ends_with("/tail comm=fio?"), "{line}");
    }
}
