//! Parses lists of parts: numbered, bulleted, bold, nested, as headings or as JSON.

use serde_json::Value;

use super::without_thoughts;

/// Item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pipeline) struct ListItem {
    /// Number of the item as written, if it has one.
    pub(in crate::pipeline) number: Option<usize>,
    /// Text before the separator.
    pub(in crate::pipeline) name: String,
    /// Text after the separator, with the lines nested below.
    pub(in crate::pipeline) description: String,
    /// The dependencies that the item states.
    pub(in crate::pipeline) needs: Vec<ItemNeed>,
}

/// Dependency stated by an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pipeline) enum ItemNeed {
    /// Number of an item in the list as written.
    Number(usize),
    /// Name of an item.
    Name(String),
}

/// Words that introduce dependencies.
const NEEDS: &[&str] = &[
    "needs",
    "need",
    "depends on",
    "depends upon",
    "dependencies",
    "dependency",
    "requires",
    "after",
];

/// Parses the items of an answer in order; empty if it has no list.
pub(in crate::pipeline) fn items(answer: &str) -> Vec<ListItem> {
    let text = without_thoughts(answer).replace("\r\n", "\n");
    json_items(&text).unwrap_or_else(|| line_items(&text))
}

/// Parses the first JSON array of strings or objects.
fn json_items(text: &str) -> Option<Vec<ListItem>> {
    let starts = text.match_indices('[').map(|(at, _)| at);
    let values = starts
        .filter_map(|at| {
            let mut stream =
                serde_json::Deserializer::from_str(&text[at..]).into_iter::<Vec<Value>>();
            stream.next()?.ok()
        })
        .find(|values| {
            !values.is_empty()
                && values
                    .iter()
                    .all(|value| json_item(value).is_some_and(|item| !item.name.is_empty()))
        })?;
    Some(values.iter().filter_map(json_item).collect())
}

fn json_item(value: &Value) -> Option<ListItem> {
    if let Value::String(text) = value {
        return Some(item(None, text));
    }
    let object = value.as_object()?;
    let field = |keys: &[&str]| keys.iter().find_map(|key| object.get(*key));
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let name = field(&["name", "title", "part", "subtask", "task", "function"]).and_then(text)?;
    let description = field(&["description", "what", "details", "does"]).and_then(text);
    let number =
        field(&["id", "number"]).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let listed = field(&["needs", "depends_on", "dependencies", "requires", "after"]);
    let needs = match listed {
        Some(Value::Array(values)) => {
            values.iter().filter_map(text).flat_map(|t| need_words(&t)).collect()
        }
        Some(value) => text(value).map(|t| need_words(&t)).unwrap_or_default(),
        None => Vec::new(),
    };
    Some(ListItem { number, name, description: description.unwrap_or_default(), needs })
}

/// Parses lines that start with a number or bullet; nested lines belong to the item above.
fn line_items(text: &str) -> Vec<ListItem> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("```"));
    let marked: Vec<(usize, Option<ListMarker<'_>>, &str)> = lines
        .map(|line| (line.len() - line.trim_start().len(), marker(line.trim()), line.trim()))
        .collect();
    // Where there are numbers, bullets are details.
    let numbered = marked
        .iter()
        .any(|(_, marker, _)| matches!(marker, Some(ListMarker { number: Some(_), .. })));
    let is_item = |indent: usize, marker: &ListMarker<'_>, least: usize| {
        (marker.number.is_some() || !numbered) && indent <= least
    };
    let least = marked
        .iter()
        .filter(|(_, marker, _)| marker.as_ref().is_some_and(|m| m.number.is_some() || !numbered))
        .map(|(indent, ..)| *indent)
        .min()
        .unwrap_or(0)
        + 1;
    let mut items: Vec<ListItem> = Vec::new();
    for (indent, marker, line) in marked {
        match marker {
            Some(marker) if is_item(indent, &marker, least) => {
                items.push(item(marker.number, marker.rest));
            }
            _ if line.is_empty() => {}
            _ if indent > 0 || line.starts_with(['-', '*', '•']) => {
                if let Some(last) = items.last_mut() {
                    detail(last, line);
                }
            }
            _ => {}
        }
    }
    items.retain(|item| !item.name.is_empty());
    items
}

/// Adds a nested line to its item.
fn detail(item: &mut ListItem, line: &str) {
    let plain = unmarked(line.trim_start_matches(['-', '*', '•', ' ']));
    let (text, needs) = split_needs(&plain);
    item.needs.extend(needs);
    if !text.is_empty() {
        if !item.description.is_empty() {
            item.description.push_str("; ");
        }
        item.description.push_str(&text);
    }
}

/// First line of a list item.
struct ListMarker<'a> {
    number: Option<usize>,
    rest: &'a str,
}

/// Splits `1.`, `2)`, `**3.**`, `#### 4.`, `- `, `* `, `• `, `Part 5:` from a line.
fn marker(line: &str) -> Option<ListMarker<'_>> {
    let inner = line.trim_start_matches(['#', '*', '_', ' ']);
    let words = ["part ", "subtask ", "step "];
    let word = words.iter().find(|word| inner.to_lowercase().starts_with(**word));
    let counted = word.map_or(inner, |word| inner.get(word.len()..).unwrap_or(inner));
    let digits = counted.bytes().take_while(u8::is_ascii_digit).count();
    if (1..=3).contains(&digits) {
        let rest = &counted[digits..];
        let end = rest.trim_start_matches('*');
        if let Some(rest) = end.strip_prefix(['.', ')', ':'])
            && (rest.is_empty() || rest.starts_with([' ', '*', '\t']))
        {
            return Some(ListMarker { number: counted[..digits].parse().ok(), rest: rest.trim() });
        }
    }
    let bullet = ["- ", "* ", "• ", "+ "].iter().find_map(|bullet| line.strip_prefix(bullet))?;
    let nested = marker(bullet.trim());
    Some(nested.unwrap_or(ListMarker { number: None, rest: bullet.trim() }))
}

/// Splits name, description and needs.
fn item(number: Option<usize>, text: &str) -> ListItem {
    let plain = unmarked(text);
    let (text, needs) = split_needs(&plain);
    let separators = [" — ", " – ", " - ", ": ", " -- "];
    let split = separators
        .iter()
        .filter_map(|separator| text.find(separator).map(|at| (at, separator.len())))
        .filter(|(at, _)| !text[..*at].trim().is_empty())
        .min();
    let (name, description) = match split {
        Some((at, length)) => (&text[..at], &text[at + length..]),
        None => (text.strip_suffix(':').unwrap_or(&text), ""),
    };
    ListItem {
        number,
        name: name.trim().to_owned(),
        description: description.trim().to_owned(),
        needs,
    }
}

/// Removes bold and code marks.
fn unmarked(text: &str) -> String {
    text.replace("**", "").replace('`', "").trim().to_owned()
}

/// Cuts `(needs: 1, 2)`, `[depends on: name]` and the like off a text.
fn split_needs(text: &str) -> (String, Vec<ItemNeed>) {
    let lower = text.to_lowercase();
    if lower.len() != text.len() {
        return (text.to_owned(), Vec::new());
    }
    for word in NEEDS {
        let Some(at) = lower.rfind(word) else { continue };
        let before = text[..at].trim_end();
        let opened = before.ends_with(['(', '[', '{']);
        let after = text[at + word.len()..].trim_start();
        let starts_a_part =
            opened || before.is_empty() || before.ends_with(['.', ';', ',', '—', '–', '-']);
        let colon = after.strip_prefix(':');
        if !starts_a_part || (!opened && colon.is_none()) {
            continue;
        }
        let rest = colon.unwrap_or(after);
        let end =
            if opened { rest.find([')', ']', '}']).unwrap_or(rest.len()) } else { rest.len() };
        let tail = rest[end..].trim_start_matches([')', ']', '}']);
        let head = before.trim_end_matches(['(', '[', '{', ' ', ';', ',', '—', '–', '-']);
        let kept = format!("{head}{tail}");
        return (kept.trim().to_owned(), need_words(&rest[..end]));
    }
    (text.to_owned(), Vec::new())
}

/// Reads `1, 2 and 3`, `put; get`, `#2`, `none`.
fn need_words(text: &str) -> Vec<ItemNeed> {
    let nothing = ["none", "nothing", "no", "n/a", "-", "null", "nil", "no dependencies", ""];
    text.split([',', ';', '&'])
        .flat_map(|part| part.split(" and "))
        .map(|part| part.trim().trim_end_matches('.').trim_start_matches('#').trim())
        .filter(|part| !nothing.contains(&part.to_lowercase().as_str()))
        .map(|part| {
            let lower = part.to_lowercase();
            let digits = lower.trim_start_matches("part ").trim_start_matches("step ");
            digits.parse().map_or_else(|_| ItemNeed::Name(part.to_owned()), ItemNeed::Number)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::ItemNeed;
    use super::items;

    fn check(answer: &str) -> String {
        let line = |item: super::ListItem| {
            let needs: Vec<String> = item
                .needs
                .iter()
                .map(|need| match need {
                    ItemNeed::Number(n) => format!("{n}"),
                    ItemNeed::Name(name) => format!("'{name}'"),
                })
                .collect();
            let number = item.number.map_or("-".to_owned(), |n| n.to_string());
            format!("{number} [{}] {} <{}>\n", item.name, item.description, needs.join(" "))
        };
        items(answer).into_iter().map(line).collect()
    }

    #[test]
    fn names_keep_their_hyphens_and_dots() {
        insta::assert_snapshot!(check("1. In-memory store — keeps items\n2. Data-access layer: reads v1.2 files (needs: 1)\n3. cache.get - looks up"), @r"
        1 [In-memory store] keeps items <>
        2 [Data-access layer] reads v1.2 files <1>
        3 [cache.get] looks up <>
        ");
    }

    #[test]
    fn markers_of_all_kinds_are_read() {
        insta::assert_snapshot!(check("3) put: stores\n4) get: reads"), @r"
        3 [put] stores <>
        4 [get] reads <>
        ");
        insta::assert_snapshot!(check("Here:\n- **put**: stores\n* get - reads\n"), @r"
        - [put] stores <>
        - [get] reads <>
        ");
        insta::assert_snapshot!(check("### 1. `put`\nStores.\n\n### 2. **get** - reads\n"), @r"
        1 [put]  <>
        2 [get] reads <>
        ");
        insta::assert_snapshot!(check("**1. put** - stores\n**2.** get: reads\n- 3. purge"), @r"
        1 [put] stores <>
        2 [get] reads <>
        3 [purge]  <>
        ");
    }

    #[test]
    fn nested_bullets_are_details() {
        insta::assert_snapshot!(check("1. put(key, value)\n   - stores a value\n   - Depends on: none\n2. get\n   * needs: 1, put"), @r"
        1 [put(key, value)] stores a value <>
        2 [get]  <1 'put'>
        ");
    }

    #[test]
    fn json_and_fences_are_read() {
        insta::assert_snapshot!(check("```json\n[{\"id\": 1, \"name\": \"put\", \"description\": \"stores\", \"depends_on\": []}, {\"id\": 2, \"name\": \"get\", \"depends_on\": [1, \"put\"]}]\n```"), @r"
        1 [put] stores <>
        2 [get]  <1 'put'>
        ");
        insta::assert_snapshot!(check("[\"put - stores\", \"get - reads\"]"), @r"
        - [put] stores <>
        - [get] reads <>
        ");
        insta::assert_snapshot!(check("```\n1. put - stores\n2. get - reads\n```"), @r"
        1 [put] stores <>
        2 [get] reads <>
        ");
    }

    #[test]
    fn needs_are_numbers_names_or_nothing() {
        insta::assert_snapshot!(check("1. a - x (needs: nothing)\n2. b - y (depends on: 1 and 3)\n3. c - z. Depends on: a, b\n4. d - after lunch it sleeps (after: 7; e)"), @r"
        1 [a] x <>
        2 [b] y <1 3>
        3 [c] z. <'a' 'b'>
        4 [d] after lunch it sleeps <7 'e'>
        ");
    }

    #[test]
    fn prose_and_nothing_give_no_items() {
        assert_eq!(check(""), "");
        assert_eq!(check("I would write one function that does it all."), "");
        assert_eq!(check("<think>1. no</think>"), "");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s)[-*#0-9.):(\\[\\]{}\" \n`a-zé—İneds,]{0,200}") {
            let _items = items(&text);
        }
    }
}
