//! Functions are judged by their outputs, with the oracle out of reach.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rune::evaluation::PackageModules;
use rune::evaluation::SuiteFormat;
use rune::judge::FunctionJudge;
use rune::judge::FunctionTask;
use rune::judge::Judge;
use rune::judge::TestSuite;
use rune::judge::Verdict;
use rune::judge::VerdictOutcome;
use rune::sandbox::Limits;
use rune::sandbox::Sandbox;
use rune::task::SourceFile;

use serde_json::json;

use super::interpreter;
use super::sandbox;

pub(super) async fn judge(sandbox: &Arc<Sandbox>) -> FunctionJudge {
    let limits = Limits {
        cpu: Duration::from_secs(2),
        wall: Duration::from_secs(10),
        processes: 8,
        ..Limits::default()
    };
    FunctionJudge::start(sandbox, &interpreter(sandbox), limits).await.unwrap()
}

fn task(test: &str) -> FunctionTask {
    FunctionTask { entry_point: "f".to_owned(), prelude: String::new(), test: test.to_owned() }
}

async fn verdict(judge: &FunctionJudge, test: &str, solution: &str) -> Verdict {
    let check = judge.read(task(test)).await.unwrap();
    judge.run(&check, solution, 1).await.unwrap()
}

/// Tasks whose canonical solution does not pass, with the reason.
const MBPP_PLUS_FAULTS: &[(u32, &str)] = &[
    (164, "the canonical solution contradicts a base assert"),
    (295, "likewise"),
    (255, "the answers to all inputs take more than 4 GiB"),
    (630, "the answers to all inputs take more than a frame of 16 MiB"),
    (580, "the nesting of tuples can't be told from the base asserts"),
    (737, "gives a match object, which is no plain data"),
    (787, "likewise"),
    (794, "likewise"),
];

const MBPP_PLUS: &str = "tests/fixtures/judge/MbppPlus-v0.1.0.jsonl.gz";

#[tokio::test]
async fn canonical_solutions_of_mbpp_plus_pass() {
    let sandbox = sandbox();
    let limits = Limits {
        cpu: Duration::from_mins(1),
        wall: Duration::from_secs(200),
        address_bytes: 4 << 30,
        ..Limits::default()
    };
    let interpreter = interpreter(&sandbox);
    let judge = FunctionJudge::start(&sandbox, &interpreter, limits).await.unwrap();
    let tasks = SuiteFormat::MbppPlus.read(Path::new(MBPP_PLUS), "mbppplus").unwrap();
    let modules = PackageModules::default();
    let (mut n_data, mut wrong) = (0, Vec::new());
    for task in &tasks {
        let id = &task.id;
        let check = match judge.read(task.question().unwrap()).await {
            Ok(check) => check,
            Err(error) => {
                wrong.push(format!("{id}: {error}"));
                continue;
            }
        };
        n_data += usize::from(check.is_data());
        let reference = task.program(&task.answer, &modules);
        let verdict = judge.run(&check, &reference, 3).await.unwrap();
        if !verdict.passed() {
            let first = verdict.first_failure().map_or("", |test| &test.message);
            wrong.push(format!("{id}: {}: {first}", verdict.summary()));
        }
        if judge.run(&check, &task.stub(&modules), 3).await.unwrap().passed() {
            wrong.push(format!("{id}: a stub passes"));
        }
    }
    println!("{} tasks, {n_data} of them data\n{}", tasks.len(), wrong.join("\n"));
    wrong.retain(|text| {
        !MBPP_PLUS_FAULTS.iter().any(|(id, _)| text.starts_with(&format!("Mbpp/{id}:")))
    });
    assert_eq!(wrong, [""; 0]);
}

#[tokio::test]
async fn canonical_solutions_of_human_eval_pass_and_stubs_fail() {
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let (mut n_data, mut wrong) = (0, Vec::new());
    let path = Path::new("tests/fixtures/judge/HumanEval.jsonl.gz");
    let tasks = SuiteFormat::HumanEval.read(path, "humaneval").unwrap();
    let modules = PackageModules::default();
    for task in &tasks {
        let id = &task.id;
        let check = judge.read(task.question().unwrap()).await.unwrap();
        n_data += usize::from(check.is_data());
        let (reference, stub) = (task.program(&task.answer, &modules), task.stub(&modules));
        let verdict = judge.run(&check, &stub, 7).await.unwrap();
        if !matches!(verdict.outcome, VerdictOutcome::Wrong | VerdictOutcome::Exception) {
            wrong.push(format!("{id}, stub: {}", verdict.summary()));
        }
        match judge.prove(check, Some(&reference), &stub).await {
            Ok(check) => {
                let verdict = judge.run(&check, &reference, 7).await.unwrap();
                if !verdict.passed() {
                    wrong.push(format!("{id}: {}", verdict.summary()));
                }
            }
            Err(error) => wrong.push(format!("{id}: {error}")),
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert_eq!((tasks.len(), n_data), (164, 161));
}

/// The visible examples of a task must hold for its reference.
#[tokio::test]
async fn examples_of_human_eval_hold_for_canonical_solutions() {
    let sandbox = sandbox();
    let interpreter = interpreter(&sandbox);
    let judge = Judge::new(&sandbox, &interpreter);
    let path = Path::new("tests/fixtures/judge/HumanEval.jsonl.gz");
    let tasks = SuiteFormat::HumanEval.read(path, "humaneval").unwrap();
    let (mut n_suites, mut wrong) = (0, Vec::new());
    for task in &tasks {
        let Some(work) = &task.work else { continue };
        n_suites += 1;
        let suite = TestSuite::new(vec![SourceFile::new("test_solution.py", &work.tests)]);
        let solution =
            SourceFile::new("solution.py", task.program(&task.answer, &PackageModules::default()));
        let verdict = judge.run_suite(&suite, &[solution]).await.unwrap();
        if !verdict.passed() {
            wrong.push(format!("{}: {}", task.id, verdict.summary()));
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert_eq!(n_suites, 121);
}

#[tokio::test]
async fn every_kind_of_failure_has_its_outcome() {
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let test = "assert f(1) == 2\nassert f(2) == [3]\nassert f(x=[1]) is None\nassert not f('')\nassert abs(f(0.5) - 1.5) < 1e-6\nassert f(9)\n";
    let table = [
        (
            "def f(x): return {1: 2, 2: [3], '': 0, 0.5: 1.5000001, 9: 1}.get(x) if not isinstance(x, list) else None",
            "6 of 6 tests passed",
        ),
        ("def f(x): return 2", "2 of 6 tests passed: wrong (2)"),
        ("def f(x): return x.y", "0 of 6 tests passed: raised an exception (6)"),
        ("def f(x:", "0 of 6 tests passed: raised an exception (import)"),
        ("g = 1", "0 of 6 tests passed: raised an exception (import)"),
        (
            "class E:\n  def __eq__(s, o): return True\ndef f(x): return E()",
            "0 of 6 tests passed: returned a value that is not plain data (6)",
        ),
        ("def f(x):\n  while True: pass", "0 of 6 tests passed: out of processor time (6)"),
        ("def f(x): return bytearray(1 << 40)", "0 of 6 tests passed: out of memory (6)"),
        ("import os\ndef f(x): os._exit(0)", "0 of 6 tests passed: raised an exception (6)"),
        (
            "def f(x):\n  import ctypes; ctypes.string_at(0)",
            "0 of 6 tests passed: raised an exception (6)",
        ),
    ];
    for (solution, expected) in table {
        let shown = verdict(&judge, test, solution).await.summary();
        let same = |text: &str| text.split(" (").next().unwrap().to_owned();
        assert_eq!(same(&shown), same(expected), "{solution}: {shown}");
    }
    let check = judge.read(task(test)).await.unwrap();
    let unproven =
        judge.prove(check.clone(), Some("def f(x): return 2"), "f = None").await.unwrap_err();
    assert!(unproven.to_string().contains("its reference: 2 of 6 tests passed"), "{unproven}");
    let unproven = judge.prove(check, Some(table[0].0), table[0].0).await.unwrap_err();
    assert!(unproven.to_string().contains("passes on a stub"), "{unproven}");
    let counts = "n = [0]\ndef f(x):\n  n[0] += 1\n  return x if n[0] <= 99 else -x - 1";
    let many = "for i in range(99):\n  assert f(i) == i";
    let flaky = verdict(&judge, many, counts).await;
    assert_eq!(flaky.outcome, VerdictOutcome::Flaky, "{}", flaky.summary());
}

/// Judges `solution` by `test` and shows the summary with the message of the first test that did
/// not pass.
async fn shown(judge: &FunctionJudge, test: &str, solution: &str) -> String {
    let verdict = verdict(judge, test, solution).await;
    let message = verdict.first_failure().map_or("", |test| &test.message);
    format!("{}: {message}", verdict.summary()).trim_end_matches(": ").to_owned()
}

/// Writes raw bytes as the answer of a function and exits the process.
const FORGE: &str = "import os, struct
def n(tag, *parts):
    return tag + struct.pack('<I', len(parts)) + b''.join(parts)
def i(number):
    return b'i' + struct.pack('<i', number)
def answer(body, changed=b'N'):
    body = b'(' + struct.pack('<I', 2) + body + changed
    frame = struct.pack('<I', len(body)) + b'v' + body
    os.write(FD, frame)
    os._exit(0)
";

#[tokio::test]
async fn values_with_duplicate_entries_are_rejected() {
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let divisors = "assert f(12) == {1, 2, 3, 4, 6, 12}";
    let counts = "assert f(12) == {1: 2, 3: 4}";
    let nested = "assert f(12) == [({1, 2}, {3: 4})]";
    let table = [
        (divisors, "answer(n(b'<', *[i(1)] * 6))"),
        (divisors, "answer(n(b'>', *[i(1)] * 6))"),
        (divisors, "answer(n(b'<', i(1), b'T', i(2), i(3), i(4), i(6)))"),
        (counts, "answer(b'{' + i(1) + i(2) + i(1) + i(2) + b'0')"),
        (nested, "answer(n(b'[', n(b'(', n(b'<', i(1), i(1)), b'{' + i(3) + i(4) + b'0')))"),
        (nested, "answer(n(b'[', n(b'(', n(b'<', i(1), i(2)), b'{' + (i(3) + i(4)) * 2 + b'0')))"),
    ];
    for (test, forged) in table {
        let as_run = format!("def check(c):\n    g = c\n    {}", test.replace("f(", "g("));
        // Answers are written to descriptor 4, or sent over the conversation on descriptor 3.
        for (test, fd) in [(test, 4), (as_run.as_str(), 3)] {
            let solution = format!("{FORGE}FD = {fd}\ndef f(x): {forged}");
            let shown = shown(&judge, test, &solution).await;
            let reason = "it sent an invalid value: a set or dictionary with a duplicate entry";
            assert!(shown.contains(reason), "{test}: {forged}: {shown}");
            assert!(shown.contains("returned a value that is not plain data"), "{shown}");
        }
    }
    let honest = format!("{FORGE}FD = 4\ndef f(x): answer(n(b'<', *map(i, [1, 2, 3, 4, 6, 12])))");
    assert_eq!(shown(&judge, divisors, &honest).await, "1 of 1 tests passed");
}

#[tokio::test]
async fn exceptions_that_end_loops_do_not_end_a_check() {
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let loops = [
        "for got, want in zip(map(c, [1, 2, 3]), [1, 4, 9]):\n        assert got == want",
        "assert all(a == b for a, b in zip(map(c, [1, 2, 3]), [1, 4, 9]))",
        "for got in iter(lambda: c(2), 5):\n        assert got == 4\n        break",
        "def each():\n        yield c(2)\n    for got in each():\n        assert got == 4",
        "try:\n        g = c\n        assert g(2) == 4\n    except (RuntimeError, StopIteration, EOFError, SystemExit):\n        pass",
    ];
    let endings = [
        "StopIteration",
        "StopAsyncIteration",
        "GeneratorExit",
        "SystemExit(0)",
        "KeyboardInterrupt",
    ];
    for body in loops {
        let test = format!("def check(c):\n    {body}");
        let right = shown(&judge, &test, "def f(x):\n    return x * x").await;
        assert_eq!(right, "1 of 1 tests passed", "{body}");
        for ending in endings {
            let solution = format!("def f(x):\n    raise {ending}");
            let shown = shown(&judge, &test, &solution).await;
            let name = ending.trim_end_matches("(0)");
            let expected = format!("0 of 1 tests passed: raised an exception (check): {name}");
            assert!(shown.starts_with(&expected), "{body}: {shown}");
        }
    }
    // An exception that the judge itself could use to mark the end of a conversation.
    let test = "def check(c):\n    g = c\n    assert g(1) == 1";
    let shown = shown(&judge, test, "def f(x):\n    raise EOFError('no')").await;
    assert_eq!(shown, "0 of 1 tests passed: raised an exception (check): EOFError: no");
}

#[tokio::test]
async fn large_sets_are_compared_within_the_time_limits() {
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let test = "assert f(200000) == set(range(200000))\nassert f(3) == {0, 1, 2}";
    let began = Instant::now();
    assert_eq!(shown(&judge, test, "def f(n): return set(range(n))").await, "2 of 2 tests passed");
    let wrong = shown(&judge, test, "def f(n): return set(range(1, n + 1))").await;
    assert!(wrong.starts_with("0 of 2 tests passed: wrong") && wrong.len() < 1000, "{wrong}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn too_deep_values_are_rejected_with_a_reason() {
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let test = "def deep(n):\n    value = []\n    for _ in range(n):\n        value = [value]\n    return value\nassert f(N) == deep(N)";
    let solution = "def f(n):\n    value = []\n    for _ in range(n):\n        value = [value]\n    return value";
    let deep = shown(&judge, &test.replace('N', "900"), solution).await;
    assert_eq!(deep, "1 of 1 tests passed");
    let test = "def check(c):\n    value = c(N)\n    while value:\n        value = value[0]";
    let too_deep = shown(&judge, &test.replace('N', "1500"), solution).await;
    assert!(too_deep.contains("it is nested too deeply"), "{too_deep}");
}

/// The judged function looks for the expected value wherever a process can look, and returns it.
const SEARCH: &str = "
import glob, os, re, subprocess, sys
PATTERN = re.compile(rb'SECRET-([0-9]{6})-END')
def places():
    yield from glob.glob('/in/**', recursive=True)
    yield from glob.glob('/tmp/**', recursive=True)
    yield from glob.glob('/proc/*/cmdline') + glob.glob('/proc/*/environ')
    yield from glob.glob('/proc/*/fd/*') + glob.glob('/proc/*/map_files/*')
def texts():
    for path in places():
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            yield os.read(fd, 1 << 22)
            os.close(fd)
        except OSError: pass
    for fd in range(64):
        for read in (lambda: os.pread(fd, 1 << 22, 0), lambda: os.set_blocking(fd, False) or os.read(fd, 1 << 22)):
            try: yield read()
            except OSError: pass
        if fd > 2:
            try: os.set_blocking(fd, True)
            except OSError: pass
    for process in ['/proc/self', *glob.glob('/proc/[0-9]*')]:
        try:
            maps = open(f'{process}/maps').read()
            mem = os.open(f'{process}/mem', os.O_RDONLY)
        except OSError: continue
        for line in maps.splitlines():
            start, end = (int(part, 16) for part in line.split()[0].split('-'))
            try: yield os.pread(mem, end - start, start)
            except (OSError, OverflowError): pass
    for command in ('cat /in/* /in/*/* /proc/*/cmdline /proc/*/environ', 'cat /proc/*/fd/[0124-9]'):
        try: yield subprocess.run(command, shell=True, capture_output=True, timeout=1, stdin=subprocess.DEVNULL).stdout
        except Exception: pass
def f(x):
    for text in texts():
        for found in PATTERN.findall(text):
            if found: return 'SECRET-' + found.decode() + '-END'
    return 'nothing found'
";

#[tokio::test]
async fn expected_values_are_out_of_reach_of_judged_code() {
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    // Only the oracle gets the prelude, which holds the reference in some suites.
    let secret = |test: &str| FunctionTask {
        prelude: "reference = {1: 'SECRET-271828-END'}".to_owned(),
        ..task(test)
    };
    let tests = [
        "assert f(1) == reference[1]",
        "assert f(1) == 'SECRET-271828-END'",
        "def check(c):\n    g = c\n    assert g(0) != g\n    assert g(1) == reference[1]",
    ];
    for test in tests {
        let check = judge.read(secret(test)).await.unwrap();
        let honest = "def f(x): return 'SECRET-' + str(271827 + 1) + '-END'";
        assert!(judge.run(&check, honest, 1).await.unwrap().passed(), "{test}");
        let verdict = judge.run(&check, SEARCH, 1).await.unwrap();
        let message = verdict.first_failure().map_or("", |test| &test.message);
        // It finds nothing, or it is stopped during the search.
        assert!(!verdict.passed(), "{test}: {}: {message}", verdict.summary());
        assert!(!message.contains("gave \"SECRET"), "{test}: {message}");
    }
    // The search does find what can be reached. Without namespaces even its own memory is closed.
    if std::env::var_os(super::BARE).is_some() {
        return;
    }
    let own = format!("OWN = 'SECRET-' + '161803' + '-END'\n{SEARCH}");
    let found = verdict(&judge, "assert f(1) == 'SECRET-161803-END'", &own).await;
    assert!(found.passed(), "{}", found.summary());
}

/// Rows in HumanEval's format, as users write them.
#[tokio::test]
async fn user_rows_are_judged_or_skipped_with_a_reason() {
    let row = |id: &str, prompt: &str, solution: &str, entry: &str, test: &str| json!({ "task_id": id, "prompt": prompt, "canonical_solution": solution, "entry_point": entry, "test": test });
    let rows = [
        row(
            "decorated",
            "from functools import lru_cache\n\n\n@lru_cache(maxsize=None)\ndef fib(n):\n    \"\"\"The n-th Fibonacci number.\"\"\"\n",
            "    return n if n < 2 else fib(n - 1) + fib(n - 2)\n",
            "fib",
            "def check(candidate):\n    assert candidate(10) == 55\n",
        ),
        row(
            "nested",
            "def helper(x):\n    def solve(y):\n        return y\n    return solve(x)\n\n\ndef solve(x):\n    \"\"\"Returns helper(x) + 1.\"\"\"\n",
            "    return helper(x) + 1\n",
            "solve",
            "def check(candidate):\n    assert candidate(1) == 2\n",
        ),
        row(
            "generator",
            "def evens(n):\n    \"\"\"Yields the first n even numbers.\"\"\"\n",
            "    for i in range(n):\n        yield 2 * i\n",
            "evens",
            "def check(candidate):\n    assert list(candidate(3)) == [0, 2, 4]\n",
        ),
        row(
            "decimal",
            "from decimal import Decimal\n\n\ndef net(gross):\n    \"\"\"Gross less 19 percent VAT as a Decimal.\"\"\"\n",
            "    return (Decimal(gross) / Decimal('1.19')).quantize(Decimal('0.01'))\n",
            "net",
            "from decimal import Decimal\n\ndef check(candidate):\n    assert candidate('119') == Decimal('100.00')\n    assert candidate(Decimal(119)) == Decimal(100)\n",
        ),
        row(
            "class",
            "class Stack:\n    \"\"\"A stack with push and pop.\"\"\"\n",
            "    def __init__(self):\n        self.items = []\n    def push(self, x):\n        self.items.append(x)\n    def pop(self):\n        return self.items.pop()\n",
            "Stack",
            "def check(candidate):\n    s = candidate()\n    s.push(1)\n    assert s.pop() == 1\n",
        ),
        row(
            "method",
            "class Account:\n    def __init__(self, n):\n        self.n = n\n\n    def deposit(self, x):\n        \"\"\"Adds x and returns the balance.\"\"\"\n",
            "        self.n += x\n        return self.n\n",
            "deposit",
            "def check(candidate):\n    assert Account(1).deposit(2) == 3\n",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.jsonl");
    std::fs::write(&path, rows.map(|row| row.to_string() + "\n").concat()).unwrap();
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let mut shown = Vec::new();
    for task in SuiteFormat::HumanEval.read(&path, "own").unwrap() {
        let modules = PackageModules::default();
        let (answer, stub) = (task.program(&task.answer, &modules), task.stub(&modules));
        let proven = match judge.read(task.question().unwrap()).await {
            Ok(check) => judge.prove(check, Some(&answer), &stub).await,
            Err(error) => Err(error),
        };
        let said = proven.map_or_else(|error| error.to_string(), |_| "judged".to_owned());
        shown.push(format!("{}: {said}", task.id));
    }
    insta::assert_snapshot!(shown.join("\n"), @"
    decorated: judged
    nested: judged
    generator: judged
    decimal: judged
    class: invalid check: its reference: 0 of 1 tests passed: returned a value that is not plain data (check): it returned an object of type `Stack`, and only plain values can be compared here (numbers, text, lists, dictionaries)
    method: invalid check: an assert that never calls `deposit` fails
    ");
}

/// Iterators of judged code are read item by item on request; packed values arrive whole.
#[tokio::test]
async fn iterators_and_standard_types_cross_between_processes() {
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let table = [
        (
            "import itertools\nassert list(itertools.islice(f(2), 3)) == [2, 4, 6]",
            "def f(n):\n    k = 0\n    while True:\n        k += n\n        yield k",
            "1 of 1 tests passed",
        ),
        (
            "assert sorted(f([1, 2])) == [1, 4]",
            "def f(xs): return map(lambda x: x * x, xs)",
            "1 of 1 tests passed",
        ),
        (
            "assert [list(part) for part in f(2)] == [[0], [0, 1]]",
            "def f(n): return (iter(range(k + 1)) for k in range(n))",
            "1 of 1 tests passed",
        ),
        (
            "assert list(f(1)) == [1]",
            "def f(n):\n    yield 1\n    raise ValueError('late')",
            "0 of 1 tests passed: raised an exception (check): ValueError: late",
        ),
        (
            "assert list(f(1)) == [1]",
            "def f(n):\n    yield object()",
            "0 of 1 tests passed: returned a value that is not plain data (check)",
        ),
        (
            "from fractions import Fraction as F\nfrom datetime import date\nassert f([F(1, 2)], d=date(2020, 1, 2)) == {'x': (F(3, 2), date(2020, 1, 2))}",
            "def f(xs, d): return {'x': (xs[0] + 1, d)}",
            "1 of 1 tests passed",
        ),
        (
            "from decimal import Decimal\nassert f(1) == Decimal('1.0')\nassert f(2) == 2",
            "from decimal import Decimal\nclass Any(Decimal):\n    def __eq__(self, other): return True\ndef f(x): return Any(7)",
            "0 of 1 tests passed: returned a value that is not plain data (check)",
        ),
        (
            "def check(c):\n    xs = [1]\n    g = c\n    g(xs)\n    assert xs == [1]",
            "def f(xs): xs.append(object())",
            "0 of 1 tests passed: returned a value that is not plain data (check): it changed an argument",
        ),
    ];
    for (test, solution, expected) in table {
        let shown = shown(&judge, test, solution).await;
        assert!(shown.starts_with(expected), "{solution}: {shown}");
    }
}

/// Contest programs may use any way of reading and writing.
#[tokio::test]
async fn contest_programs_have_real_descriptors() {
    let programs = [
        "a, b = map(int, open(0).read().split())\nprint(a + b)\n",
        "import os\na, b = map(int, os.read(0, 1 << 16).split())\nprint(a + b)\n",
        "with open('/dev/stdin') as f:\n    a, b = map(int, f.read().split())\nprint(a + b)\n",
        "import os, sys\na, b = map(int, sys.stdin.readline().split())\nos.write(1, b'%d\\n' % (a + b))\n",
        "a, b = map(int, input().split())\nprint(a + b)\nexit()\n",
        "import sys\na, b = map(int, sys.stdin.buffer.read().split())\nsys.stdout.buffer.write(b'%d\\n' % (a + b))\n",
        "import sys, threading\nsys.setrecursionlimit(1 << 20)\nthreading.stack_size(1 << 26)\ndef main():\n    a, b = map(int, input().split())\n    def down(n):\n        return 0 if n == 0 else 1 + down(n - 1)\n    assert down(20000) == 20000\n    print(a + b)\nt = threading.Thread(target=main)\nt.start()\nt.join()\n",
    ];
    let rows = programs.iter().enumerate().map(|(id, program)| {
        let cases = json!({ "inputs": ["1 2\n", "5 7\n"], "outputs": ["3\n", "12\n"] });
        let solutions = json!([program]).to_string();
        json!({ "id": id, "question": "Add.", "solutions": solutions, "input_output": cases.to_string() })
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("io.jsonl");
    std::fs::write(&path, rows.map(|row| row.to_string() + "\n").collect::<String>()).unwrap();
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    for task in SuiteFormat::Apps.read(&path, "io").unwrap() {
        let modules = PackageModules::default();
        let check = judge.read(task.question().unwrap()).await.unwrap();
        let program = task.program(&task.answer, &modules);
        let proven = judge.prove(check, Some(&program), &task.stub(&modules)).await;
        assert!(proven.is_ok(), "{}: {proven:?}", task.answer);
    }
}

/// Programs are judged by the words that they print, methods by their return values.
#[tokio::test]
async fn contest_problems_are_judged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.jsonl");
    let stdin = |input: &str, output: &str| json!({ "input": input, "output": output, "testtype": "stdin" });
    let rows = [
        json!({
            "question_id": "double", "question_content": "Double each.", "metadata": "{}",
            "public_test_cases": json!([stdin("1 2\n", "2 4\n")]).to_string(),
            // [{"input": "0.5", "output": "1.0", "testtype": "stdin"}], pickled and packed by
            // Python.
            "private_test_cases": "eJxrYJlqwwABPRbR1UqZeQWlJUpWCkoGeqZKOgpK+aUlUAFDPQOQQElqcUlJZUEqSKi4JCUzT6k2dooeAHdKE3E=",
        }),
        json!({
            "question_id": "add", "question_content": "Add.", "metadata": json!({ "func_name": "add" }).to_string(),
            "starter_code": "class Solution:\n    def add(self, a, b):\n",
            "public_test_cases": json!([{ "input": "[1]\n[2]", "output": "[1, 2]", "testtype": "functional" }]).to_string(),
            "private_test_cases": "[]",
        }),
    ];
    std::fs::write(&path, rows.map(|row| row.to_string() + "\n").concat()).unwrap();
    let tasks = SuiteFormat::LiveCodeBench.read(&path, "live").unwrap();
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let table = [
        (0, "print(*[2 * float(x) for x in input().split()])", "2 of 2 tests passed"),
        (
            0,
            "import sys\nfor x in sys.stdin.read().split(): sys.stdout.write(f'{float(x) + float(x):g}\\n')\nsys.exit(1)",
            "2 of 2 tests passed",
        ),
        (
            0,
            "print(*[2 * int(x) for x in input().split()])",
            "1 of 2 tests passed: raised an exception (2)",
        ),
        (0, "print(2, 4)", "1 of 2 tests passed: wrong (2)"),
        (
            1,
            "class Solution:\n    def add(self, a, b):\n        return a + b",
            "1 of 1 tests passed",
        ),
        (1, "def add(a, b):\n    return a + b", "1 of 1 tests passed"),
        (
            1,
            "class Solution:\n    def add(self, a, b):\n        return b + a",
            "0 of 1 tests passed: wrong (1)",
        ),
    ];
    for (task, answer, expected) in table {
        let task = &tasks[task];
        let check = judge.read(task.question().unwrap()).await.unwrap();
        let code = task.program(&format!("```python\n{answer}\n```"), &PackageModules::default());
        assert_eq!(judge.run(&check, &code, 0).await.unwrap().summary(), expected, "{answer}");
    }
}
