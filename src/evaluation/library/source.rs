//! The library as Python source and as a README.

use std::fmt::Write as _;

use super::chance::Chance;
use super::invented::Function;
use super::invented::Library;

impl Library {
    /// Gives the text of the package's `__init__.py`. It imports nothing, its functions leave their
    /// argument as it is, and each appends its own name to the module's list `_calls` when called.
    pub fn module_source(&self) -> String {
        let mut source = String::from(HEAD);
        for function in self.functions() {
            source.push_str(&definition(function));
        }
        source
    }

    /// Gives a README in Markdown: for each function a line and an example without its result. Its
    /// wordings are those of phrase `A`.
    pub fn readme(&self) -> String {
        let name = self.name();
        let mut chance = Chance::new(self.seed(), "readme");
        let mut text = format!("# {name}\n\nFunctions on a list of integers.\n");
        for function in self.functions() {
            let verb = &function.name;
            let example: Vec<i64> = (0..5).map(|_| chance.between(-9, 9)).collect();
            let line = describe(function, "`xs`");
            // Writing to a text cannot fail.
            let _written = write!(
                text,
                "\n## `{name}.{verb}(xs)`\n\n{line}\n\n```python\n{name}.{verb}({example:?})\n```\n"
            );
        }
        text
    }
}

const HEAD: &str = r#""""Functions on a list of integers. None of them changes its argument."""

# The names of the functions called so far, oldest first.
_calls = []
"#;

fn definition(function: &Function) -> String {
    let Function { name, operation } = function;
    let line = describe(function, "items");
    let (empty, value) = (operation.empty, operation.reference_over("items"));
    format!(
        r#"

def {name}(items):
    """{line}"""
    _calls.append("{name}")
    if not items:
        return {empty}
    return {value}
"#
    )
}

/// Says what `function` returns for its argument `argument`, also when that is empty.
fn describe(function: &Function, argument: &str) -> String {
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
