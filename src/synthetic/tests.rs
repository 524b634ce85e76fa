//! Tests of synthetic libraries, some of which run Python.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::process::Stdio;

use super::documents::rehearsal_library;
use super::facts::SUBJECTS;
use super::leaks::shared_names;
use super::library::LibraryFunction;
use super::operations::OPERATIONS;
use super::standard_questions::TASKS;
use super::templates::TEST;
use super::templates::TRAINING;
use super::*;
use crate::trajectory::Message;

/// Runs Python on `script` with `input`, and returns its output.
fn python(script: &str, argument: &str, input: &str) -> String {
    let mut command = Command::new("python3");
    command.args(["-B", "-c", script, argument]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script} failed");
    String::from_utf8(output.stdout).unwrap()
}

fn names(library: &SyntheticLibrary) -> Vec<String> {
    let verbs = library.functions().iter().map(|function| function.name.clone());
    let facts = library.facts().names().map(str::to_ascii_lowercase);
    verbs.chain([library.name().to_owned()]).chain(facts).collect()
}

#[test]
fn a_seed_gives_all_again() {
    let make = || {
        let library = SyntheticLibrary::invent(7, 12);
        let training = library.training(RecordOptions::default());
        let texts = (library.module_source(), library.readme());
        (training, library.tasks(4), texts, library)
    };
    assert_eq!(make(), make());
    assert_ne!(SyntheticLibrary::invent(8, 12).functions(), make().3.functions());
}

#[test]
fn the_counts_are_those_that_were_asked_for() {
    let library = SyntheticLibrary::invent(1, 8);
    let training = library.training(RecordOptions::default());
    let count = |group| library.tasks(2).iter().filter(|task| task.group == group).count();
    let n_sized = library.functions().iter().filter(|f| f.operation.limited(1).is_some()).count();
    let facts = n_sized * 2 + 8 * 2 + 8 * 4 + 8 + 4 * 6;
    assert_eq!(training.len(), 8 * 4 * (16 + 4) + 4 * facts);
    assert_eq!(["T1", "T2", "T3", "N1"].map(count), [32, 32, 16, 44]);
    assert_eq!(["T4", "T5", "T6", "T7", "T8"].map(count), [n_sized * 2, 4, 16, 8, 16],);
    let ids: BTreeSet<String> = library.tasks(4).into_iter().map(|task| task.id).collect();
    assert_eq!(ids.len(), library.tasks(4).len());
    assert_eq!(SyntheticLibrary::invent(1, 0).functions().len(), 6);
    assert_eq!(SyntheticLibrary::invent(1, 99).functions().len(), 40);
}

#[test]
fn a_drill_is_held_out() {
    let library = SyntheticLibrary::invent(662, 8);
    let (records, tasks) = (library.drill_records(), library.drill_tasks(3));
    assert_eq!((records.len(), tasks.len()), (8 * 20, 8 * 12));
    assert_eq!(leaks(&records, &tasks), [""; 0]);
    let families: BTreeSet<&str> = tasks.iter().map(|task| task.family.as_str()).collect();
    assert_eq!(families.len(), tasks.len(), "each task is a family of its own");
    assert_eq!(library.drill_records(), records);
}

#[test]
fn names_are_new_to_python_and_to_each_other() {
    let script = "import sys, builtins, keyword\n\
        print(*sys.stdlib_module_names, *dir(builtins), *keyword.kwlist, *keyword.softkwlist)";
    let known = python(script, "", "");
    let known: BTreeSet<&str> = known.split_whitespace().collect();
    let libraries: Vec<SyntheticLibrary> =
        (0..50).map(|seed| SyntheticLibrary::invent(seed, 40)).collect();
    for (index, library) in libraries.iter().enumerate() {
        let names = names(library);
        assert!(names.iter().all(|name| !known.contains(name.as_str())), "{names:?}");
        let beginnings: BTreeSet<&str> = names.iter().map(|name| &name[..3]).collect();
        assert_eq!(beginnings.len(), 49, "{names:?}");
        for other in &libraries[..index] {
            assert!(shared_names(library, other).is_empty());
        }
    }
    assert!(known.iter().filter(|name| (5..=7).contains(&name.len())).all(|name| {
        !name.bytes().all(|letter| letter.is_ascii_lowercase()) || !super::names::is_fit(name)
    }));
    assert_eq!(shared_names(&libraries[0], &libraries[0]).len(), 49);
}

#[test]
fn phrases_are_unique_and_free_of_variables() {
    let phrases: Vec<&str> = OPERATIONS.iter().flat_map(|operation| operation.phrases).collect();
    for (index, phrase) in phrases.iter().enumerate() {
        for (place, other) in phrases.iter().enumerate() {
            let is_end = format!(" {phrase}").ends_with(&format!(" {other}"));
            assert!(index == place || !is_end, "`{phrase}` ends like `{other}`");
        }
        assert!(!phrase.starts_with("the "));
    }
    let subjects: Vec<&str> = SUBJECTS.iter().flat_map(|subject| subject.phrases).collect();
    let phrases = phrases.iter().chain(&subjects);
    let texts = phrases.chain(TRAINING.instructions).chain(TEST.instructions);
    let variables: BTreeSet<&str> =
        TRAINING.variables.iter().chain(TEST.variables).copied().collect();
    assert_eq!(variables.len(), TRAINING.variables.len() + TEST.variables.len());
    for text in texts {
        assert!(text.split(|c: char| !c.is_alphabetic()).all(|word| !variables.contains(word)));
    }
    assert!(TEST.instructions.iter().all(|text| !TRAINING.instructions.contains(text)));
}

#[test]
fn tasks_are_held_out() {
    for seed in 0..20 {
        let library = SyntheticLibrary::invent(seed, 6 + usize::try_from(seed).unwrap());
        let training = library.training(RecordOptions::default());
        assert_eq!(leaks(&training, &library.tasks(4)), Vec::<String>::new());
    }
}

#[test]
fn a_leak_is_found() {
    let library = SyntheticLibrary::invent(3, 6);
    let mut training =
        library.training(RecordOptions { n_assignments: 1, n_definitions: 0, n_facts: 0 });
    let mut task = library.tasks(4).remove(0);
    task.family.clone_from(&training[0].family);
    training[1].messages[0].content = format!("Other words.\n{}", task.messages[0].content);
    let mut other = task.clone();
    other.id = "other".to_owned();
    other.messages[0].content.push_str("\nnums");
    let wanted = [
        "`other` has the training word `nums`".to_owned(),
        format!("training asks for the code of `{}`", task.id),
        format!("training has the family `{}`", task.family),
        "training has the test word `rows`".to_owned(),
    ];
    assert_eq!(leaks(&training, &[task, other]), wanted);
}

/// All rehearsal questions: those with a document, then those about the standard library.
fn rehearsal() -> [Vec<LibraryRecord>; 2] {
    [document_questions(300), standard_questions()]
}

#[test]
fn rehearsal_shares_nothing_with_tasks() {
    let rehearsal = rehearsal().concat();
    for seed in 0..20 {
        let library = SyntheticLibrary::invent(seed, 6 + usize::try_from(seed).unwrap());
        assert_eq!(leaks(&rehearsal, &library.tasks(4)), Vec::<String>::new());
    }
    // Wordings that only tasks have, and the frame of the benchmark's documents.
    let held_out = OPERATIONS.iter().flat_map(|operation| &operation.phrases[TEST.phrases]);
    let held_out =
        held_out.chain(SUBJECTS.iter().flat_map(|subject| &subject.phrases[TEST.phrases]));
    let held_out: Vec<&str> =
        held_out.chain(TEST.instructions).copied().chain(["From the README of"]).collect();
    for record in &rehearsal {
        let question = &record.messages[0].content;
        let found = held_out.iter().find(|text| question.contains(**text));
        assert_eq!(found, None, "{question}");
    }
}

#[test]
fn readers_records_share_nothing_with_tasks() {
    let records = reader_records(400);
    for seed in 0..20 {
        let library = SyntheticLibrary::invent(seed, 8);
        assert_eq!(leaks(&records, &library.tasks(4)), Vec::<String>::new());
    }
    let rehearsal = document_questions(300);
    let mut n_kept = 0;
    for operation in OPERATIONS {
        let is_kept = is_new_to_reader(&format!("zorb/{}/E", operation.id));
        let about = format!("/{}/", operation.id);
        let is_taught = records.iter().any(|record| record.family.contains(&about));
        let is_rehearsed = rehearsal.iter().any(|record| record.family.contains(&about));
        assert!(!(is_kept && is_rehearsed), "{}", operation.id);
        assert!(is_taught != is_kept, "{}", operation.id);
        n_kept += usize::from(is_kept);
    }
    assert_eq!(n_kept, OPERATIONS.len() / 4);
    assert!(!is_new_to_reader("zorb/error/E"));
    assert!(
        records
            .iter()
            .all(|record| !rehearsal.iter().any(|one| one.family.ends_with(&record.family)))
    );
}

#[test]
fn rehearsal_libraries_are_reserved() {
    assert_eq!(document_questions(300), document_questions(400)[..300]);
    let families: BTreeSet<String> =
        document_questions(300).into_iter().map(|record| record.family).collect();
    assert_eq!(families.len(), 300);
    assert!(families.iter().all(|family| family.starts_with("rehearsal/")));
}

/// Asserts that the question of a record has every invented name that its answer uses.
fn assert_readable(record: &LibraryRecord, names: &[String]) {
    let [question, answer] = &record.messages[..] else { panic!("{record:?}") };
    let is_used = |name: &&String| {
        let has_name = |word: &str| word.eq_ignore_ascii_case(name);
        answer.content.split(|c: char| !c.is_alphanumeric()).any(has_name)
    };
    let used: Vec<&String> = names.iter().filter(is_used).collect();
    assert!(!used.is_empty(), "{record:?}");
    let text = question.content.to_ascii_lowercase();
    assert!(used.iter().all(|name| text.contains(name.as_str())), "{record:?}");
}

#[test]
fn documents_answer_the_question_in_front_of_which_they_stand() {
    for (seed, record) in (FIRST_RESERVED_SEED..).zip(document_questions(300)) {
        let library = rehearsal_library(seed);
        let mut names = names(&library);
        names.retain(|name| name != library.name());
        assert_readable(&record, &names);
    }
}

#[test]
fn python_agrees_with_all_rehearsal_answers() {
    let documents = (FIRST_RESERVED_SEED..).zip(document_questions(300)).map(|(seed, record)| {
        let library = rehearsal_library(seed);
        let subject = record.family.split('/').nth(2).unwrap().to_owned();
        let operation = OPERATIONS.iter().find(|operation| operation.id == subject);
        let functions = library
            .functions()
            .iter()
            .map(|function| (function.name.clone(), function.operation.id));
        serde_json::json!({
            "library": library.name(),
            "source": library.module_source(),
            "limit": library.facts().limit,
            "functions": functions.collect::<BTreeMap<_, _>>(),
            "subject": subject,
            "reference": operation.map(|operation| operation.reference),
            "question": record.messages[0].content,
            "answer": record.messages[1].content,
        })
    });
    let standard = standard_questions().into_iter().map(|record| {
        let (module, name) = record.family["rehearsal/".len()..].split_once('/').unwrap();
        let task = TASKS.iter().find(|task| (task.module, task.name()) == (module, name));
        let task = task.or_else(|| TASKS.iter().find(|task| task.name() == name));
        serde_json::json!({
            "module": module,
            "name": name,
            "example": task.map(|task| task.example),
            "question": record.messages[0].content,
            "answer": record.messages[1].content,
        })
    });
    let [documents, standard]: [Vec<_>; 2] = [documents.collect(), standard.collect()];
    let all = serde_json::json!({ "documents": documents, "standard": standard });
    assert_eq!(python(include_str!("rehearsal_proof.py"), "", &all.to_string()), "");
}

/// Returns the text of all messages and other visible text.
fn read(messages: &[Message], rest: &str) -> String {
    let texts = messages.iter().map(|message| format!("{}\n", message.content));
    format!("{}{rest}\n\n", texts.collect::<String>())
}

#[test]
fn records_and_tasks_read_like_this() {
    let library = SyntheticLibrary::invent(5, 6);
    let training =
        library.training(RecordOptions { n_assignments: 1, n_definitions: 1, n_facts: 1 });
    let record = read(&training[0].messages, &training[0].family);
    let tasks = library.tasks(4);
    let groups = ["T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "N1"];
    let shown = groups.map(|group| {
        let task = tasks.iter().find(|task| task.group == group).unwrap();
        let check = serde_json::to_string(&task.check).unwrap();
        read(&task.messages, &format!("{}\n{}\n{check}\n{}", task.id, task.family, task.answer))
    });
    let source = library.module_source();
    let definition = source.split("\n\n\n").last().unwrap();
    let all = format!("{record}{}{definition}\n{}", shown.concat(), library.readme());
    assert_eq!(all, include_str!("example.txt"));
}

#[test]
fn python_keeps_what_the_library_promises() {
    for seed in 0..6 {
        let library = SyntheticLibrary::invent(seed, 40);
        let home = std::env::temp_dir().join(format!("fablib-{}-{seed}", std::process::id()));
        let package = home.join(library.name());
        fs::create_dir_all(&package).unwrap();
        fs::write(package.join("__init__.py"), library.module_source()).unwrap();
        let functions = library.functions().iter().map(|LibraryFunction { name, operation }| {
            let (reference, empty) = (operation.reference, operation.empty);
            serde_json::json!({ "name": name, "reference": reference, "empty": empty })
        });
        let promises = serde_json::json!({
            "library": library.name(),
            "error": library.facts().error,
            "functions": functions.collect::<Vec<_>>(),
            "tasks": library.tasks(4),
        });
        let broken =
            python(include_str!("proof.py"), home.to_str().unwrap(), &promises.to_string());
        fs::remove_dir_all(&home).unwrap();
        assert_eq!(broken, "", "seed {seed}");
    }
}

#[test]
fn operations_do_what_their_ids_say() {
    let script = "import sys, json\nfor name, value in json.load(sys.stdin):\n    \
        print(name, eval('lambda v: ' + value.replace('{v}', 'v'))([4, -3, 4, 0, 7]))";
    let operations = OPERATIONS.iter().map(|operation| (operation.id, operation.reference));
    let input = serde_json::to_string(&operations.collect::<Vec<_>>()).unwrap();
    assert_eq!(python(script, "", &input), include_str!("operations.txt"));
}
