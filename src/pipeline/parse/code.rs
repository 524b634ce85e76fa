//! Extracts code from prose, with fences of all kinds, truncated ones included, and without
//! thoughts.

/// Code block of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeBlock {
    /// Path that the answer gives in the line before or in the first comment.
    pub path: Option<String>,
    /// Code with `\n` line ends.
    pub code: String,
}

/// Extracts the code blocks of an answer in order. An answer without fences is one block if it
/// looks like code.
pub fn code_blocks(answer: &str) -> Vec<CodeBlock> {
    let text = normalise(answer);
    let mut blocks = fenced(&text, dedent);
    if blocks.is_empty() && looks_like_code(&text) {
        blocks.extend(block(None, &dedent(&text.lines().collect::<Vec<_>>())));
    }
    blocks
}

/// Extracts the code of an answer that continues a truncated one. It may start in the middle of a
/// block, so its indentation is kept and it need not look like code. A closing fence ends it.
pub(in crate::pipeline) fn continuation(answer: &str) -> String {
    let text = normalise(answer);
    let head: Vec<&str> =
        text.lines().take_while(|line| CodeFence::opening(line).is_none()).collect();
    let first = head.iter().find(|line| !line.trim().is_empty()).copied().unwrap_or("");
    let blocks = fenced(&text, |lines| lines.to_vec());
    if blocks.is_empty() || first.starts_with([' ', '\t']) || looks_like_code(&head.join("\n")) {
        return block(None, &head).map(|block| block.code).unwrap_or_default();
    }
    blocks.into_iter().map(|block| block.code).collect()
}

/// Extracts fenced blocks, with their lines passed through `shape`.
fn fenced(text: &str, shape: for<'a> fn(&[&'a str]) -> Vec<&'a str>) -> Vec<CodeBlock> {
    let mut blocks = Vec::new();
    let mut open: Option<(CodeFence, Option<String>, Vec<&str>)> = None;
    let mut last_prose = "";
    for line in text.lines() {
        match &mut open {
            Some((fence, path, lines)) => {
                if fence.is_closed_by(line) {
                    blocks.extend(block(path.take(), &shape(lines)));
                    open = None;
                    last_prose = "";
                } else {
                    lines.push(line);
                }
            }
            None => match CodeFence::opening(line) {
                Some(fence) => {
                    let path = path_in(&fence.info).or_else(|| path_in(last_prose));
                    open = Some((fence, path, Vec::new()));
                }
                None if line.trim().is_empty() => {}
                None => last_prose = line,
            },
        }
    }
    if let Some((_, path, lines)) = open {
        blocks.extend(block(path, &shape(&lines)));
    }
    blocks
}

/// Joins a truncated text with its continuation, without repeating their overlap.
pub(in crate::pipeline) fn stitch(head: &str, tail: &str) -> String {
    /// Shorter overlaps are coincidence.
    const LEAST: usize = 4;
    let tail = tail.trim_start_matches('\n');
    let overlap = tail
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|n| *n <= head.len())
        .filter(|n| *n >= LEAST && head.ends_with(&tail[..*n]))
        .max();
    if let Some(n) = overlap {
        return format!("{head}{}", &tail[n..]);
    }
    // The head may stop within a line, which the continuation then writes whole.
    let kept = head.rfind('\n').map_or("", |at| &head[..=at]);
    let cut = &head[kept.len()..];
    let first = tail.lines().next().unwrap_or("");
    if !cut.trim().is_empty() && first.starts_with(cut) {
        format!("{kept}{tail}")
    } else if cut.is_empty() {
        format!("{head}{tail}")
    } else {
        format!("{head}\n{tail}")
    }
}

/// Removes `<think>` blocks, closed or not.
pub(in crate::pipeline) fn without_thoughts(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some(start) = rest.find("<think>") {
        kept.push_str(&rest[..start]);
        rest = match rest[start..].find("</think>") {
            Some(end) => &rest[start + end + "</think>".len()..],
            None => "",
        };
    }
    kept.push_str(rest);
    kept
}

/// Removes the byte order mark and thoughts, and normalizes line ends.
fn normalise(answer: &str) -> String {
    let text = answer.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    without_thoughts(&text)
}

struct CodeFence {
    mark: char,
    length: usize,
    indent: usize,
    info: String,
}

impl CodeFence {
    fn opening(line: &str) -> Option<Self> {
        let inner = line.trim_start();
        let mark = inner.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let length = inner.chars().take_while(|c| *c == mark).count();
        let info = inner[length..].trim();
        let opens = length >= 3 && !info.contains('`');
        opens.then(|| Self {
            mark,
            length,
            indent: line.len() - inner.len(),
            info: info.to_owned(),
        })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let inner = line.trim();
        let length = inner.chars().take_while(|c| *c == self.mark).count();
        // A fence within a docstring is indented deeper than the block's own.
        let indent = line.len() - line.trim_start().len();
        length >= self.length && length == inner.chars().count() && indent <= self.indent
    }
}

/// Creates a block from lines; `None` if they are empty.
fn block(path: Option<String>, lines: &[&str]) -> Option<CodeBlock> {
    let first = lines.iter().position(|line| !line.trim().is_empty())?;
    let named = lines[first].trim().strip_prefix('#').and_then(path_in);
    let path = path.or(named);
    let mut code = lines[first..].join("\n").trim_end().to_owned();
    code.push('\n');
    Some(CodeBlock { path, code })
}

/// Removes the common indentation, as of a fence inside a list.
fn dedent<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let indent = |line: &&str| line.len() - line.trim_start_matches(' ').len();
    let shared = lines.iter().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    lines.iter().map(|line| line.get(shared..).unwrap_or("")).collect()
}

/// Finds the first word that is the path of a Python file.
fn path_in(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || "`'\"*()[]:,=".contains(c));
    let is_path = |word: &&str| {
        let stem = word.strip_suffix(".py").unwrap_or("");
        !stem.is_empty() && stem.chars().all(|c| c.is_alphanumeric() || "_-/.".contains(c))
    };
    words
        .map(|word| word.trim_end_matches('.'))
        .find(is_path)
        .map(|path| path.trim_start_matches("./").to_owned())
}

/// Whether a text without fences is code: most of its unindented lines start like statements.
fn looks_like_code(text: &str) -> bool {
    let starts =
        ["def ", "class ", "import ", "from ", "async def ", "@", "#", "\"\"\"", "assert "];
    let margin: Vec<&str> =
        text.lines().filter(|line| line.starts_with(|c: char| !c.is_whitespace())).collect();
    let n_code = margin
        .iter()
        .filter(|line| {
            starts.iter().any(|start| line.starts_with(start))
                || line.contains(" = ")
                || line.starts_with([')', ']', '}'])
        })
        .count();
    n_code > 0 && n_code * 2 >= margin.len()
}

#[cfg(test)]
mod tests {
    use super::code_blocks;
    use super::continuation;
    use super::stitch;

    fn check(answer: &str) -> String {
        code_blocks(answer)
            .into_iter()
            .map(|block| format!("[{}] {}", block.path.unwrap_or_default(), block.code))
            .collect::<Vec<_>>()
            .concat()
    }

    #[test]
    fn fences_of_all_kinds_are_read() {
        for info in ["python", "py", "Python", "python3", ""] {
            for mark in ["```", "~~~", "````"] {
                let answer = format!("Sure!\n\n{mark}{info}\nx = 1\n{mark}\nDone.");
                assert_eq!(check(&answer), "[] x = 1\n", "{answer}");
            }
        }
    }

    #[test]
    fn an_unclosed_fence_holds_what_was_written() {
        assert_eq!(check("```python\ndef f():\n    return 1"), "[] def f():\n    return 1\n");
    }

    #[test]
    fn several_blocks_keep_their_order_and_names() {
        insta::assert_snapshot!(check("First `shop/cart.py`:\n```python\na = 1\n```\n\n**util.py**\n```py\nb = 2\n```\n```python\n# c.py\nc = 3\n```"), @r"
        [shop/cart.py] a = 1
        [util.py] b = 2
        [c.py] # c.py
        c = 3
        ");
    }

    #[test]
    fn byte_order_marks_and_thoughts_are_removed_tabs_kept() {
        assert_eq!(
            check(
                "\u{feff}<think>```python\nno = 1\n```</think>\r\n```python\r\nif x:\r\n\ty = 1\r\n```"
            ),
            "[] if x:\n\ty = 1\n"
        );
        assert_eq!(check("<think>never closed ```python\nx = 1\n```"), "");
    }

    #[test]
    fn two_blank_lines_and_fences_in_docstrings_stay() {
        let code = "def f():\n    \"\"\"Doc.\n\n    ```\n    f()\n    ```\n    \"\"\"\n    return 1\n\n\ndef g():\n    return 2\n";
        assert_eq!(check(&format!("```python\n{code}```")), format!("[] {code}"));
    }

    #[test]
    fn a_fence_within_a_list_is_dedented() {
        assert_eq!(
            check("1. Do:\n   ```python\n   def f():\n       return 1\n   ```"),
            "[] def f():\n    return 1\n"
        );
    }

    #[test]
    fn bare_code_is_code_and_prose_is_not() {
        assert_eq!(
            check("import re\n\ndef f():\n    return 1\n"),
            "[] import re\n\ndef f():\n    return 1\n"
        );
        assert_eq!(check("I cannot do that.\nSorry."), "");
        assert_eq!(check(""), "");
    }

    #[test]
    fn a_continuation_keeps_its_indentation_and_needs_no_fence() {
        let code = "        x = 1\n    return x\n";
        assert_eq!(continuation(&format!("Sure:\n```python\n{code}```\nDone.")), code);
        assert_eq!(continuation(&format!("{code}```\n\nThat is all.")), code);
        assert_eq!(continuation(code), code);
        assert_eq!(continuation(""), "");
    }

    #[test]
    fn a_continuation_is_joined_where_it_overlaps() {
        assert_eq!(
            stitch("def f():\n    return 1", "    return 1\n\nx = 2"),
            "def f():\n    return 1\n\nx = 2"
        );
        assert_eq!(stitch("def f():\n    ret", "    return 1\n"), "def f():\n    return 1\n");
        assert_eq!(stitch("a = 1\n", "b = 2\n"), "a = 1\nb = 2\n");
        assert_eq!(stitch("a = 1", "b = 2\n"), "a = 1\nb = 2\n");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s)[`~# \n\tdefpython.<>think/:é]{0,200}", tail in ".{0,40}") {
            let _blocks = code_blocks(&text);
            let _joined = stitch(&text, &tail);
        }
    }
}
