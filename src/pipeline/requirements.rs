//! What the code has to offer: the files, and the names in them, that the task and its tests ask for.
//!
//! Paths come from here and never from the model.

use serde::Serialize;

use crate::judge::Judge;
use crate::judge::JudgeError;
use crate::task::SourceFile;
use crate::task::Task;

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Target {
    /// Its path.
    pub(super) path: String,
    /// Names that it must define, in the order in which they were found.
    pub(super) names: Vec<String>,
}

/// Where code goes when nobody names a file.
const DEFAULT_PATH: &str = "solution.py";

/// The paths of the files that a task asks for, before any work on it.
///
/// # Errors
/// [`JudgeError`] when the tests cannot be read.
pub async fn planned_paths(judge: &Judge<'_>, task: &Task) -> Result<Vec<String>, JudgeError> {
    Ok(targets(judge, task).await?.into_iter().map(|target| target.path).collect())
}

/// Finds the files and names. At least one file.
pub(super) async fn targets(judge: &Judge<'_>, task: &Task) -> Result<Vec<Target>, JudgeError> {
    let mut targets: Vec<Target> = Vec::new();
    let inspections = judge.inspect(&task.tests).await?;
    for need in inspections.iter().flat_map(|inspection| &inspection.needs) {
        if is_external(&need.module, &task.tests) || judge.provides(&need.module) {
            continue;
        }
        let path = match mentioned_path(&task.text, &need.module) {
            Some(path) => path,
            None => format!("{}.py", need.module.replace('.', "/")),
        };
        add(&mut targets, path, &need.names);
    }
    let from_tests = !targets.is_empty();
    for target in &mut targets {
        // In the order of the task's words, which is the order of thought.
        target.names.sort_by_key(|name| task.text.find(name.as_str()).unwrap_or(usize::MAX));
    }
    for path in paths_in(&task.text) {
        // Other files than those that the tests import count only where they are plainly asked for.
        if !task.tests.iter().any(|test| test.path == path) {
            add(&mut targets, path, &[]);
        }
    }
    if targets.is_empty() {
        add(&mut targets, DEFAULT_PATH.to_owned(), &[]);
    }
    if let [target] = targets.as_mut_slice()
        && !from_tests
    {
        target.names = names_in(&task.text);
    }
    Ok(targets)
}

fn add(targets: &mut Vec<Target>, path: String, names: &[String]) {
    let known = targets.iter().position(|target| target.path == path).unwrap_or_else(|| {
        targets.push(Target { path, names: Vec::new() });
        targets.len() - 1
    });
    for name in names {
        if !targets[known].names.contains(name) {
            targets[known].names.push(name.clone());
        }
    }
}

/// Whether a module is no business of the solution: a test framework, or a helper among the tests.
fn is_external(module: &str, tests: &[SourceFile]) -> bool {
    let top = module.split('.').next().unwrap_or(module);
    let frameworks = ["pytest", "_pytest", "hypothesis", "numpy", "conftest"];
    frameworks.contains(&top)
        || tests
            .iter()
            .any(|test| test.module().is_some_and(|name| name.split('.').next() == Some(top)))
}

/// The path of the text that stands for `module`, such as `shop/cart.py` or `shop/__init__.py` for `shop`.
fn mentioned_path(text: &str, module: &str) -> Option<String> {
    paths_in(text)
        .into_iter()
        .find(|path| SourceFile::new(path.as_str(), "").module().as_deref() == Some(module))
}

/// Relative paths of Python files in a text, in order.
fn paths_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || "_-/.".contains(c)));
    let mut paths: Vec<String> = Vec::new();
    for word in words {
        let word = word.trim_end_matches('.').trim_start_matches("./");
        let is_path = word.len() > ".py".len()
            && word.strip_suffix(".py").is_some_and(|stem| !stem.ends_with('/'))
            && !word.starts_with('/')
            && word.split('/').all(|part| !part.is_empty() && part != "..");
        if is_path && !paths.iter().any(|path| path == word) {
            paths.push(word.to_owned());
        }
    }
    paths
}

/// Names that a text speaks of as code: `f(...)`, `class Name`, `function name`.
fn names_in(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut previous = "";
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (is_word(c), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                let word = &text[from..at];
                let before = text[..from].chars().next_back();
                let is_call = c == '(' && before != Some('.');
                let is_introduced = matches!(previous, "class" | "def")
                    && word.starts_with(|c: char| c.is_alphabetic() || c == '_');
                let keywords = ["def", "class", "and", "or", "in", "if", "not", "return", "print"];
                let is_name = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
                if (is_call || is_introduced)
                    && is_name
                    && !keywords.contains(&word)
                    && (word.len() > 1 || is_call)
                    && !names.iter().any(|name| name == word)
                {
                    names.push(word.to_owned());
                }
                previous = word;
                start = None;
            }
            _ => {}
        }
    }
    // Methods and exceptions of a class are spoken of as calls as well; the class is what is asked for.
    match names.iter().position(|name| text.contains(&format!("class {name}"))) {
        Some(at) => vec![names.swap_remove(at)],
        None => names,
    }
}

#[cfg(test)]
mod tests {
    use super::names_in;
    use super::paths_in;

    #[test]
    fn paths_and_names_are_found_in_the_text() {
        let text = "Write primes.py with is_prime(n) and primes_below(n), see ./lib/a_b.py and ../no.py. Also primes.py.";
        assert_eq!(paths_in(text), ["primes.py", "lib/a_b.py"]);
        assert_eq!(names_in(text), ["is_prime", "primes_below"]);
    }

    #[test]
    fn a_class_stands_for_its_methods() {
        assert_eq!(names_in("Write a class Stack with push(x), pop() and len(stack)"), ["Stack"]);
        assert_eq!(names_in("A function that adds (two) numbers"), Vec::<String>::new());
        assert_eq!(names_in("use s.upper() in shout(s)"), ["shout"]);
    }
}
