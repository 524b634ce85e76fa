//! Phase decompose: splits a task into 1 to 8 parts with acyclic dependencies, tied to the required
//! names.

use super::PipelineError;
use super::context::TaskContext;
use super::parse::ItemNeed;
use super::parse::ListItem;
use super::parse::items;
use super::requirements::TargetFile;
use super::runner::AttemptSlot;
use super::runner::SessionRunner;
use crate::event::Event;
use crate::event::PlannedSubtask;
use crate::provider::Grammar;
use crate::task::Subtask;
use crate::task::Task;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::Phase;

use serde_json::json;

/// Maximum parts per task.
const MAX_PARTS: usize = 8;

/// Approximate maximum characters of a list item.
const LINE: usize = 240;

/// Asks the model for the parts. If no answer can be parsed, the task becomes its only part. A task
/// with a single required name is never split.
pub(super) async fn decompose(work: &TaskContext<'_>) -> Result<Vec<Subtask>, PipelineError> {
    let (run, task, targets) = (work.run, work.task, work.targets);
    run.begin(Phase::Decompose, None)?;
    if let ([target], 1) = (targets, n_names(targets)) {
        let subtasks = vec![whole(task, target)];
        tell(run, &subtasks, &[])?;
        return Ok(subtasks);
    }
    let prompt = work.prompt("decompose").with("max_parts", MAX_PARTS);
    let grammar = list_grammar();
    let mut fault = None;
    for trial in 0..run.tools.settings.attempts {
        let mut prompt = prompt.clone();
        if let Some(fault) = &fault {
            prompt = prompt
                .and_then(run.templates.render("decompose_retry", json!({ "fault": fault }))?);
        }
        let place = AttemptSlot { phase: Phase::Decompose, subtask: None, candidate: trial };
        let prompt = prompt.fit(run, Phase::Decompose)?;
        let mut sampling = run.sampling(Phase::Decompose, trial);
        // Small models list on and on.
        sampling.stop = vec![format!("\n{}.", MAX_PARTS + 1)];
        let answer = run.ask(place, prompt, sampling, Some(&grammar)).await?;
        let listed = items(&answer.completion.text);
        if listed.is_empty() {
            let found = "it holds no list";
            run.record(&answer, AttemptVerdict::Malformed, found, &json!({}), &[])?;
            fault = Some(found.to_owned());
            continue;
        }
        let (subtasks, notes) = subtasks(&listed, task, targets);
        let summary = format!("{} parts", subtasks.len());
        run.record(&answer, AttemptVerdict::Accepted, &summary, &json!({ "notes": notes }), &[])?;
        tell(run, &subtasks, &notes)?;
        return Ok(subtasks);
    }
    let (subtasks, notes) = subtasks(&[], task, targets);
    tell(run, &subtasks, &notes)?;
    Ok(subtasks)
}

/// Grammar of the list that the prompt asks for, one numbered line per part. An answer that a
/// provider constrains to it can always be parsed.
fn list_grammar() -> Grammar {
    let line = |n: usize| format!("{n}\\. [^\\s][^\\n]{{0,{LINE}}}");
    let list = (1..=MAX_PARTS).rev().fold(String::new(), |rest, n| match n {
        1 => format!("{}{rest}", line(n)),
        _ => format!("(\\n{}{rest})?", line(n)),
    });
    Grammar::Regex(list)
}

fn tell(
    run: &SessionRunner<'_>,
    subtasks: &[Subtask],
    notes: &[String],
) -> Result<(), PipelineError> {
    for note in notes {
        run.tell(&Event::Warning { message: format!("decompose: {note}") })?;
    }
    let planned = |subtask: &Subtask| PlannedSubtask {
        name: subtask.name.clone(),
        file: subtask.file.clone(),
        depends_on: subtask.depends_on.clone(),
    };
    run.tell(&Event::SubtasksPlanned { subtasks: subtasks.iter().map(planned).collect() })
}

/// Part before its dependencies are resolved.
struct DraftPart {
    name: String,
    description: String,
    target: usize,
    /// Required names that the part is responsible for.
    names: Vec<String>,
    /// Indices of the list items merged into it.
    sources: Vec<usize>,
}

/// Turns a list into subtasks, with notes on what was dropped or changed.
fn subtasks(
    items: &[ListItem],
    task: &Task,
    targets: &[TargetFile],
) -> (Vec<Subtask>, Vec<String>) {
    let mut notes = Vec::new();
    let mut parts = parts(items, targets, &mut notes);
    add_missing(&mut parts, targets);
    if parts.is_empty() {
        return (vec![whole(task, &targets[0])], notes);
    }
    if parts.len() > MAX_PARTS {
        notes.push(format!("{} parts were listed, the first {MAX_PARTS} are kept", parts.len()));
        trim(&mut parts);
    }
    let mut depends_on = resolve(items, &parts, &mut notes);
    notes.sort();
    notes.dedup();
    break_cycles(&mut depends_on, &parts, &mut notes);
    write_in_turn(&mut depends_on, &parts);
    let subtask = |(part, depends_on): (DraftPart, Vec<usize>)| Subtask {
        name: part.name,
        description: part.description,
        file: targets[part.target].path.clone(),
        depends_on,
    };
    (parts.into_iter().zip(depends_on).map(subtask).collect(), notes)
}

fn n_names(targets: &[TargetFile]) -> usize {
    targets.iter().map(|target| target.names.len()).sum()
}

/// Returns the task as its only part.
fn whole(task: &Task, target: &TargetFile) -> Subtask {
    let name = match target.names.as_slice() {
        [] => target.path.clone(),
        names => names.join(", "),
    };
    let description = task.text.trim().to_owned();
    Subtask { name, description, file: target.path.clone(), depends_on: Vec::new() }
}

/// Turns items into parts: drops chores, merges duplicates, and assigns required names.
fn parts(items: &[ListItem], targets: &[TargetFile], notes: &mut Vec<String>) -> Vec<DraftPart> {
    let required = n_names(targets) > 0;
    let mut parts: Vec<DraftPart> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if is_chore(&item.name) {
            notes.push(format!("`{}` is no part of the code", item.name));
            continue;
        }
        let named = |text: &str| -> Vec<(usize, String)> {
            let all = targets.iter().enumerate();
            all.flat_map(|(at, target)| target.names.iter().map(move |name| (at, name.clone())))
                .filter(|(_, name)| mentions(text, name))
                .collect()
        };
        let mut found = named(&item.name);
        if found.is_empty() {
            found = named(&item.description);
        }
        let n_found = found.len();
        found.retain(|(_, name)| !parts.iter().any(|part| part.names.contains(name)));
        if n_found > 0 && found.is_empty() {
            notes.push(format!("`{}` was listed twice", item.name));
            continue;
        }
        if required && found.is_empty() {
            notes.push(format!("`{}` is none of the names asked for", item.name));
            continue;
        }
        let target = match found.first() {
            Some((at, _)) => *at,
            None => file_of(item, targets),
        };
        let names = found.into_iter().filter(|(at, _)| *at == target).map(|(_, name)| name);
        let names: Vec<String> = names.collect();
        if names.len() > 1 && n_names(targets) <= MAX_PARTS {
            notes.push(format!("`{}` is taken apart: {}", item.name, names.join(", ")));
            for name in names {
                let description = described(&name);
                parts.push(DraftPart {
                    name: name.clone(),
                    description,
                    target,
                    names: vec![name],
                    sources: vec![index],
                });
            }
            continue;
        }
        let name = if names.is_empty() { item.name.clone() } else { names.join(", ") };
        let description = match item.description.as_str() {
            "" => item.name.clone(),
            description => description.to_owned(),
        };
        match parts.iter_mut().find(|part| part.name.eq_ignore_ascii_case(&name)) {
            Some(same) => {
                notes.push(format!("`{name}` was listed twice"));
                same.description = format!("{}; {description}", same.description);
                same.sources.push(index);
            }
            None => {
                parts.push(DraftPart { name, description, target, names, sources: vec![index] });
            }
        }
    }
    parts
}

/// Adds a part for each required name that no item covers, and for each file without a part.
fn add_missing(parts: &mut Vec<DraftPart>, targets: &[TargetFile]) {
    for (at, target) in targets.iter().enumerate() {
        for name in &target.names {
            if !parts.iter().any(|part| part.target == at && part.names.contains(name)) {
                let description = described(name);
                let names = vec![name.clone()];
                parts.push(DraftPart {
                    name: name.clone(),
                    description,
                    target: at,
                    names,
                    sources: Vec::new(),
                });
            }
        }
        if target.names.is_empty()
            && targets.len() > 1
            && !parts.iter().any(|part| part.target == at)
        {
            let description = "what the task asks for in this file".to_owned();
            let name = target.path.clone();
            parts.push(DraftPart {
                name,
                description,
                target: at,
                names: Vec::new(),
                sources: Vec::new(),
            });
        }
    }
}

fn described(name: &str) -> String {
    format!("`{name}`, as the task describes it")
}

/// Truncates the list. Required names of dropped parts go to the last remaining part of their file,
/// or to the first part.
fn trim(parts: &mut Vec<DraftPart>) {
    for part in parts.split_off(MAX_PARTS) {
        let host = parts.iter().rposition(|kept| kept.target == part.target);
        let Some(host) = host else { continue };
        if !part.names.is_empty() {
            let kept = &mut parts[host];
            kept.description = format!("{}; {}", kept.description, part.description);
            kept.names.extend(part.names);
            kept.name = kept.names.join(", ");
        }
        parts[host].sources.extend(part.sources);
    }
}

/// Returns the target whose path or stem an item names, else the first.
fn file_of(item: &ListItem, targets: &[TargetFile]) -> usize {
    let text = format!("{} {}", item.name, item.description);
    targets.iter().position(|target| text.contains(&target.path)).unwrap_or(0)
}

/// Whether a name describes a chore rather than code, such as testing.
fn is_chore(name: &str) -> bool {
    let lower = name.to_lowercase();
    let first = lower.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty());
    let chores = [
        "test",
        "tests",
        "testing",
        "unittest",
        "unittests",
        "document",
        "documentation",
        "docs",
        "example",
        "examples",
        "usage",
        "import",
        "imports",
        "run",
        "verify",
        "note",
        "notes",
        "conclusion",
        "readme",
    ];
    first.is_some_and(|word| chores.contains(&word))
        || lower.starts_with("write test")
        || lower.starts_with("unit test")
}

/// Whether `text` contains `name` as a word.
fn mentions(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        !text[..at].ends_with(is_word) && !text[at + name.len()..].starts_with(is_word)
    })
}

/// Resolves dependencies to indices of parts. Numbers refer to the list as written.
fn resolve(items: &[ListItem], parts: &[DraftPart], notes: &mut Vec<String>) -> Vec<Vec<usize>> {
    let part_of = |item: usize| parts.iter().position(|part| part.sources.contains(&item));
    let mut all = Vec::new();
    for (own, part) in parts.iter().enumerate() {
        let mut depends_on: Vec<usize> = Vec::new();
        for need in part.sources.iter().flat_map(|item| &items[*item].needs) {
            let found = match need {
                ItemNeed::Number(n) => item_numbered(items, *n).map(part_of),
                ItemNeed::Name(name) => item_named(items, name)
                    .map(part_of)
                    .or_else(|| Some(parts.iter().position(|part| mentions(name, &part.name)))),
            };
            match found.flatten() {
                Some(other) if other == own => {}
                Some(other) if depends_on.contains(&other) => {}
                Some(other) => depends_on.push(other),
                None => notes.push(format!("`{}` waits for {need:?}, which is no part", part.name)),
            }
        }
        depends_on.sort_unstable();
        all.push(depends_on);
    }
    all
}

fn item_numbered(items: &[ListItem], number: usize) -> Option<usize> {
    let numbered = items.iter().position(|item| item.number == Some(number));
    numbered.or_else(|| {
        let unnumbered = items.iter().all(|item| item.number.is_none());
        (unnumbered && (1..=items.len()).contains(&number)).then(|| number - 1)
    })
}

fn item_named(items: &[ListItem], name: &str) -> Option<usize> {
    let exact = items.iter().position(|item| item.name.eq_ignore_ascii_case(name));
    exact.or_else(|| items.iter().position(|item| mentions(&item.name, name)))
}

/// Adds dependencies on earlier parts of the same file, so that later prompts show their code,
/// unless this would contradict the stated dependencies.
fn write_in_turn(depends_on: &mut [Vec<usize>], parts: &[DraftPart]) {
    for later in 0..parts.len() {
        for earlier in 0..later {
            if parts[earlier].target == parts[later].target && !depends_on[later].contains(&earlier)
            {
                depends_on[later].push(earlier);
                if cycle(depends_on).is_some() {
                    depends_on[later].pop();
                }
            }
        }
        depends_on[later].sort_unstable();
    }
}

/// Breaks cycles by removing the edges that point furthest down the list, so that parts are written
/// in the listed order.
fn break_cycles(depends_on: &mut [Vec<usize>], parts: &[DraftPart], notes: &mut Vec<String>) {
    while let Some(cycle) = cycle(depends_on) {
        let edges = cycle.iter().zip(cycle.iter().cycle().skip(1));
        let weakest = edges.max_by_key(|(from, to)| to.saturating_sub(**from));
        let Some((&from, &to)) = weakest else { return };
        depends_on[from].retain(|other| *other != to);
        notes.push(format!(
            "`{}` does not wait for `{}`: a cycle",
            parts[from].name, parts[to].name
        ));
    }
}

/// Returns the members of a cycle, each depending on the next.
fn cycle(depends_on: &[Vec<usize>]) -> Option<Vec<usize>> {
    fn walk(
        at: usize,
        depends_on: &[Vec<usize>],
        path: &mut Vec<usize>,
        done: &mut [bool],
    ) -> Option<Vec<usize>> {
        if let Some(start) = path.iter().position(|member| *member == at) {
            return Some(path[start..].to_vec());
        }
        if done[at] {
            return None;
        }
        path.push(at);
        let found = depends_on[at].iter().find_map(|next| walk(*next, depends_on, path, done));
        path.pop();
        done[at] = true;
        found
    }
    let mut done = vec![false; depends_on.len()];
    (0..depends_on.len()).find_map(|at| walk(at, depends_on, &mut Vec::new(), &mut done))
}

#[cfg(test)]
mod tests {
    use super::subtasks;
    use crate::pipeline::parse::items;
    use crate::pipeline::requirements::TargetFile;
    use crate::task::Task;
    use crate::task::TaskId;
    use crate::task::TaskType;

    fn check(answer: &str, names: &[&str]) -> String {
        let task = Task {
            id: TaskId("t".to_owned()),
            text: "the task".to_owned(),
            task_type: TaskType::Module,
            family: None,
            tests: Vec::new(),
            test_targets: Vec::new(),
        };
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let targets = [TargetFile { path: "a.py".to_owned(), names }];
        let (subtasks, notes) = subtasks(&items(answer), &task, &targets);
        let lines = subtasks
            .iter()
            .map(|part| format!("{} | {} {:?}", part.name, part.description, part.depends_on))
            .chain(notes.into_iter().map(|note| format!("note: {note}")));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn parts_are_tied_to_the_names_asked_for() {
        insta::assert_snapshot!(check("1. Helper - parses\n2. put(key) - stores\n3. purge\n4. Unit tests - check", &["put", "get", "purge"]), @r"
        put | stores []
        purge | purge [0]
        get | `get`, as the task describes it [0, 1]
        note: `Helper` is none of the names asked for
        note: `Unit tests` is no part of the code
        ");
    }

    #[test]
    fn a_small_task_is_one_part() {
        insta::assert_snapshot!(check("", &[]), @"a.py | the task []");
    }

    #[test]
    fn dependencies_refer_to_the_list_as_written() {
        insta::assert_snapshot!(check("3. c - x (needs: 4)\n4. d - y (needs: none)\n5. e - z (needs: 3, d, 9, e)", &[]), @r"
        c | x [1]
        d | y []
        e | z [0, 1]
        note: `e` waits for Number(9), which is no part
        ");
    }

    #[test]
    fn cycles_are_broken_at_the_edge_down_the_list() {
        insta::assert_snapshot!(check("1. a - x (needs: 3)\n2. b - y (needs: 1)\n3. c - z (needs: 2)", &[]), @r"
        a | x []
        b | y [0]
        c | z [0, 1]
        note: `a` does not wait for `c`: a cycle
        ");
    }

    #[test]
    fn duplicates_are_merged_and_long_lists_trimmed() {
        insta::assert_snapshot!(check("1. put - a\n2. PUT - b\n3. get - c (needs: 2)", &[]), @r"
        put | a; b []
        get | c [0]
        note: `PUT` was listed twice
        ");
        let long: Vec<String> = (1..=40).map(|n| format!("{n}. part{n} - does {n}\n")).collect();
        let kept = check(&long.concat(), &[]);
        assert_eq!(kept.lines().count(), 9);
        assert!(kept.ends_with("note: 40 parts were listed, the first 8 are kept"), "{kept}");
    }
}
