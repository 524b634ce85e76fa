//! Regular expressions as grammars of llama.cpp (GBNF, described beside its grammars).

use std::fmt::Write as _;

use regex_syntax::hir::Class;
use regex_syntax::hir::Hir;
use regex_syntax::hir::HirKind;
use regex_syntax::hir::Repetition;

/// Returns the grammar whose sentences are the texts that `regex` matches as a whole; `None` if
/// the expression is invalid, or needs what these grammars lack: anchors and word boundaries.
pub(super) fn of_regex(regex: &str) -> Option<String> {
    let mut grammar = "root ::= ".to_owned();
    put(&mut grammar, &regex_syntax::parse(regex).ok()?)?;
    Some(grammar)
}

fn put(out: &mut String, hir: &Hir) -> Option<()> {
    match hir.kind() {
        HirKind::Empty => out.push_str("\"\""),
        HirKind::Literal(literal) => {
            out.push('"');
            std::str::from_utf8(&literal.0).ok()?.chars().for_each(|one| put_char(out, one));
            out.push('"');
        }
        HirKind::Class(class) => put_class(out, class)?,
        HirKind::Look(_) => return None,
        HirKind::Repetition(repetition) => put_repetition(out, repetition)?,
        HirKind::Capture(capture) => put(out, &capture.sub)?,
        HirKind::Concat(parts) => put_all(out, parts, " ")?,
        HirKind::Alternation(branches) => put_all(out, branches, " | ")?,
    }
    Some(())
}

fn put_all(out: &mut String, parts: &[Hir], between: &str) -> Option<()> {
    out.push('(');
    for (index, part) in parts.iter().enumerate() {
        out.push_str(if index == 0 { "" } else { between });
        put(out, part)?;
    }
    out.push(')');
    Some(())
}

fn put_repetition(out: &mut String, repetition: &Repetition) -> Option<()> {
    put_all(out, std::slice::from_ref(&repetition.sub), "")?;
    match (repetition.min, repetition.max) {
        (0, None) => out.push('*'),
        (1, None) => out.push('+'),
        (0, Some(1)) => out.push('?'),
        (min, None) => write!(out, "{{{min},}}").ok()?,
        (min, Some(max)) if min == max => write!(out, "{{{min}}}").ok()?,
        (min, Some(max)) => write!(out, "{{{min},{max}}}").ok()?,
    }
    Some(())
}

fn put_class(out: &mut String, class: &Class) -> Option<()> {
    let mut ranges: Vec<(char, char)> = match class {
        Class::Unicode(class) => class.iter().map(|range| (range.start(), range.end())).collect(),
        // Bytes above ASCII are parts of characters.
        Class::Bytes(class) if class.is_ascii() => {
            class.iter().map(|range| (range.start().into(), range.end().into())).collect()
        }
        Class::Bytes(_) => return None,
    };
    // A class without members matches nothing, which no grammar can say.
    ranges.first()?;
    out.push('[');
    for (start, end) in ranges.drain(..) {
        put_char(out, start);
        if start < end {
            out.push('-');
            put_char(out, end);
        }
    }
    out.push(']');
    Some(())
}

/// Writes a character so that it means itself in literals and classes alike.
fn put_char(out: &mut String, one: char) {
    let code = u32::from(one);
    let written = match code {
        _ if one.is_ascii_alphanumeric() => write!(out, "{one}"),
        0..=0xff => write!(out, "\\x{code:02X}"),
        0x100..=0xffff => write!(out, "\\u{code:04X}"),
        _ => write!(out, "\\U{code:08X}"),
    };
    written.expect("text takes every write");
}

#[cfg(test)]
mod tests {
    use super::of_regex;

    #[test]
    fn regular_expressions_become_grammars() {
        let cases = [
            ("ab\n", r#""ab\x0A""#),
            ("[a-cü€🦀]", r"[a-c\xFC\u20AC\U0001F980]"),
            ("(x|yz){2,3}", r#"(("x" | "yz")){2,3}"#),
            ("1\\.( z)?", r#"("1\x2E" ("\x20z")?)"#),
            ("[^`]", r"[\x00-\x5Fa-\U0010FFFF]"),
        ];
        for (regex, expected) in cases {
            assert_eq!(of_regex(regex).unwrap(), format!("root ::= {expected}"), "{regex}");
        }
        for bad in ["(", "^a", r"\bx", "[^\\x00-\\x{10FFFF}]"] {
            assert_eq!(of_regex(bad), None, "{bad}");
        }
    }
}
