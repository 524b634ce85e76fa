//! What goes to the terminal: colours or not, and nothing that could take it over.

use std::borrow::Cow;
use std::env;
use std::fmt::Write as _;
use std::io;
use std::io::IsTerminal;
use std::io::Write;

use clap::ColorChoice;

/// Makes foreign text harmless to a terminal: control characters but line end and tab become
/// `\u{1b}` and the like, and so do characters that change the direction of writing.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_where(text, |c| !matches!(c, '\n' | '\t'))
}

/// As [`escape`], for text that has to stay on one line.
pub fn escape_line(text: &str) -> Cow<'_, str> {
    escape_where(text, |_| true)
}

fn escape_where(text: &str, also: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_foul = |c: char| {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        turns || (c.is_control() && also(c))
    };
    if !text.contains(is_foul) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_foul(c) { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    Cow::Owned(clean)
}

/// Whether to colour a stream.
pub(super) fn colors(choice: ColorChoice, stream: &impl IsTerminal) -> bool {
    let filled = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if filled("NO_COLOR") => false,
        ColorChoice::Auto if env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0") => {
            true
        }
        ColorChoice::Auto => {
            stream.is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

/// `text` in an SGR style, such as `31` for red, where `colors` are wanted.
pub(super) fn paint(text: &str, style: &str, colors: bool) -> String {
    if colors { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Prints a result to stdout, all at once.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints a line of progress to stderr. When nobody listens there, nothing is lost.
pub(super) fn note(text: &str) {
    let _unheard = writeln!(io::stderr().lock(), "{}", escape_line(text));
}

/// Prints an error with its causes, and what can be done about it.
pub(super) fn print_error(error: &anyhow::Error, hint: Option<&str>, colors: bool) {
    let mut text =
        format!("{} {}\n", paint("error:", "1;31", colors), escape(&format!("{error:#}")));
    if let Some(hint) = hint {
        let _infallible = writeln!(text, "{} {hint}", paint("hint:", "1;36", colors));
    }
    let _unheard = io::stderr().lock().write_all(text.as_bytes());
}

/// Rows in columns as wide as they need to be; the last column is not padded.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..n_columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Rows as a table of Markdown, the first as its head.
pub(super) fn markdown(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for column in 0..n_columns {
            let cell = row.get(column).map_or("", String::as_str);
            let _infallible = write!(text, "| {} ", cell.replace('|', "\\|"));
        }
        text.push_str("|\n");
        if index == 0 {
            let _infallible = writeln!(text, "{}|", "|---".repeat(n_columns));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        insta::assert_snapshot!(escape("a\tb\u{1b}[2Jc\r\u{7}\u{9b}d\u{202e}é"),
            @r"a	b\u{1b}[2Jc\r\u{7}\u{9b}d\u{202e}é");
        insta::assert_snapshot!(escape_line("a\nb\tc"), @r"a\nb\tc");
        assert!(matches!(escape("plain é\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect();
        assert_eq!(table(&[row(&["a", "bb"]), row(&["ccc", ""])]), "a    bb\nccc\n");
        assert_eq!(
            markdown(&[row(&["a", "b|b"]), row(&["ccc"])]),
            "| a | b\\|b |\n|---|---|\n| ccc |  |\n"
        );
    }
}
