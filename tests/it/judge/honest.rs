//! Honest solutions pass and honest failures are explained, for each kind of test.

use rune::judge::Assurance;
use rune::judge::JudgeError;
use rune::judge::SuiteError;
use rune::judge::TestSuite;
use rune::judge::VerdictOutcome;

use super::Bench;
use super::files;
use super::run;
use super::show;

const GOOD: &str =
    "def is_prime(n):\n    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))\n";
const BAD: &str = "def is_prime(n):\n    return n % 2 == 1\n";

const UNITTEST: &str = "
import unittest
from primes import is_prime

class TestPrimes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.small = [2, 3, 5]

    def setUp(self):
        self.n = 9

    def test_composite(self):
        self.assertFalse(is_prime(self.n))

    def test_small(self):
        for n in self.small:
            with self.subTest(n=n):
                self.assertEqual(is_prime(n), True)

if __name__ == '__main__':
    unittest.main()
";

const FUNCTIONS: &str = "
from primes import is_prime

def test_two():
    assert is_prime(2)

def test_count():
    expected = 25
    assert sum(map(is_prime, range(100))) == expected, 'below 100'

class TestMore:
    def setup_method(self):
        self.n = 1

    def test_one(self):
        assert not is_prime(self.n)
";

const ASSERTS: &str = "
from primes import is_prime
assert is_prime(3)
assert is_prime(2) == True
";

const PYTEST: &str = "
import pytest
from primes import is_prime

@pytest.fixture
def nine():
    return 9

@pytest.mark.parametrize('n', [2, 3, 5])
def test_small(n):
    assert is_prime(n) is True

def test_composite(nine):
    assert is_prime(nine) is False
";

async fn check(test: &str, solution: &str) -> String {
    let bench = Bench::open();
    let suite = TestSuite::new(files(&[("test_primes.py", test)]));
    show(&run(&bench.judge_with_pytest(), &suite, solution).await)
}

#[tokio::test]
async fn honest_solutions_pass() {
    insta::assert_snapshot!(check(UNITTEST, GOOD).await, @"
    2 of 2 tests passed
    test_primes.py::TestPrimes::test_composite Passed
    test_primes.py::TestPrimes::test_small Passed
    ");
    insta::assert_snapshot!(check(FUNCTIONS, GOOD).await, @"
    3 of 3 tests passed
    test_primes.py::test_two Passed
    test_primes.py::test_count Passed
    test_primes.py::TestMore::test_one Passed
    ");
    insta::assert_snapshot!(check(ASSERTS, GOOD).await, @"
    1 of 1 tests passed
    test_primes.py Passed
    ");
}

#[tokio::test]
async fn long_test_files_that_use_the_solution_at_import_are_judged() {
    let asserts = "        assert is_prime(\n            2)\n".repeat(8_000);
    let test = format!(
        "import unittest\nfrom primes import is_prime\nBELOW = [0] * is_prime(2)\n\n\
         class TestMany(unittest.TestCase):\n    def test_many(self):\n{asserts}"
    );
    insta::assert_snapshot!(check(&test, GOOD).await, @"
    1 of 1 tests passed
    test_primes.py::TestMany::test_many Passed
    ");
}

#[tokio::test]
async fn failure_messages_show_compared_values() {
    insta::assert_snapshot!(check(UNITTEST, BAD).await, @"
    0 of 2 tests passed: wrong (test_primes.py::TestPrimes::test_composite)
    test_primes.py::TestPrimes::test_composite Failed True is not false
    test_primes.py::TestPrimes::test_small Failed (n=2): False != True
    ");
    let functions = FUNCTIONS.split("class TestMore").next().unwrap();
    insta::assert_snapshot!(check(functions, BAD).await, @"
    0 of 2 tests passed: wrong (test_primes.py::test_two)
    test_primes.py::test_two Failed assert is_prime(2)
    test_primes.py::test_count Failed assert sum(map(is_prime, range(100))) == expected |   sum(map(is_prime, range(100))) = 50 |   expected = 25 |   message: below 100
    ");
    insta::assert_snapshot!(check(ASSERTS, BAD).await, @"
    0 of 1 tests passed: wrong (test_primes.py)
    test_primes.py Failed assert is_prime(2) == True |   is_prime(2) = False
    ");
}

#[tokio::test]
async fn unimportable_solution_fails_every_test() {
    insta::assert_snapshot!(check(UNITTEST, "x = = 1\n").await, @r#"
    0 of 2 tests passed: raised an exception (test_primes.py::TestPrimes::test_composite)
    test_primes.py::TestPrimes::test_composite Error File "/box/primes.py", line 1 |     x = = 1 |         ^ | SyntaxError: invalid syntax
    test_primes.py::TestPrimes::test_small Error File "/box/primes.py", line 1 |     x = = 1 |         ^ | SyntaxError: invalid syntax
    "#);
    insta::assert_snapshot!(check(FUNCTIONS, "x = 1\n").await, @"
    0 of 3 tests passed: raised an exception (test_primes.py::test_two)
    test_primes.py::test_two Error ImportError: cannot import name 'is_prime' from 'primes' (/box/primes.py)
    test_primes.py::test_count Error ImportError: cannot import name 'is_prime' from 'primes' (/box/primes.py)
    test_primes.py::TestMore::test_one Error ImportError: cannot import name 'is_prime' from 'primes' (/box/primes.py)
    ");
    insta::assert_snapshot!(check(ASSERTS, "import nothing_of_that_name\n").await, @"
    0 of 1 tests passed: raised an exception (test_primes.py)
    test_primes.py Error ModuleNotFoundError: No module named 'nothing_of_that_name'
    ");
}

#[tokio::test]
async fn suites_that_check_nothing_do_not_pass() {
    let nothing = [
        ("import unittest\nclass T(unittest.TestCase):\n    pass\n", "no tests"),
        ("import primes\nprint(primes.is_prime(2))\n", "no asserts"),
        ("import primes\nif False:\n    assert primes.is_prime(2)\n", "assert not reached"),
        (
            "import unittest, primes\n@unittest.skip('later')\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.assertTrue(primes.is_prime(2))\n",
            "skipped",
        ),
        (
            "import unittest, primes\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.skipTest(str(primes))\n",
            "skips itself",
        ),
    ];
    let bench = Bench::open();
    for (test, name) in nothing {
        let verdict =
            run(&bench.judge(), &TestSuite::new(files(&[("test_a.py", test)])), GOOD).await;
        assert_eq!(verdict.outcome, VerdictOutcome::NoTests, "{name}: {}", show(&verdict));
        assert!(verdict.score() <= 0.0);
    }
}

#[tokio::test]
async fn suites_that_pass_on_a_stub_are_detected() {
    let bench = Bench::open();
    let solution = files(&[("primes.py", GOOD)]);
    let weak = "import primes\ndef test_a():\n    assert callable(primes.is_prime)\n";
    for (test, worthless) in [(weak, true), (UNITTEST, false), (ASSERTS, false)] {
        let suite = TestSuite::new(files(&[("test_primes.py", test)]));
        let judge = bench.judge_with_pytest();
        let found = judge.passes_on_a_stub(&suite, &solution).await.unwrap();
        assert_eq!(found, worthless, "{test}");
    }
}

#[tokio::test]
async fn results_before_a_crash_are_kept() {
    let bench = Bench::open();
    let dies = "import ctypes\ndef is_prime(n):\n    if n == 2:\n        ctypes.string_at(0)\n    return False\n";
    let suite = TestSuite::new(files(&[("test_primes.py", UNITTEST)]));
    let verdict = run(&bench.judge(), &suite, dies).await;
    insta::assert_snapshot!(show(&verdict), @"
    1 of 2 tests passed: raised an exception (test_primes.py::TestPrimes::test_small)
    test_primes.py::TestPrimes::test_composite Passed
    test_primes.py::TestPrimes::test_small Error the process ended during this test: signal 11 killed it (infinite recursion?)
    ");
    assert!((verdict.score() - 0.5).abs() < 1e-9);
}

#[tokio::test]
async fn limits_have_their_own_outcomes() {
    let bench = Bench::open();
    let suite = TestSuite::new(files(&[("test_primes.py", ASSERTS)]));
    let looping = "def is_prime(n):\n    while True:\n        pass\n";
    assert_eq!(run(&bench.judge(), &suite, looping).await.outcome, VerdictOutcome::CpuLimit);
    let bomb = "def is_prime(n):\n    return bytearray(4 << 30)\n";
    assert_eq!(run(&bench.judge(), &suite, bomb).await.outcome, VerdictOutcome::MemoryLimit);
    let deep = "def is_prime(n):\n    return is_prime(n + 1)\n";
    assert_eq!(run(&bench.judge(), &suite, deep).await.outcome, VerdictOutcome::Exception);
}

#[tokio::test]
async fn pytest_suites_run_with_the_real_pytest() {
    let bench = Bench::open();
    let suite = TestSuite::new(files(&[("test_primes.py", PYTEST)]));
    let judge = bench.judge_with_pytest();
    insta::assert_snapshot!(show(&run(&judge, &suite, GOOD).await), @"
    4 of 4 tests passed
    test_primes.py::test_small[2] Passed
    test_primes.py::test_small[3] Passed
    test_primes.py::test_small[5] Passed
    test_primes.py::test_composite Passed
    ");
    insta::assert_snapshot!(show(&run(&judge, &suite, BAD).await), @"
    2 of 4 tests passed: wrong (test_primes.py::test_small[2])
    test_primes.py::test_small[2] Failed assert False is True |  +  where False = is_prime(2)
    test_primes.py::test_small[3] Passed
    test_primes.py::test_small[5] Passed
    test_primes.py::test_composite Failed assert True is False |  +  where True = is_prime(9)
    ");
    insta::assert_snapshot!(show(&run(&judge, &suite, "x = = 1\n").await), @r#"
    0 of 4 tests passed: raised an exception (test_primes.py::test_small[2])
    test_primes.py::test_small[2] Error File "/box/primes.py", line 1 | x = = 1 | ^ | SyntaxError: invalid syntax
    test_primes.py::test_small[3] Error File "/box/primes.py", line 1 | x = = 1 | ^ | SyntaxError: invalid syntax
    test_primes.py::test_small[5] Error File "/box/primes.py", line 1 | x = = 1 | ^ | SyntaxError: invalid syntax
    test_primes.py::test_composite Error File "/box/primes.py", line 1 | x = = 1 | ^ | SyntaxError: invalid syntax
    "#);
}

#[tokio::test]
async fn missing_pytest_is_reported() {
    let bench = Bench::open();
    let has_its_own = bench.judge().pytest_version().await.unwrap().is_some();
    let suite = TestSuite::new(files(&[("test_primes.py", PYTEST)]));
    let verdict = bench.judge().run_suite(&suite, &files(&[("primes.py", GOOD)])).await;
    match verdict {
        Ok(verdict) => assert!(has_its_own && verdict.passed(), "{}", show(&verdict)),
        Err(error) => assert!(!has_its_own && matches!(error, JudgeError::PytestMissing)),
    }
}

#[tokio::test]
async fn broken_test_files_are_user_errors() {
    let bench = Bench::open();
    let suite = TestSuite::new(files(&[("test_a.py", "def test_a(:\n")]));
    let error = bench.judge().run_suite(&suite, &[]).await.unwrap_err();
    assert_eq!(error.to_string(), "test file `test_a.py`, line 1: invalid syntax");
}

#[tokio::test]
async fn folders_are_loaded_with_their_helpers() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &[u8]| std::fs::write(folder.path().join(path), text).unwrap();
    assert!(matches!(TestSuite::load(folder.path()), Err(SuiteError::NoTests(_))));
    assert!(matches!(TestSuite::load(&folder.path().join("no")), Err(SuiteError::NotFound(_))));
    write("cases.py", b"CASES = [(2, True), (9, False)]\n");
    write("data.json", b"[1]");
    write("image.png", &[0xff, 0xfe]);
    write(
        "test_primes.py",
        b"import json, os\nfrom cases import CASES\nfrom primes import is_prime\n\ndef test_all():\n    for n, prime in CASES:\n        assert is_prime(n) == prime\n\ndef test_data():\n    with open(os.path.join(os.path.dirname(__file__), 'data.json')) as file:\n        assert not is_prime(json.load(file)[0])\n",
    );
    let suite = TestSuite::load(folder.path()).unwrap();
    let names: Vec<&str> = suite.files().iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["cases.py", "data.json", "image.png", "test_primes.py"]);
    assert_eq!(suite.files()[2].bytes(), [0xff, 0xfe]);
    let bench = Bench::open();
    assert_eq!(
        show(&run(&bench.judge_with_pytest(), &suite, GOOD).await).lines().next(),
        Some("2 of 2 tests passed")
    );
}

/// Frameworks and their packages are loaded before the tests; a solution may share a name with one.
#[tokio::test]
async fn solution_shadows_modules_that_are_already_loaded() {
    let bench = Bench::open();
    for name in ["iniconfig", "packaging", "statistics"] {
        let test =
            format!("import {name}\n\ndef test_answer():\n    assert {name}.answer() == 42\n");
        let suite = TestSuite::new(files(&[("test_answer.py", &test)]));
        for (answer, passes) in [("42", true), ("7", false)] {
            let solution = format!("def answer():\n    return {answer}\n");
            let solution = files(&[(&format!("{name}.py"), &solution)]);
            let verdict = bench.judge_with_pytest().run_suite(&suite, &solution).await.unwrap();
            assert_eq!(verdict.passed(), passes, "{name}: {}", show(&verdict));
            assert_eq!(verdict.assurance, passes.then_some(Assurance::Separate), "{name}");
        }
    }
}

/// Suites that run a second time with the solution in another process, some of which need more than
/// remote objects offer.
#[tokio::test]
async fn remote_objects_support_what_tests_need() {
    let table = [
        (
            "generators",
            "def f():\n    n = 0\n    while True:\n        yield n\n        n += 1\n",
            "from primes import f\nimport itertools\nassert list(itertools.islice(f(), 3)) == [0, 1, 2]\nassert next(iter(f())) == 0\n",
        ),
        (
            "changed arguments",
            "def f(a, d, *, s):\n    a.append(1); d['x'] = 2; s.add(3)\n",
            "from primes import f\na, d, s = [], {}, set()\nassert f(a, d, s=s) is None and a == [1] and d == {'x': 2}\n",
        ),
        (
            "exceptions",
            "class Odd(ValueError): pass\ndef f(n):\n    if n % 2: raise Odd('odd')\n    return n // 0\n",
            "import unittest\nimport primes\nclass T(unittest.TestCase):\n    def test_f(self):\n        with self.assertRaises(ValueError) as caught:\n            primes.f(1)\n        self.assertIn('odd', str(caught.exception))\n        self.assertRaises(ZeroDivisionError, primes.f, 2)\n",
        ),
        (
            "objects that come back",
            "class Node:\n    def __init__(self, n): self.n = n\ndef make(n): return Node(n)\ndef read(node, plus=0): return node.n + plus\n",
            "from primes import make, read\nassert read(make(3)) == 3\nassert read(node=make(3), plus=1) == 4\n",
        ),
        (
            "functions as arguments",
            "def apply(f, n): return f(n)\n",
            "from primes import apply\nassert apply(lambda n: n + 1, 1) == 2\nassert apply(len, 'ab') == 2\n",
        ),
        (
            "state and constants",
            "LIMIT = 3\nseen = []\ndef f(n):\n    seen.append(n)\n    return len(seen)\n",
            "from primes import f, LIMIT\nassert (f(1), f(1), LIMIT) == (1, 2, 3)\n",
        ),
        (
            "streams that are read twice",
            "import io\ndef words(text):\n    return (text.read() if isinstance(text, io.TextIOBase) else text).split()\n",
            "import io\nfrom primes import words\nstream = io.StringIO('a b')\nassert words(stream) == ['a', 'b']\nstream.seek(0)\nassert words(stream) == ['a', 'b']\n",
        ),
        (
            "a subclass that goes on to what it overrides",
            "class V:\n    def __init__(self, n): self.n = n\n    @classmethod\n    def parse(cls, text): return cls(int(text))\n    def __str__(self): return str(self.n)\n",
            "from primes import V\nclass W(V):\n    @classmethod\n    def parse(cls, text): return super().parse(text[1:])\n    def __str__(self): return 'v' + super().__str__()\nassert str(W.parse('v3')) == 'v3'\nassert type(W.parse('v3')) is W\n",
        ),
        (
            "named tuples and counters",
            "import collections\nP = collections.namedtuple('P', 'x y')\ndef p(): return P(1, 2)\ndef c(t): return collections.Counter(t)\n",
            "from primes import p, c\nassert p() == (1, 2)\nassert c('aab') == {'a': 2, 'b': 1}\n",
        ),
        (
            "classes",
            "class Stack:\n    def __init__(self): self.all = []\n    def push(self, x): self.all.append(x)\n    def __len__(self): return len(self.all)\n",
            "from primes import Stack\ns = Stack()\ns.push(1)\nassert len(s) == 1 and s.all == [1]\n",
        ),
        (
            "output",
            "def f(): print('hello')\n",
            "import contextlib, io\nfrom primes import f\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    f()\nassert out.getvalue() == 'hello\\n'\n",
        ),
        (
            "patches",
            "import random\ndef roll(): return random.randint(1, 6)\n",
            "from unittest.mock import patch\nimport primes\nwith patch('random.randint', return_value=4):\n    assert primes.roll() == 4\n",
        ),
        (
            "a subclass with its own way to be made",
            "class Pair(tuple):\n    def __new__(cls, a, b): return super().__new__(cls, (a, b))\n    @property\n    def first(self): return self[0]\n",
            "from primes import Pair\nclass Twice(Pair):\n    def __new__(cls, a): return super().__new__(cls, a, a)\nassert Twice(3) == (3, 3)\nassert Twice(3).first == 3\n",
        ),
        (
            "declared fields that a metaclass takes away",
            "class Field:\n    def __init__(self, default): self.default = default\nclass Meta(type):\n    def __new__(mcls, name, bases, space):\n        fields = {k: v for k, v in space.items() if isinstance(v, Field)}\n        for k in fields: del space[k]\n        cls = super().__new__(mcls, name, bases, space)\n        cls.fields = fields\n        return cls\nclass Record(metaclass=Meta):\n    def __init__(self, **given):\n        for k, f in self.fields.items(): setattr(self, k, given.get(k, f.default))\n",
            "from primes import Record, Field\nclass Mixin:\n    def double(self): return 2 * self.x\nclass P(Record, Mixin):\n    x = Field(1)\nassert P().x == 1 and P(x=4).double() == 8\nassert list(P.fields) == ['x']\n",
        ),
        (
            "pickled objects of the tests' classes",
            "class Node:\n    def __init__(self, n): self.n = n\n",
            "import pickle\nfrom primes import Node\nclass Leaf(Node): pass\ndef test():\n    again = pickle.loads(pickle.dumps(Leaf(2)))\n    assert type(again) is Leaf and again.n == 2\n",
        ),
        (
            "a subclass that the solution makes of the tests' class",
            "def sub(cls, **members): return type('Sub', (cls,), members)\n",
            "from primes import sub\nclass Base:\n    x = 1\n    def twice(self): return 2 * self.x\nmade = sub(Base, x=5)\nassert issubclass(made, Base) and made.x == 5\n",
        ),
        (
            "attributes of the tests' functions",
            "def pattern(f): return getattr(f, 'pattern', None)\ndef tag(f): f.pattern = 'a'; return f\n",
            "from primes import pattern, tag\n@tag\ndef f(): pass\nassert f.pattern == 'a' and pattern(f) == 'a'\nf.pattern = 'b'\nassert pattern(f) == 'b'\n",
        ),
        (
            "time zones, built-in functions and registered classes",
            "import collections.abc, datetime\nclass Zone(datetime.tzinfo):\n    def utcoffset(self, at): return datetime.timedelta(hours=1)\ndef at(): return datetime.datetime(2020, 1, 1, tzinfo=Zone())\nclass Row:\n    show = repr\n    def __len__(self): return 0\n    def __getitem__(self, i): raise IndexError\ncollections.abc.Sequence.register(Row)\n",
            "import collections.abc, datetime\nfrom primes import at, Row\nassert at().utcoffset() == datetime.timedelta(hours=1)\nassert Row().show(1) == '1'\nassert isinstance(Row(), collections.abc.Sequence)\n",
        ),
        (
            "surrogates, and one text that is one object",
            "A = 'with a space'\ndef size(text): return len(text)\nclass Box:\n    kind = A\n    def go(self): pass\n    def same(self): return self.go\n",
            "import primes\nassert primes.size('\\ud835\\udce3') == 2\nassert primes.Box().kind is primes.A\nbox = primes.Box()\nassert box.same() == box.go\n",
        ),
        (
            "what holds all that is near",
            "class Bag:\n    def __init__(self, items): self.items = set(items)\n    def __contains__(self, item): return item in self.items\n",
            "from primes import Bag\nbag = Bag(range(-3000, 3000))\nassert 50 in bag and 5000 not in bag\n",
        ),
        (
            "streams and a protocol of the tests' classes",
            "import sys\ndef html(x): return x.__html__()\ndef is_out(stream): return stream is sys.stdout\n",
            "import sys\nimport primes\nassert primes.is_out(sys.stdout)\nclass H:\n    def __html__(self): return '<b>'\nassert primes.html(H()) == '<b>'\n",
        ),
        (
            "keywords and nothing",
            "def f(*, a=1, **rest): return (a, rest)\n",
            "import primes as p\nassert p.f() == (1, {})\nassert p.f(a=2, b=[None]) == (2, {'b': [None]})\n",
        ),
    ];
    let bench = Bench::open();
    for (what, solution, test) in table {
        let suite = TestSuite::new(files(&[("test_primes.py", test)]));
        let verdict =
            bench.judge().run_suite(&suite, &files(&[("primes.py", solution)])).await.unwrap();
        assert!(verdict.passed(), "{what}: {}", show(&verdict));
        assert_eq!(verdict.assurance, Some(Assurance::Separate), "{what}: {verdict:?}");
    }
    let test = "from tools.primes import f\nfrom tools import g\nassert f(1) == 2 and g(1) == 3\n";
    let package = [
        ("tools/__init__.py", "from .primes import f\ndef g(n): return f(n) + 1\n"),
        ("tools/primes.py", "def f(n): return n + 1\n"),
    ];
    let verdict = bench
        .judge()
        .run_suite(&TestSuite::new(files(&[("test_tools.py", test)])), &files(&package))
        .await
        .unwrap();
    assert!(verdict.passed(), "{}", show(&verdict));
}
