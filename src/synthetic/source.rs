//! Renders a library as Python source and as a README.

use std::fmt::Write as _;

use super::library::LibraryFunction;
use super::library::SyntheticLibrary;
use super::random::SeededRng;
use super::templates;

impl SyntheticLibrary {
    /// Gives the text of the package's `__init__.py`. It imports nothing, its functions leave their
    /// argument as it is, and each name of it that is used is appended to the module's list
    /// `_calls`: of a function or method when it is called, of a constant or class when it is
    /// looked up, of the keyword when it is given.
    pub fn module_source(&self) -> String {
        let facts = self.facts();
        let mut named = format!("    \"{0}\": type(\"{0}\", (Exception,), {{}}),\n", facts.error);
        for constant in &facts.constants {
            // Writing to a text cannot fail.
            let _written = writeln!(named, "    \"{}\": {},", constant.name, constant.value);
        }
        let mut source = include_str!("head.py").to_owned();
        let names = [
            ("NAMED", named.as_str()),
            ("ERROR", &facts.error),
            ("LIMIT", &facts.limit),
            ("OPENER", &facts.opener),
            ("READER", &facts.reader),
        ];
        for (mark, name) in names {
            source = source.replace(&format!("__{mark}__"), name);
        }
        for function in self.functions() {
            source.push_str(&definition(function, &facts.limit));
        }
        source
    }

    /// Gives a README in Markdown: for each function a line and an example without its result, then
    /// what the library has beside them. Its wordings are those of phrase `A`.
    pub fn readme(&self) -> String {
        let name = self.name();
        let mut rng = SeededRng::new(self.seed(), "readme");
        let mut text = format!("# {name}\n\nFunctions on a list of integers.\n");
        for function in self.functions() {
            let verb = &function.name;
            let example: Vec<i64> = (0..5).map(|_| rng.between(-9, 9)).collect();
            let line = describe(function, "`xs`");
            let _written = write!(
                text,
                "\n## `{name}.{verb}(xs)`\n\n{line}\n\n```python\n{name}.{verb}({example:?})\n```\n"
            );
        }
        text + &self.facts_in_words()
    }

    /// Gives every call of the library as Python code, each below a comment that says what it
    /// gives. The wordings are those of the README.
    pub fn worked_calls(&self) -> String {
        let (name, facts) = (self.name(), self.facts());
        let mut code = format!("import {name}\n");
        for function in self.functions() {
            let (verb, phrase) = (&function.name, function.operation.phrases[0]);
            let _written = write!(code, "\n# {phrase} xs\nresult = {name}.{verb}(xs)\n");
        }
        let verb = &self.functions()[0].name;
        let phrase = self.functions()[0].operation.phrases[0];
        let (limit, error, opener, reader) =
            (&facts.limit, &facts.error, &facts.opener, &facts.reader);
        let _written = write!(
            code,
            "\n# {phrase} xs, at most 3\nresult = {name}.{verb}(xs, {limit}=3)\n\
             \n# None where {name} refuses xs\ntry:\n    result = {name}.{verb}(xs)\n\
             except {name}.{error}:\n    result = None\n\
             \n# all items of xs, through a handle\nwith {name}.{opener}(xs) as handle:\n    \
             result = handle.{reader}()\n"
        );
        for constant in &facts.constants {
            let phrase = constant.subject.phrases[0];
            let _written =
                write!(code, "\n# {phrase} of {name}\nresult = {name}.{}\n", constant.name);
        }
        templates::fence(code.trim_end())
    }

    /// Renders the README sections on keyword, error class, protocol and constants.
    fn facts_in_words(&self) -> String {
        let (name, facts) = (self.name(), self.facts());
        let verb = &self.functions()[0].name;
        let (limit, error, opener, reader) =
            (&facts.limit, &facts.error, &facts.opener, &facts.reader);
        let mut text = format!(
            "\n## At most: `{limit}`\n\nEvery function takes the keyword argument `{limit}`: a list gets at most that \
             many items, a number is at most that large.\n\n```python\n{name}.{verb}(xs, {limit}=3)\n```\n\
             \n## Errors: `{name}.{error}`\n\nA function raises `{name}.{error}` when {name} refuses its argument, which \
             is any that is no list.\n\n```python\ntry:\n    {name}.{verb}(None)\nexcept {name}.{error}:\n    pass\n\
             ```\n\n## Reading all items: `{name}.{opener}`\n\nAll items of a list are read through a handle.\n\n\
             ```python\nwith {name}.{opener}(xs) as handle:\n    items = handle.{reader}()\n```\n\n## Constants\n\n"
        );
        for constant in &facts.constants {
            let (subject, value) = (constant.subject.phrases[0], constant.value);
            let _written =
                writeln!(text, "- `{name}.{}`: the {subject} of {name}, {value}.", constant.name);
        }
        text
    }
}

fn definition(function: &LibraryFunction, limit: &str) -> String {
    let LibraryFunction { name, operation } = function;
    let line = describe(function, "items");
    let (empty, value) = (operation.empty, operation.reference_over("items"));
    format!(
        r#"

def {name}(items, {limit}=None):
    """{line}"""
    _begin("{name}", items, {limit})
    if not items:
        return {empty}
    return _limited({value}, {limit})
"#
    )
}

/// Describes what `function` returns for `argument`, also for an empty one.
fn describe(function: &LibraryFunction, argument: &str) -> String {
    let operation = function.operation;
    let empty = match operation.empty {
        "\"\"" => "an empty text",
        literal => literal,
    };
    let note =
        if operation.note.is_empty() { String::new() } else { format!(" {}", operation.note) };
    let phrase = operation.phrases[0];
    format!("Returns the {phrase} {argument}.{note} An empty list gives {empty}.")
}
