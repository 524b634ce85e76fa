//! Wordings and code of records and tasks, with separate sets for training and tests.

use super::random::SeededRng;

/// Wordings that vary between records or tasks of one template.
pub(super) struct WordingSet {
    pub(super) instructions: &'static [&'static str],
    pub(super) variables: &'static [&'static str],
    /// Words that are combined to names of Python functions, one from each list.
    verbs: &'static [&'static str],
    nouns: &'static [&'static str],
    /// Arguments that a library rejects, as Python literals.
    pub(super) bad: &'static [&'static str],
    /// Indices of an operation's phrases.
    pub(super) phrases: std::ops::Range<usize>,
}

/// Wordings for training. Tests share none of its variables, function names and phrases.
pub(super) const TRAINING: WordingSet = WordingSet {
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
    bad: &["True", "7", "\"abc\"", "{1: 2}"],
    phrases: 0..4,
};

/// Wordings that only test tasks use.
pub(super) const TEST: WordingSet = WordingSet {
    instructions: &[
        "Please complete the code and send the entire program.",
        "This Python program is incomplete. Write the complete program.",
        "Supply the rest of this Python file. Your reply holds the whole file.",
        "What comes next in this Python code? Give the code with its end added.",
    ],
    variables: &["rows", "vals", "points", "marks"],
    verbs: &["prepare", "produce", "make"],
    nouns: &["reply", "piece", "finding", "thing"],
    bad: &["3.5", "(1, 2)", "b\"xyz\""],
    phrases: 4..6,
};

impl WordingSet {
    /// Returns all possible function names, as Python identifiers.
    pub(super) fn function_names(&self) -> Vec<String> {
        let named = |verb| self.nouns.iter().map(move |noun| format!("{verb}_{noun}"));
        self.verbs.iter().flat_map(named).collect()
    }

    /// Draws the name of a function.
    pub(super) fn function_name(&self, rng: &mut SeededRng) -> String {
        format!("{}_{}", rng.pick(self.verbs), rng.pick(self.nouns))
    }
}

/// Returns the letter of a phrase in families and ids.
pub(super) fn letter(phrase: usize) -> char {
    "ABCDEF".chars().nth(phrase).unwrap_or('?')
}

/// Truncated code, and the complete code.
pub(super) struct CodeExample {
    pub(super) stub: String,
    pub(super) completed: String,
}

/// Wordings of "at most" in T4, by phrase.
const LIMITS: [&str; 6] = [
    "at most {n}",
    "no more than {n}",
    "{n} at the most",
    "limited to {n}",
    "capped at {n}",
    "with {n} as the upper bound",
];

/// Wordings of the question in T5, by phrase.
const READINGS: [&str; 6] = [
    "result: all items of {v}, read with {library}",
    "read every item of {v} into result with {library}",
    "result gets the items of {v} through a handle of {library}",
    "use a handle of {library} to read {v} into result",
    "through {library}, read all of {v} into result",
    "result holds all items of {v} as a handle of {library} reads them",
];

/// Wordings for a rejected argument in T6, by phrase.
const REFUSALS: [&str; 6] = [
    "result is None where {library} refuses {bad}",
    "None as result when {library} does not take {bad}",
    "{library} rejects {bad}: then result is None",
    "result becomes None if {bad} is refused by {library}",
    "with {bad} refused by {library}, result is None",
    "None is the result once {library} turns {bad} down",
];

/// Wordings of the question in T8, by phrase.
const QUESTIONS: [&str; 6] = [
    "Which function of {library} gives the {phrase} a list? Answer with its name alone.",
    "Name the {library} function for the {phrase} a list. The name and nothing else.",
    "What is the function in {library} called that returns the {phrase} a list? Just the name.",
    "I need the {phrase} a list, from {library}. How is the function called? Only its name.",
    "Q: Which {library} function yields the {phrase} a list?\nA (one name):",
    "Tell me nothing but the name of the function of {library} for the {phrase} a list.",
];

/// Template T1, or N1 without a library: a comment that asks for `result`. T4, with a limit, and
/// T7, about a constant, look the same.
pub(super) fn assignment(library: Option<&str>, wanted: &str, value: &str) -> CodeExample {
    let import = library.map_or(String::new(), |library| format!("import {library}\n"));
    let stub = format!("{import}# {wanted}\nresult =");
    let completed = format!("{stub} {value}");
    CodeExample { stub, completed }
}

/// Template T2, or T3 with a phrase of two operations: a docstring that asks for the body of the
/// function `name`.
pub(super) fn definition(
    library: &str,
    name: &str,
    phrase: &str,
    variable: &str,
    value: &str,
) -> CodeExample {
    let docstring = format!("Returns the {phrase} {variable}, using {library}.");
    let stub =
        format!("import {library}\n\n\ndef {name}({variable}):\n    \"\"\"{docstring}\"\"\"");
    let completed = format!("{stub}\n    return {value}");
    CodeExample { stub, completed }
}

/// Renders the wording of template T4 for a value of at most `limit`.
pub(super) fn limited(phrase: usize, wording: &str, variable: &str, limit: i64) -> String {
    format!("{wording} {variable}, {}", LIMITS[phrase].replace("{n}", &limit.to_string()))
}

/// Template T5: all items of a list are read by a protocol.
pub(super) fn reading(
    library: &str,
    phrase: usize,
    variable: &str,
    (opener, reader): (&str, &str),
) -> CodeExample {
    let wanted = READINGS[phrase].replace("{v}", variable).replace("{library}", library);
    let stub = format!("import {library}\n\n# {wanted}");
    let completed = format!(
        "{stub}\nwith {library}.{opener}({variable}) as handle:\n    result = handle.{reader}()"
    );
    CodeExample { stub, completed }
}

/// Template T6: what the library raises is caught.
pub(super) fn refusal(library: &str, phrase: usize, bad: &str, names: (&str, &str)) -> CodeExample {
    guarded((library, phrase, bad), names, ["", "result = None"])
}

/// Template T6 of tests: `result` is set before, so that all there is to know is the error class.
pub(super) fn caught(library: &str, phrase: usize, bad: &str, names: (&str, &str)) -> CodeExample {
    guarded((library, phrase, bad), names, ["result = None\n", "pass"])
}

/// Code that calls a function in a `try`, with a line before it, and the handler.
fn guarded(
    (library, phrase, bad): (&str, usize, &str),
    (function, error): (&str, &str),
    [before, handler]: [&str; 2],
) -> CodeExample {
    let wanted = REFUSALS[phrase].replace("{bad}", bad).replace("{library}", library);
    let stub = format!(
        "import {library}\n\n{before}# {wanted}\ntry:\n    \
         result = {library}.{function}({bad})\nexcept"
    );
    let completed = format!("{stub} {library}.{error}:\n    {handler}");
    CodeExample { stub, completed }
}

/// Template T8: a question in plain words asks for the name of a function.
pub(super) fn naming(library: &str, phrase: usize, wording: &str) -> String {
    QUESTIONS[phrase].replace("{phrase}", wording).replace("{library}", library)
}

/// Wraps code in a Markdown fence.
pub(super) fn fence(code: &str) -> String {
    format!("```python\n{code}\n```")
}
