//! Terminal output: colors, tables, and escaping of text that could control the terminal.

use std::borrow::Cow;
use std::env;
use std::fmt::Write as _;
use std::io;
use std::io::IsTerminal;
use std::io::Write;

use clap::ColorChoice;

/// Escapes untrusted text for a terminal. Control characters except line feed and tab become
/// `\u{1b}` and the like, and so do characters that change the writing direction.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_where(text, |c| !matches!(c, '\n' | '\t'))
}

/// Escapes untrusted text as [`escape`] does, and also line feeds and tabs.
pub fn escape_line(text: &str) -> Cow<'_, str> {
    escape_where(text, |_| true)
}

fn escape_where(text: &str, is_escaped_control: impl Fn(char) -> bool) -> Cow<'_, str> {
    let needs_escaping = |c: char| {
        // Bidirectional overrides make code look different from what it does (CVE-2021-42574).
        let is_bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        is_bidi || (c.is_control() && is_escaped_control(c))
    };
    if !text.contains(needs_escaping) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if needs_escaping(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// Whether to color a stream. See <https://no-color.org> and <https://bixense.com/clicolors>.
pub(super) fn colors(choice: ColorChoice, stream: &impl IsTerminal) -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if is_set("NO_COLOR") => false,
        ColorChoice::Auto if env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0") => {
            true
        }
        ColorChoice::Auto => {
            stream.is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

/// Wraps `text` in an SGR style, such as `31` for red, if `colors` is set. Escape untrusted text
/// before painting it: afterwards the escape sequences of the style would be escaped, too.
pub(super) fn paint(text: &str, style: &str, colors: bool) -> String {
    if colors { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Prints a result to stdout in one write.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints a line of progress to stderr, escaped. A closed stderr is not an error: results and
/// records do not depend on it.
pub(super) fn note(text: &str) {
    note_styled(text, None);
}

/// Prints a line of progress to stderr, escaped, then painted in an SGR style.
pub(super) fn note_styled(text: &str, style: Option<&str>) {
    let _unread = writeln!(io::stderr().lock(), "{}", styled_line(text, style));
}

fn styled_line(text: &str, style: Option<&str>) -> String {
    paint(&escape_line(text), style.unwrap_or_default(), style.is_some())
}

/// Prints an error with its causes to stderr, and the hint on a line of its own.
pub(super) fn print_error(error: &anyhow::Error, hint: Option<&str>, colors: bool) {
    let mut text =
        format!("{} {}\n", paint("error:", "1;31", colors), escape(&format!("{error:#}")));
    if let Some(hint) = hint {
        let _infallible = writeln!(text, "{} {hint}", paint("hint:", "1;36", colors));
    }
    let _unread = io::stderr().lock().write_all(text.as_bytes());
}

/// Formats rows as columns of the least width that fits; the last column is not padded.
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

/// Formats rows as a Markdown table with the first row as its header.
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
    fn untrusted_text_cannot_control_the_terminal() {
        insta::assert_snapshot!(escape("a\tb\u{1b}[2Jc\r\u{7}\u{9b}d\u{202e}é"),
            @r"a	b\u{1b}[2Jc\r\u{7}\u{9b}d\u{202e}é");
        insta::assert_snapshot!(escape_line("a\nb\tc"), @r"a\nb\tc");
        assert!(matches!(escape("plain é\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn styled_line_escapes_only_the_text() {
        assert_eq!(styled_line("a\u{1b}[2J", Some("33")), "\u{1b}[33ma\\u{1b}[2J\u{1b}[0m");
        assert_eq!(styled_line("a\u{1b}[2J", None), "a\\u{1b}[2J");
    }

    #[test]
    fn columns_have_the_width_of_their_widest_cell() {
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect();
        assert_eq!(table(&[row(&["a", "bb"]), row(&["ccc", ""])]), "a    bb\nccc\n");
        assert_eq!(
            markdown(&[row(&["a", "b|b"]), row(&["ccc"])]),
            "| a | b\\|b |\n|---|---|\n| ccc |  |\n"
        );
    }
}
