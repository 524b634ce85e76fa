//! Controls about Python's standard library, in the frames of the tasks about invented libraries.

use super::tasks::AnswerForm;
use super::tasks::LibraryTask;
use super::tasks::LibraryUses;
use super::tasks::TaskDraft;
use super::tasks::TaskTemplate;
use super::templates;
use super::templates::TEST;

/// A value that a module of the standard library computes.
struct StandardValue {
    module: &'static str,
    /// Two wordings, each a noun phrase that a variable's name completes.
    phrases: [&'static str; 2],
    /// The value as a Python expression of `{v}`.
    value: &'static str,
}

const fn of(
    module: &'static str,
    phrases: [&'static str; 2],
    value: &'static str,
) -> StandardValue {
    StandardValue { module, phrases, value }
}

#[rustfmt::skip]
const VALUES: &[StandardValue] = &[
    of("heapq", ["three smallest items of", "bottom three by heap of"], "heapq.nsmallest(3, {v})"),
    of("statistics", ["median of", "value in the middle of"], "statistics.median({v})"),
    of("statistics", ["mode of", "most frequent value in"], "statistics.mode({v})"),
    of("statistics", ["high median of", "larger of both middle values of"], "statistics.median_high({v})"),
    of("statistics", ["mean of", "average of"], "statistics.mean({v})"),
    of("itertools", ["accumulated sums of, as a list,", "list of accumulated sums of"], "list(itertools.accumulate({v}))"),
    of("itertools", ["list of what is not below zero in", "list without negative members of"], "list(itertools.filterfalse(lambda x: x < 0, {v}))"),
    of("math", ["product of all items of", "all items multiplied of"], "math.prod({v})"),
    of("math", ["least common multiple of all of", "smallest number that is divisible by all of"], "math.lcm(*{v})"),
    of("math", ["truncated half of the sum of", "half of the sum, truncated, of"], "math.trunc(sum({v}) / 2)"),
    of("collections", ["list of the most common item with its count in", "one-item list of the commonest value and its count in"], "collections.Counter({v}).most_common(1)"),
    of("collections", ["list of a deque of at most two over", "list of the two that a bounded deque keeps of"], "list(collections.deque({v}, maxlen=2))"),
    of("bisect", ["bisection position of 0 in the sorted", "place that bisection finds for 0 in the sorted"], "bisect.bisect(sorted({v}), 0)"),
    of("copy", ["shallow copy of", "copy of"], "copy.copy({v})"),
    of("json", ["JSON text of", "text in JSON of"], "json.dumps({v})"),
];

/// Gives the controls: every value in both wordings with `n_variables` (1 to 4) of the test
/// variables. No record and no rehearsal has any of the values.
pub fn standard_tasks(n_variables: usize) -> Vec<LibraryTask> {
    let mut tasks = Vec::new();
    for value in VALUES {
        for phrase in value.phrases {
            for variable in TEST.variables.iter().take(n_variables) {
                tasks.push(task(value, phrase, variable));
            }
        }
    }
    tasks
}

fn task(value: &StandardValue, phrase: &str, variable: &str) -> LibraryTask {
    let StandardValue { module, value, .. } = value;
    let code = templates::assignment(
        Some(module),
        &format!("{phrase} {variable}"),
        &value.replace("{v}", variable),
    );
    let family = format!("python/{module}/{phrase}");
    let id = format!("{family}/{variable}");
    let draft = TaskDraft::new(TaskTemplate::N3, id, family, 0);
    let form = AnswerForm::Result { variable: variable.to_owned() };
    let import = format!("__import__(\"{module}\").");
    let reference = value.replace(&format!("{module}."), &import);
    draft.finish(code, form, None::<LibraryUses>, &reference)
}

#[cfg(test)]
mod tests {
    use super::standard_tasks;

    #[test]
    fn every_value_is_asked_for_in_two_wordings() {
        let tasks = standard_tasks(2);
        assert_eq!(tasks.len(), 60);
        let families: std::collections::BTreeSet<&str> =
            tasks.iter().map(|task| task.family.as_str()).collect();
        assert_eq!(families.len(), 30);
        insta::assert_snapshot!(tasks[2].messages[0].content, @"
        Please complete the code and send the entire program.

        ```python
        import heapq
        # bottom three by heap of rows
        result =
        ```
        ");
        insta::assert_snapshot!(tasks[2].check.reference, @r#"__import__("heapq").nsmallest(3, {v})"#);
    }
}
