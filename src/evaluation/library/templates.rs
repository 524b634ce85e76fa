//! The wordings of records and tasks, one set for training and one for tests, and the code in them.

use super::chance::Chance;

/// What varies between two records or two tasks of one template.
pub(super) struct Wording {
    pub(super) instructions: &'static [&'static str],
    pub(super) variables: &'static [&'static str],
    /// Words that name a Python function together: one of each.
    verbs: &'static [&'static str],
    nouns: &'static [&'static str],
    /// The phrases of an operation, by index.
    pub(super) phrases: std::ops::Range<usize>,
}

/// For training. A test has none of its variables, function names and phrases.
pub(super) const TRAINING: Wording = Wording {
    instructions: &[
        "Complete this Python code. Answer with the whole code.",
        "Finish the Python code below and give it back in full.",
        "Fill in what is missing in this Python code. Return all of it.",
        "Here is unfinished Python code. Write it out to the end.",
        "Continue this Python snippet until it is done; show the full snippet.",
        "The following Python code stops early. Reply with the completed version.",
    ],
    variables: &[
        "xs", "nums", "data", "seq", "arr", "batch", "ages", "scores", "prices", "temps", "counts",
        "lengths", "weights", "levels", "ticks", "hits", "deltas", "amounts", "readings", "loads",
    ],
    verbs: &["compute", "process", "handle", "evaluate", "obtain", "derive"],
    nouns: &["answer", "output", "report", "response", "figure"],
    phrases: 0..4,
};

/// For tests.
pub(super) const TEST: Wording = Wording {
    instructions: &[
        "Please complete the code and send the entire program.",
        "This Python program is incomplete. Write the complete program.",
        "Supply the rest of this Python file. Your reply holds the whole file.",
        "What comes next in this Python code? Give the code with its end added.",
    ],
    variables: &["rows", "vals", "points", "marks"],
    verbs: &["prepare", "produce", "make"],
    nouns: &["reply", "piece", "finding", "thing"],
    phrases: 4..6,
};

impl Wording {
    /// All names that a function may get, as Python identifiers.
    pub(super) fn function_names(&self) -> Vec<String> {
        let named = |verb| self.nouns.iter().map(move |noun| format!("{verb}_{noun}"));
        self.verbs.iter().flat_map(named).collect()
    }

    /// Draws a function's name.
    pub(super) fn function_name(&self, chance: &mut Chance) -> String {
        format!("{}_{}", chance.pick(self.verbs), chance.pick(self.nouns))
    }
}

/// The letter of a phrase, as families and ids have it.
pub(super) fn letter(phrase: usize) -> char {
    "ABCDEF".chars().nth(phrase).unwrap_or('?')
}

/// Code that stops early, and the same code completed.
pub(super) struct Code {
    pub(super) stub: String,
    pub(super) completed: String,
}

/// Template T1, or N1 without a library: a comment that asks for `result`.
pub(super) fn assignment(library: Option<&str>, phrase: &str, variable: &str, value: &str) -> Code {
    let import = library.map_or(String::new(), |library| format!("import {library}\n"));
    let stub = format!("{import}# {phrase} {variable}\nresult =");
    let completed = format!("{stub} {value}");
    Code { stub, completed }
}

/// Template T2: a docstring that asks for the body of the function `name`.
pub(super) fn definition(
    library: &str,
    name: &str,
    phrase: &str,
    variable: &str,
    value: &str,
) -> Code {
    let docstring = format!("Returns the {phrase} {variable}, using {library}.");
    let stub =
        format!("import {library}\n\n\ndef {name}({variable}):\n    \"\"\"{docstring}\"\"\"");
    let completed = format!("{stub}\n    return {value}");
    Code { stub, completed }
}

/// Puts code into a Markdown fence.
pub(super) fn fence(code: &str) -> String {
    format!("```python\n{code}\n```")
}
