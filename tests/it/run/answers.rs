//! Unusable answers are recorded with their fault, and the session continues.

use serde_json::Value;

use super::Answer;
use super::Bench;
use super::CUT_OFF;
use super::SOLUTION;
use super::fenced;
use super::parts;
use super::prelude;

#[test]
fn malformed_answers_are_classified_and_kept_verbatim() {
    let bad = [
        "I would rather not.".to_owned(),
        fenced("def add(a, b)\n    return a + b"),
        fenced("def add(a, b):\n    # ... rest of the code unchanged\n    return a"),
        fenced("def add(a, b):\n    pass"),
        fenced("def plus(a, b):\n    return a + b"),
        String::new(),
    ];
    let mut answers = prelude();
    answers.extend(bad.iter().map(|bad| Answer::new(&[], bad.as_str())));
    answers.push(Answer::new(&[], fenced(SOLUTION)));
    let bench = Bench::with(&answers);
    let ended = bench.solve(&["--candidates", "7"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(bench.read("out/adder.py"), SOLUTION);
    let attempts = bench.attempts();
    let codes: Vec<_> = attempts.iter().filter(|attempt| attempt["phase"] == "code").collect();
    let texts = codes.iter().map(|attempt| attempt["completion"]["text"].as_str().unwrap());
    assert!(texts.take(6).eq(bad.iter().map(String::as_str)));
    let verdict = |attempt: &&Value| {
        let [verdict, summary] = [&attempt["verdict"], &attempt["verdict_json"]["summary"]];
        format!("{}: {}", verdict.as_str().unwrap(), summary.as_str().unwrap())
    };
    insta::assert_snapshot!(codes.iter().map(verdict).collect::<Vec<_>>().join("\n"), @r"
    malformed: it holds no code
    malformed: syntax error in line 1, `def add(a, b)`: expected ':'
    malformed: code is left out: `# ... rest of the code unchanged`
    malformed: `add` has no body
    malformed: `add` is not defined
    malformed: it holds no code
    passed: 3 of 3 tests passed
    ");
}

#[test]
fn truncated_answer_is_continued_and_joined_at_the_overlap() {
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
    code truncated
    code passed
    ");
    // The prompt shows the tail, so that the model can continue it.
    assert!(bench.prompts("code")[1].contains("total = tot\n"));
}

#[test]
fn unparsable_lists_and_plans_stop_nothing() {
    let bench = parts::bench();
    bench.script(&[
        Answer::new(&[super::DECOMPOSE], "Certainly! I would love to.").repeat(),
        Answer::new(&[super::PLAN], "There is no plan.").repeat(),
        Answer::new(&[], fenced(parts::WHOLE)).repeat(),
    ]);
    let ended = bench.call(&parts::RUN);
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
