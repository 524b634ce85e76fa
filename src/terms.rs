//! Terms of a text for retrieval: the words that tell one task from another.
//!
//! Identifiers are split at underscores and capitals, and are terms as a whole as well. Plurals are
//! folded, and the words that most programming tasks share are left out.

use std::collections::BTreeSet;
use std::collections::HashSet;

/// Words that say nothing about a task: function words, and the vocabulary of all tasks.
const STOP_WORDS: &[&str] = &[
    "after",
    "all",
    "an",
    "and",
    "any",
    "are",
    "argument",
    "as",
    "at",
    "be",
    "been",
    "before",
    "but",
    "by",
    "can",
    "check",
    "class",
    "code",
    "could",
    "create",
    "def",
    "do",
    "does",
    "each",
    "else",
    "every",
    "example",
    "file",
    "find",
    "following",
    "for",
    "from",
    "function",
    "get",
    "give",
    "given",
    "has",
    "have",
    "if",
    "implement",
    "in",
    "into",
    "is",
    "it",
    "its",
    "like",
    "method",
    "module",
    "name",
    "named",
    "no",
    "none",
    "not",
    "number",
    "of",
    "on",
    "one",
    "only",
    "or",
    "other",
    "out",
    "over",
    "parameter",
    "program",
    "py",
    "python",
    "return",
    "returning",
    "same",
    "self",
    "should",
    "so",
    "solution",
    "some",
    "such",
    "take",
    "task",
    "test",
    "than",
    "that",
    "the",
    "their",
    "them",
    "then",
    "there",
    "these",
    "they",
    "this",
    "those",
    "to",
    "up",
    "use",
    "used",
    "using",
    "value",
    "was",
    "were",
    "what",
    "when",
    "where",
    "which",
    "while",
    "who",
    "whose",
    "will",
    "with",
    "without",
    "write",
    "you",
    "your",
];

/// Returns the distinct terms of a text in lower case.
///
/// ```
/// let terms = rune::terms::terms("Write parse_duration(texts)");
/// assert_eq!(terms.into_iter().collect::<Vec<_>>(), ["duration", "parse", "parseduration",
/// "text"]);
/// ```
pub fn terms(text: &str) -> BTreeSet<String> {
    let identifiers = text.split(|c: char| !c.is_alphabetic() && c != '_');
    identifiers.flat_map(terms_of).filter(|term| is_telling(term)).collect()
}

/// Returns the parts of an identifier, and the whole if it has several. The whole has no
/// separators, so `is_prime` and `isPrime` are one term.
fn terms_of(identifier: &str) -> Vec<String> {
    let parts = identifier.split('_').filter(|part| !part.is_empty()).flat_map(split_capitals);
    let parts: Vec<String> = parts.map(str::to_lowercase).collect();
    let whole = (parts.len() > 1).then(|| parts.concat());
    parts.into_iter().map(singular).chain(whole).collect()
}

/// Returns the names that Python code defines or imports, separated by spaces.
pub fn defined_names(code: &str) -> String {
    const HEADS: [&str; 5] = ["def ", "async def ", "class ", "import ", "from "];
    let name = |line: &str| {
        let line = line.trim_start();
        let rest = HEADS.iter().find_map(|head| line.strip_prefix(head))?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        Some(rest[..end].to_owned())
    };
    code.lines().filter_map(name).collect::<Vec<_>>().join(" ")
}

fn is_telling(term: &str) -> bool {
    term.chars().nth(1).is_some() && STOP_WORDS.binary_search(&term).is_err()
}

/// Removes the `s` of a plural, so that `words` and `word` are one term.
fn singular(mut word: String) -> String {
    if word.len() > 3 && word.ends_with('s') && !word.ends_with("ss") {
        word.pop();
    }
    word
}

/// Splits `HTTPServer` into `HTTP` and `Server`.
fn split_capitals(word: &str) -> Vec<&str> {
    let chars: Vec<(usize, char)> = word.char_indices().collect();
    let mut starts = vec![0];
    for (position, &(at, c)) in chars.iter().enumerate().skip(1) {
        let is_after_lower = chars[position - 1].1.is_lowercase();
        let is_before_lower = chars.get(position + 1).is_some_and(|(_, next)| next.is_lowercase());
        if c.is_uppercase() && (is_after_lower || is_before_lower) {
            starts.push(at);
        }
    }
    let ends = starts.iter().skip(1).copied().chain([word.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &word[start..end]).collect()
}

/// Whether two texts have a run of `n` tokens (at least 1) in common.
pub(crate) fn shares_run(one: &str, other: &str, n: usize) -> bool {
    let (one, other) = (tokens(one), tokens(other));
    let runs: HashSet<&[&str]> = one.windows(n.max(1)).collect();
    other.windows(n.max(1)).any(|run| runs.contains(run))
}

/// Splits text into words, numbers and punctuation marks.
pub(crate) fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut begin = 0;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for (at, c) in text.char_indices() {
        if !is_word(c) {
            tokens.push(&text[begin..at]);
            begin = at + c.len_utf8();
            if !c.is_whitespace() {
                tokens.push(&text[at..begin]);
            }
        }
    }
    tokens.push(&text[begin..]);
    tokens.retain(|token| !token.is_empty());
    tokens
}

#[cfg(test)]
mod tests {
    use super::STOP_WORDS;
    use super::defined_names;
    use super::terms;

    #[test]
    fn stop_words_are_sorted_for_the_binary_search() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn identifiers_are_split_and_common_words_left_out() {
        let check = |text: &str| terms(text).into_iter().collect::<Vec<_>>().join(" ");
        insta::assert_snapshot!(
            check("Write a function is_balanced(text) with BracketsHTTPParser2 and _of_"),
            @"balanced bracket bracketshttpparser http isbalanced parser text");
        insta::assert_snapshot!(check("Größe_der_Straßen x y"), @"der größe größederstraßen straßen");
        insta::assert_snapshot!(check("of the 12 x"), @"");
    }

    #[test]
    fn names_of_code_are_those_it_defines_or_imports() {
        let code = "import heapq as hq\n\nclass Store:\n    async def put(self): ...\nx = 1\n";
        assert_eq!(defined_names(code), "heapq Store put");
    }
}
