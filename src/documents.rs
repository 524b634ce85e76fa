//! Documents: what a task may have to look up. They are split into [`Passage`]s, because a prompt
//! has no space for more than the few that say most about the task.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::bm25::PassageIndex;

/// Maximum bytes of a passage. A longer section is split at blank lines, a longer block at lines.
const MAX_BYTES: usize = 1_500;

/// Text about what a task needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Path as the user gave it.
    pub source: String,
    /// The whole text, not yet split.
    pub text: String,
}

/// Part of a document about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Path of the document, or dotted name of the module that it is about.
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
/// lines. Only a code block that is too long by itself is split.
pub fn split(source: &str, text: &str) -> Vec<Passage> {
    let mut passages: Vec<String> = Vec::new();
    for block in blocks(text).into_iter().flat_map(|block| pieces(&block)) {
        let fits = |last: &String| last.len() + block.len() <= MAX_BYTES || is_bare_heading(last);
        match passages.last_mut() {
            Some(last) if !block.starts_with('#') && fits(last) => {
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
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        let is_heading = fence.is_none() && line.starts_with('#');
        match fence {
            Some(mark) if line.trim() == mark => fence = None,
            Some(_) => {}
            None => fence = opened_fence(line),
        }
        if is_heading || (line.trim().is_empty() && fence.is_none()) {
            blocks.push(Vec::new());
        }
        if let Some(block) =
            blocks.last_mut().filter(|_| !line.trim().is_empty() || fence.is_some())
        {
            block.push(line);
        }
        if is_heading {
            blocks.push(Vec::new());
        }
    }
    let texts = blocks.into_iter().map(|lines| lines.join("\n").trim_end().to_owned());
    texts.filter(|block| !block.is_empty()).collect()
}

/// Returns the mark of the code fence that a line opens; `None` if it opens none.
fn opened_fence(line: &str) -> Option<&'static str> {
    let line = line.trim_start();
    let mark = ["```", "~~~"].into_iter().find(|mark| line.starts_with(mark))?;
    (!line[mark.len()..].contains(mark)).then_some(mark)
}

/// Splits a block at lines into pieces of at most [`MAX_BYTES`]; a line is longer only by itself.
fn pieces(block: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for line in block.lines() {
        match pieces.last_mut() {
            Some(last) if last.len() + line.len() < MAX_BYTES => {
                last.push('\n');
                last.push_str(line);
            }
            _ => pieces.push(line.to_owned()),
        }
    }
    pieces
}

/// Returns the passages that share a word with a question, best first, with their places. Of equal
/// texts the first counts. There is no other threshold: a question in other words than the document
/// ranks the wrong passage first, so as many are shown as there is space for.
pub fn relevant(passages: &[Passage], question: &str) -> Vec<(usize, Passage)> {
    let mut known = HashSet::new();
    let distinct: Vec<&Passage> =
        passages.iter().filter(|passage| known.insert(&passage.text)).collect();
    if distinct.is_empty() {
        return Vec::new();
    }
    let texts: Vec<&str> = distinct.iter().map(|passage| passage.text.as_str()).collect();
    let ranked = PassageIndex::new(&texts).ranked(question).into_iter();
    let ranked = ranked.filter(|(_, score)| *score > 0.0);
    ranked.map(|(index, _)| (index, distinct[index].clone())).collect()
}

/// Selects, of relevant passages, at most `limit` that fit into `max_tokens`, best first. They are
/// returned in the order of the documents.
///
/// # Errors
/// Those of `n_tokens`, which counts the tokens of a passage.
pub fn select<E>(
    relevant: Vec<(usize, Passage)>,
    (limit, max_tokens): (usize, usize),
    n_tokens: impl Fn(&Passage) -> Result<usize, E>,
) -> Result<Vec<Passage>, E> {
    let (mut n_left, mut shown) = (max_tokens, Vec::new());
    for (place, passage) in relevant {
        if n_left == 0 || shown.len() == limit {
            break;
        }
        let n = n_tokens(&passage)?;
        if n <= n_left {
            n_left -= n;
            shown.push((place, passage));
        }
    }
    shown.sort_by_key(|(place, _)| *place);
    Ok(shown.into_iter().map(|(_, passage)| passage).collect())
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
    fn code_keeps_its_indentation_and_fences_their_ends() {
        let indented = "    import zorb\n    for x in xs:\n\n        zorb.f(x)";
        assert_eq!(texts(split("a.rst", indented)), [indented]);
        let inline = "```one line``` of code\n\n# Heading\n\n~~~\n# no heading\n~~~";
        let passages = texts(split("a.md", inline));
        assert_eq!(passages, ["```one line``` of code", "# Heading\n\n~~~\n# no heading\n~~~"]);
    }

    #[test]
    fn long_sections_are_split_at_blank_lines_and_long_blocks_at_lines() {
        let paragraph = "word ".repeat(200);
        let passages =
            texts(split("a.txt", &format!("# A\n\n{}", format!("{paragraph}\n\n").repeat(3))));
        assert_eq!(passages.len(), 3);
        assert!(passages[0].starts_with("# A\n\nword"), "{}", passages[0]);
        let open = format!("```python\n{}", "x = 1\n".repeat(2000));
        let passages = texts(split("a.md", &open));
        assert!(passages.len() >= 8 && passages.iter().all(|text| text.len() <= MAX_BYTES));
    }

    #[test]
    fn relevant_passages_fit_the_budget() {
        let select = |question: &str, max_tokens: usize| {
            let n_tokens = |passage: &Passage| Ok::<_, ()>(passage.text.split_whitespace().count());
            let relevant = relevant(&split("README.md", README), question);
            texts(select(relevant, (2, max_tokens), n_tokens).unwrap())
        };
        let largest = "## `zorb.kelpa(xs)`\n\nReturns the largest.";
        assert_eq!(select("largest", 1000), [largest]);
        assert_eq!(select("sum and largest", 1000).len(), 2);
        assert_eq!(select("sum and largest", 6), [largest]);
        assert_eq!(select("sum, largest and lists", 1000).len(), 2, "the limit");
        assert_eq!(select("nothing in common", 1000), [""; 0]);
        assert_eq!(select("the largest of zorb", 0), [""; 0]);
        let stars = [Passage { source: String::new(), text: "***".to_owned() }];
        assert_eq!(super::relevant(&stars, "a question"), []);
    }
}
