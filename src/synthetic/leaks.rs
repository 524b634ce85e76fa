//! Finds leaks between training records and held-out tasks.

use std::collections::BTreeSet;

#[cfg(test)]
use super::library::SyntheticLibrary;
use super::records::LibraryRecord;
use super::tasks::LibraryTask;
use super::templates::TEST;
use super::templates::TRAINING;
use super::templates::WordingSet;
use crate::trajectory::Message;

/// Finds what records and tasks share: a family, the code of a user message, or a variable or
/// function name reserved for the other side. Returns a sorted line for each leak; empty if the
/// tasks are held out.
pub fn leaks(train: &[LibraryRecord], tasks: &[LibraryTask]) -> Vec<String> {
    let mut found = BTreeSet::new();
    let families: BTreeSet<&str> = train.iter().map(|record| record.family.as_str()).collect();
    let codes: BTreeSet<&str> = train.iter().filter_map(|record| asked(&record.messages)).collect();
    let (train_words, test_words) = (reserved(&TRAINING), reserved(&TEST));
    for record in train {
        let strayed = strayed(&record.messages, &test_words);
        found.extend(strayed.map(|word| format!("training has the test word `{word}`")));
    }
    for task in tasks {
        if families.contains(task.family.as_str()) {
            found.insert(format!("training has the family `{}`", task.family));
        }
        if asked(&task.messages).is_some_and(|code| codes.contains(code)) {
            found.insert(format!("training asks for the code of `{}`", task.id));
        }
        let strayed = strayed(&task.messages, &train_words);
        found.extend(strayed.map(|word| format!("`{}` has the training word `{word}`", task.id)));
    }
    found.into_iter().collect()
}

/// Returns the invented names that two libraries share, sorted.
#[cfg(test)]
pub(super) fn shared_names(one: &SyntheticLibrary, other: &SyntheticLibrary) -> Vec<String> {
    let names = |library: &SyntheticLibrary| -> BTreeSet<String> {
        let verbs = library.functions().iter().map(|function| function.name.clone());
        let facts = library.facts().names().map(str::to_ascii_lowercase);
        verbs.chain([library.name().to_owned()]).chain(facts).collect()
    };
    names(one).intersection(&names(other)).cloned().collect()
}

/// Returns the code in the first message, or the whole message if it has none.
fn asked(messages: &[Message]) -> Option<&str> {
    let content = &messages.first()?.content;
    Some(content.split_once("```python\n").map_or(content.as_str(), |(_, code)| code))
}

/// Returns the names reserved for training or for tests.
fn reserved(wording: &WordingSet) -> BTreeSet<String> {
    let variables = wording.variables.iter().map(|variable| (*variable).to_owned());
    variables.chain(wording.function_names()).collect()
}

fn strayed<'a>(
    messages: &'a [Message],
    reserved: &'a BTreeSet<String>,
) -> impl Iterator<Item = &'a str> {
    let is_no_letter = |letter: char| !letter.is_alphanumeric() && letter != '_';
    let words = messages.iter().flat_map(move |message| message.content.split(is_no_letter));
    words.filter(|word| reserved.contains(*word))
}
