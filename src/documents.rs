//! Documents: what a task may have to look up. They are split into [`Passage`]s, because a prompt
//! has no space for more than the few that say most about the task.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::bm25::PassageIndex;

/// Maximum characters of a passage. A longer section is split at blank lines.
const MAX_CHARS: usize = 1_500;

/// Part of a document about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Path of the document, or dotted name of the package that it is about.
    pub source: String,
    /// Text of the passage, with its heading.
    pub text: String,
}

impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "From `{}`:\n\n{}", self.source, self.text)
    }
}

/// Splits a text into passages: at its Markdown headings, and where a section is long, at blank
/// lines. Code blocks are not split.
pub fn split(source: &str, text: &str) -> Vec<Passage> {
    let mut passages: Vec<String> = Vec::new();
    for block in blocks(text) {
        let is_heading = block.starts_with('#');
        let is_full =
            |last: &String| last.len() + block.len() > MAX_CHARS && !is_bare_heading(last);
        match passages.last_mut() {
            Some(last) if !is_heading && !is_full(last) => {
                last.push_str("\n\n");
                last.push_str(&block);
            }
            _ => passages.push(block),
        }
    }
    passages.into_iter().map(|text| Passage { source: source.to_owned(), text }).collect()
}

/// Whether a passage is nothing but a heading so far.
fn is_bare_heading(passage: &str) -> bool {
    passage.starts_with('#') && !passage.contains('\n')
}

/// Returns the blocks of a text between blank lines. A heading is a block of its own, and a fenced
/// code block is one with the blank lines in it.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<Vec<&str>> = vec![Vec::new()];
    let mut is_in_code = false;
    for line in text.lines() {
        let is_heading = !is_in_code && line.starts_with('#');
        if line.trim_start().starts_with("```") {
            is_in_code = !is_in_code;
        }
        if is_heading || (line.trim().is_empty() && !is_in_code) {
            blocks.push(Vec::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push(line);
        }
        if is_heading {
            blocks.push(Vec::new());
        }
    }
    let texts = blocks.into_iter().map(|lines| lines.join("\n").trim().to_owned());
    texts.filter(|block| !block.is_empty()).collect()
}

/// Selects the passages that rank highest for a question and together cost at most `max_tokens`.
/// Those that share no word with it are left out. The others keep their order.
///
/// # Errors
/// Those of `n_tokens`, which counts the tokens of a passage.
pub fn select<E>(
    passages: Vec<Passage>,
    question: &str,
    max_tokens: usize,
    n_tokens: impl Fn(&Passage) -> Result<usize, E>,
) -> Result<Vec<Passage>, E> {
    if passages.is_empty() {
        return Ok(passages);
    }
    let texts: Vec<String> = passages.iter().map(|passage| passage.text.clone()).collect();
    let mut n_left = max_tokens;
    let mut is_shown = vec![false; passages.len()];
    for (index, score) in PassageIndex::new(&texts).ranked(question) {
        if score <= 0.0 {
            break;
        }
        let n = n_tokens(&passages[index])?;
        if n <= n_left {
            n_left -= n;
            is_shown[index] = true;
        }
    }
    let shown = passages.into_iter().zip(is_shown).filter(|(_, is_shown)| *is_shown);
    Ok(shown.map(|(passage, _)| passage).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "# zorb\n\nLists.\n\n## `zorb.nusib(xs)`\n\nReturns the sum.\n\n\
        ```python\nimport zorb\n\n# no heading\nzorb.nusib(xs)\n```\n## `zorb.kelpa(xs)`\nReturns the largest.\n";

    fn texts(passages: Vec<Passage>) -> Vec<String> {
        passages.into_iter().map(|passage| passage.text).collect()
    }

    #[test]
    fn sections_are_passages_and_code_is_not_split() {
        let passages = texts(split("README.md", README));
        assert_eq!(passages.len(), 3, "{passages:?}");
        assert_eq!(passages[0], "# zorb\n\nLists.");
        assert!(passages[1].ends_with("# no heading\nzorb.nusib(xs)\n```"), "{passages:?}");
        assert_eq!(passages[2], "## `zorb.kelpa(xs)`\n\nReturns the largest.");
        assert_eq!(texts(split("empty.md", "\n \n")), [""; 0]);
    }

    #[test]
    fn long_sections_are_split_at_blank_lines() {
        let paragraph = "word ".repeat(200);
        let passages =
            texts(split("a.txt", &format!("# A\n\n{}", format!("{paragraph}\n\n").repeat(3))));
        assert_eq!(passages.len(), 3);
        assert!(passages[0].starts_with("# A\n\nword"), "{}", passages[0]);
    }

    #[test]
    fn passages_about_the_question_fit_the_budget() {
        let select = |question: &str, max_tokens: usize| {
            let n_tokens = |passage: &Passage| Ok::<_, ()>(passage.text.split_whitespace().count());
            texts(select(split("README.md", README), question, max_tokens, n_tokens).unwrap())
        };
        let largest = "## `zorb.kelpa(xs)`\n\nReturns the largest.";
        assert_eq!(select("the largest of zorb", 6), [largest]);
        assert_eq!(select("the largest of zorb", 1000).len(), 3);
        assert_eq!(select("nothing in common", 1000), [""; 0]);
        assert_eq!(select("the largest of zorb", 0), [""; 0]);
    }
}
