//! Answers that are no good are recorded with what is wrong, and the session goes on.

use super::Answer;
use super::Bench;
use super::CUT_OFF;
use super::SOLUTION;
use super::fenced;
use super::prelude;

/// Plays `bad` as the first answer to the code's prompt, a good one after it; returns the verdict on `bad`.
fn check(bad: &str) -> String {
    let mut answers = prelude();
    answers.push(Answer::new(&[], bad));
    answers.push(Answer::new(&[], fenced(SOLUTION)));
    let bench = Bench::with(&answers);
    let ended = bench.solve(&[]);
    assert_eq!(ended.code, Some(0), "{bad}\n{ended:?}");
    assert_eq!(bench.read("out/adder.py"), SOLUTION);
    let attempts = bench.attempts();
    let code: Vec<_> = attempts.iter().filter(|attempt| attempt["phase"] == "code").collect();
    assert_eq!((code.len(), &code[1]["verdict"]), (2, &"passed".into()));
    assert_eq!(code[0]["completion"]["text"], bad);
    let [verdict, summary] = [&code[0]["verdict"], &code[0]["verdict_json"]["summary"]];
    format!("{}: {}", verdict.as_str().unwrap(), summary.as_str().unwrap())
}

#[test]
fn malformed_answers_are_told_apart() {
    insta::assert_snapshot!(check("I would rather not."), @"malformed: it holds no code");
    insta::assert_snapshot!(check(&fenced("def add(a, b)\n    return a + b")),
        @"malformed: syntax error in line 1, `def add(a, b)`: expected ':'");
    insta::assert_snapshot!(check(&fenced("def add(a, b):\n    # ... rest of the code unchanged\n    return a")),
        @"malformed: code is left out: `# ... rest of the code unchanged`");
    insta::assert_snapshot!(check(&fenced("def add(a, b):\n    pass")), @"malformed: `add` has no body");
    insta::assert_snapshot!(check(&fenced("def plus(a, b):\n    return a + b")),
        @"malformed: `add` is not defined");
    insta::assert_snapshot!(check(""), @"malformed: it holds no code");
}

#[test]
fn an_answer_that_was_cut_off_is_continued_and_joined_where_it_overlaps() {
    let mut answers = prelude();
    let head = "```python\ndef add(a, b):\n    total = a\n    total = tot";
    let rest = "    total = total + b\n    return total\n";
    answers.push(Answer::new(&[CUT_OFF], fenced(rest)));
    answers.push(Answer::new(&[], head).cut_off());
    let bench = Bench::with(&answers);
    let ended = bench.solve(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let joined = "def add(a, b):\n    total = a\n    total = total + b\n    return total\n";
    assert_eq!(bench.read("out/adder.py"), joined);
    insta::assert_snapshot!(bench.verdicts(), @r"
    decompose accepted
    plan accepted
    code truncated
    code passed
    ");
    // The tail is shown, so that it can be taken up.
    assert!(bench.prompts("code")[1].contains("total = tot\n"));
}

#[test]
fn answers_that_are_no_list_and_no_plan_stop_nothing() {
    let bench = Bench::with(&[
        Answer::new(&[super::DECOMPOSE], "Certainly! I would love to.").repeat(),
        Answer::new(&[super::PLAN], "There is no plan.").repeat(),
        Answer::new(&[], fenced(SOLUTION)),
    ]);
    let ended = bench.solve(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let verdicts = bench.verdicts();
    assert!(verdicts.starts_with("decompose malformed") && verdicts.contains("plan malformed"));
    assert!(verdicts.ends_with("code passed"), "{verdicts}");
}

#[test]
fn control_characters_of_an_answer_never_reach_the_terminal() {
    let mut answers = prelude();
    answers.push(Answer::new(&[], fenced("def add(a, b):\n    raise ValueError('\\x1b[2J')")));
    answers.push(Answer::new(
        &[],
        fenced("def add(a, b):\n    # \u{1b}[2J ... rest of the code\n    return 1"),
    ));
    answers.push(Answer::new(&[], fenced(SOLUTION)));
    let bench = Bench::with(&answers);
    let ended = bench.solve(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
    assert!(!bench.call(&["sessions", "show", &bench.session_id()]).stdout.contains('\u{1b}'));
}
