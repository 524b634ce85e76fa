//! Finds paths, identifiers and modules in the text of a task.

use crate::task::SourceFile;

/// How a text speaks of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mention {
    /// The text does not mention the name.
    Absent,
    /// As a word, which may have another meaning.
    Word,
    /// As code: by its path, as a call, in backticks, or in a spelling that is not an English word.
    Code,
}

/// Finds how a text mentions the module `name` or any of `names`, which are imported from it.
pub(super) fn of_module(text: &str, module: &str, names: &[String]) -> Mention {
    if path_of(text, module).is_some() {
        return Mention::Code;
    }
    let parts = [module].into_iter().chain(module.split('.').next());
    let all = parts.chain(names.iter().map(String::as_str));
    all.map(|name| of_name(text, name)).max().unwrap_or(Mention::Absent)
}

/// How a text speaks of a name.
fn of_name(text: &str, name: &str) -> Mention {
    let is_code_word =
        name.contains(['_', '.', ':']) || name.chars().skip(1).any(char::is_uppercase);
    let mut mention = Mention::Absent;
    for (at, _) in text.match_indices(name) {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        if is_part(before.chars().next_back()) || is_part(after.chars().next()) {
            continue;
        }
        let previous = before.split_whitespace().next_back().unwrap_or_default();
        let is_introduced =
            matches!(previous, "class" | "def" | "function" | "module" | "import" | "from");
        let is_quoted = before.ends_with('`') || after.starts_with('`');
        if is_code_word || is_introduced || is_quoted || after.starts_with('(') {
            return Mention::Code;
        }
        mention = Mention::Word;
    }
    mention
}

/// Finds the path in a text that belongs to `module`, such as `shop/cart.py` or `shop/__init__.py`
/// for `shop`.
pub(super) fn path_of(text: &str, module: &str) -> Option<String> {
    paths_in(text)
        .into_iter()
        .find(|path| SourceFile::new(path.as_str(), "").module().as_deref() == Some(module))
}

/// Extracts relative paths of Python files, in order.
pub(super) fn paths_in(text: &str) -> Vec<String> {
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

/// Extracts identifiers: `f(...)`, `class Name`, `function name`.
pub(super) fn names_in(text: &str) -> Vec<String> {
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
    // Methods and exceptions of a class are spoken of as calls as well; the class is what is asked
    // for.
    match names.iter().position(|name| text.contains(&format!("class {name}"))) {
        Some(at) => vec![names.swap_remove(at)],
        None => names,
    }
}

#[cfg(test)]
mod tests {
    use super::Mention;
    use super::names_in;
    use super::of_module;
    use super::paths_in;

    #[test]
    fn module_is_mentioned_by_its_path_its_name_or_a_name_in_it() {
        let check = |text: &str, module: &str, names: &[&str]| {
            of_module(
                text,
                module,
                &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
            )
        };
        let text = "Write adder.py with add(a, b), given two numbers, as class Total says.";
        assert_eq!(check(text, "adder", &[]), Mention::Code);
        assert_eq!(check(text, "sums", &["add"]), Mention::Code);
        assert_eq!(check(text, "sums", &["Total"]), Mention::Code);
        assert_eq!(check(text, "hypothesis", &["given"]), Mention::Word);
        assert_eq!(check(text, "numbers", &[]), Mention::Word);
        assert_eq!(check(text, "parameterized", &["parameterized"]), Mention::Absent);
        assert_eq!(check("Use is_prime of `sums`", "primes", &["is_prime"]), Mention::Code);
        assert_eq!(check("Use is_prime of `sums`", "sums", &[]), Mention::Code);
        assert_eq!(check("A shop with a cart", "shop.cart", &[]), Mention::Word);
    }

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
