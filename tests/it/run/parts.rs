//! Tasks of several parts, and what each prompt holds.

use super::Answer;
use super::Bench;
use super::DECOMPOSE;
use super::DIAGNOSE;
use super::PLAN;
use super::REPAIR;
use super::SOLUTION;
use super::fenced;
use super::prelude;

const TASK: &str = "Write shapes.py with area(w, h), perimeter(w, h) and describe(w, h), which returns both as a text.";
const TESTS: &str = "\
import unittest
from shapes import area, describe, perimeter


class TestShapes(unittest.TestCase):
    def test_area(self):
        self.assertEqual(area(2, 3), 6)

    def test_perimeter(self):
        self.assertEqual(perimeter(2, 3), 10)

    def test_describe(self):
        self.assertEqual(describe(2, 3), 'area 6, perimeter 10')
";

/// Answers by part: the plan's signatures are not those that the code then has.
pub(super) fn shapes() -> Vec<Answer> {
    let list = "1. area - the area (needs: nothing)\n2. perimeter - the perimeter (needs: nothing)\n3. describe - both as a text (needs: 1, 2)";
    let plan = |name: &str| {
        let plan =
            format!("def {name}(w, h):\n    \"\"\"Returns what {name} promises.\"\"\"\n    ...");
        Answer::new(&[PLAN, &format!("part of `shapes.py`: {name}")], fenced(&plan))
    };
    let code = |name: &str, code: &str| {
        Answer::new(&[&format!("part of `shapes.py`: {name}")], fenced(code))
    };
    vec![
        Answer::new(&[DECOMPOSE], list),
        plan("area"),
        plan("perimeter"),
        plan("describe"),
        code("area", "def area(w: float, h: float = 1.0) -> float:\n    return w * h\n"),
        code(
            "perimeter",
            "import math\n\n\ndef perimeter(w: float, h: float = 2.0) -> float:\n    return math.fsum([w, h, w, h])\n",
        ),
        code(
            "describe",
            "def describe(w, h):\n    return f'area {area(w, h):g}, perimeter {perimeter(w, h):g}'\n",
        ),
    ]
}

pub(super) fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("test_shapes.py", TESTS);
    bench.script(&shapes());
    bench
}

/// All of it in one.
pub(super) const WHOLE: &str = "def area(w, h):\n    return w * h\n\n\ndef perimeter(w, h):\n    return 2 * (w + h)\n\n\ndef describe(w, h):\n    return f'area {area(w, h)}, perimeter {perimeter(w, h)}'\n";

pub(super) const RUN: [&str; 8] =
    ["run", TASK, "--tests", "test_shapes.py", "--script", "script.jsonl", "--out", "out"];

#[test]
fn parts_are_coded_separately_with_plans_and_interfaces() {
    let bench = bench();
    let ended = bench.call(&RUN);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "out/shapes.py\n"), "{ended:?}");
    let written = bench.read("out/shapes.py");
    assert!(written.starts_with("import math\n\n\ndef area(w: float"), "{written}");
    let prompts = bench.prompts("code");
    let of = |name: &str| {
        let part = format!("this part of `shapes.py`: {name}");
        prompts.iter().find(|prompt| prompt.contains(&part)).unwrap()
    };
    for name in ["area", "perimeter", "describe"] {
        assert!(of(name).contains(&format!("Returns what {name} promises.")), "{}", of(name));
        assert!(of(name).contains("def test_describe(self):"), "{}", of(name));
    }
    // What was written, not what was planned; spaces are the inspector's business.
    let holds = |prompt: &str, text: &str| prompt.replace(' ', "").contains(&text.replace(' ', ""));
    let written =
        ["def area(w: float, h: float = 1.0) -> float", "def perimeter(w: float, h: float = 2.0)"];
    for signature in written {
        assert!(holds(of("describe"), signature), "{}", of("describe"));
    }
    assert!(!holds(of("area"), written[1]), "{}", of("area"));
    let plans = bench.prompts("plan");
    assert!(plans.iter().any(|prompt| holds(prompt, written[0])), "{plans:?}");
}

#[test]
fn repair_prompt_has_test_error_code_and_diagnosis() {
    let wrong = "def add(a, b):\n    return a + abs(b)\n";
    let mut answers = prelude();
    answers.extend([
        Answer::new(&[DIAGNOSE], "It takes the absolute value of b."),
        Answer::new(&[REPAIR], fenced(SOLUTION)),
        Answer::new(&[], fenced(wrong)),
    ]);
    let bench = Bench::with(&answers);
    let ended = bench.solve(&["--candidates", "1"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    insta::assert_snapshot!(bench.verdicts(), @r"
    code failed
    diagnose accepted
    repair passed
    ");
    let [diagnose, repair] = ["diagnose", "repair"].map(|phase| bench.prompts(phase).remove(0));
    for prompt in [&diagnose, &repair] {
        assert!(prompt.contains("test_one_negative"), "{prompt}");
        assert!(prompt.contains("8 != 2"), "{prompt}");
        assert!(prompt.contains("return a + abs(b)"), "{prompt}");
    }
    assert!(repair.contains("It takes the absolute value of b."), "{repair}");
    assert_eq!(bench.read("out/adder.py"), SOLUTION);
}

#[test]
fn incompatible_parts_are_rewritten_as_a_whole() {
    let mut answers = shapes();
    answers.truncate(6);
    answers.push(Answer::new(
        &["part of `shapes.py`: describe"],
        fenced(
            "def describe(w, h):\n    return f'area {area(w)}, perimeter {perimeter(w, h):g}'\n",
        ),
    ));
    answers.push(Answer::new(&["fsum", "What fails"], fenced(WHOLE)));
    let bench = bench();
    bench.script(&answers);
    let ended = bench.call(&[&RUN[..], &["--candidates", "1"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(bench.read("out/shapes.py"), WHOLE);
    let prompts = bench.prompts("integrate");
    assert!(prompts[0].contains("test_describe") && prompts[0].contains("return w * h"));
}
