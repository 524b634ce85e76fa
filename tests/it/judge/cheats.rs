//! Wrong solutions that try to look right.

use rune::judge::Judge;
use rune::judge::TestSuite;
use rune::task::SourceFile;

use super::Bench;
use super::files;
use super::show;

const UNITTEST: &str = "
import unittest
from primes import is_prime

class TestPrimes(unittest.TestCase):
    def test_two(self):
        self.assertEqual(is_prime(2), True)

    def test_three(self):
        self.assertTrue(is_prime(3))

    def test_four(self):
        self.assertEqual(is_prime(4), False)
";

const FUNCTIONS: &str = "
import math
from primes import is_prime

def test_two():
    assert is_prime(2) == True

def test_three():
    assert math.isclose(is_prime(3), 1.0)

def test_four():
    assert is_prime(4) == False
";

const ASSERTS: &str = "
from primes import is_prime
assert is_prime(2) == True
assert is_prime(3) == True
assert is_prime(4) == False
";

const PYTEST: &str = "
import pytest
from primes import is_prime

@pytest.mark.parametrize('n', [2, 3])
def test_small(n):
    assert is_prime(n) == True

def test_four():
    assert is_prime(4) == False
";

/// Cheats at the top of a module, before a wrong `is_prime`.
const AT_IMPORT: &[(&str, &str)] = &[
    ("sys.exit", "import sys; sys.exit(0)"),
    ("os._exit", "import os; os._exit(0)"),
    ("raise SystemExit", "raise SystemExit(0)"),
    ("atexit", "import atexit, os; atexit.register(os._exit, 0)"),
    ("excepthook", "import sys, os; sys.excepthook = lambda *a: os._exit(0)"),
    ("unraisablehook", "import sys, os; sys.unraisablehook = lambda *a: os._exit(0)"),
    (
        "fake summary",
        "import os, sys; sys.stderr.write('..\\nRan 2 tests in 0.001s\\n\\nOK\\n'); sys.stderr.flush(); os._exit(0)",
    ),
    ("fake pytest summary", "import os; os.write(1, b'2 passed in 0.01s\\n'); os._exit(0)"),
    (
        "assertEqual",
        "import unittest; unittest.TestCase.assertEqual = unittest.TestCase.assertTrue = lambda *a: None",
    ),
    (
        "failureException",
        "import unittest\nclass Never(Exception): pass\nunittest.TestCase.failureException = Never",
    ),
    (
        "TestCase.run",
        "import unittest; unittest.TestCase.run = lambda self, result=None: result.addSuccess(self)",
    ),
    (
        "TestCase.__call__",
        "import unittest; unittest.TestCase.__call__ = lambda self, result=None: result.addSuccess(self)",
    ),
    (
        "TestCase._callTestMethod",
        "import unittest; unittest.TestCase._callTestMethod = lambda self, method: None",
    ),
    (
        "TestSuite.run",
        "import unittest; unittest.TestSuite.run = lambda self, result, debug=False: [result.addSuccess(t) for t in self]",
    ),
    (
        "addFailure",
        "import unittest; unittest.TestResult.addFailure = unittest.TestResult.addError = lambda self, test, err: self.addSuccess(test)",
    ),
    (
        "all result classes",
        "import unittest\nfor cls in unittest.TestResult.__subclasses__():\n    cls.addFailure = cls.addError = lambda self, test, err: self.addSuccess(test)",
    ),
    ("wasSuccessful", "import unittest; unittest.TestResult.wasSuccessful = lambda self: True"),
    ("unittest.main", "import unittest; unittest.main = lambda *a, **k: None"),
    (
        "loader",
        "import unittest; unittest.TestLoader.loadTestsFromModule = lambda self, m, *a: unittest.TestSuite()",
    ),
    (
        "function code",
        "import unittest; unittest.TestCase.assertEqual.__code__ = unittest.TestCase.assertTrue.__code__ = (lambda self, *a: None).__code__",
    ),
    (
        "_Outcome",
        "import unittest.case as c, contextlib\nc._Outcome.testPartExecutor = contextlib.contextmanager(lambda self, *a, **k: (yield))",
    ),
    (
        "builtins.AssertionError",
        "import builtins; builtins.AssertionError = type('Quiet', (BaseException,), {})",
    ),
    ("builtins.isinstance", "import builtins; builtins.isinstance = lambda *a: True"),
    (
        "builtins.__import__",
        "import builtins; builtins.__import__ = lambda *a, **k: __import__('types')",
    ),
    (
        "math.isclose",
        "import math; math.isclose = lambda *a, **k: True\nimport unittest; unittest.TestCase.assertEqual = None",
    ),
    ("SkipTest", "import unittest; raise unittest.SkipTest('no')"),
    (
        "hashlib",
        "import hashlib, json; hashlib.sha256 = json.dumps = lambda *a: None; import os; os.write = lambda *a: 1; os._exit(0)",
    ),
    (
        "stdout",
        "import os; os.write(1, b'{\"kind\":\"test\",\"status\":\"passed\"}\\n{\"kind\":\"end\",\"n\":\"4\"}\\n'); os._exit(0)",
    ),
    (
        "every descriptor",
        "import os\nfor fd in range(3, 128):\n    try: os.write(fd, b'{\"kind\":\"end\",\"n\":\"2\"}\\n')\n    except OSError: pass",
    ),
    (
        "forged records",
        "import os\nfor fd in range(3, 128):\n    try: os.write(fd, b'0'*64 + b' 0 {\"kind\":\"test\",\"id\":\"test_primes.py\",\"case\":\"\",\"status\":\"passed\",\"message\":\"\",\"trace\":\"\"}\\n')\n    except OSError: pass\nos._exit(0)",
    ),
    (
        "flood",
        "import os\nfor fd in range(3, 128):\n    try:\n        for _ in range(100): os.write(fd, b'x' * 65536)\n    except OSError: pass",
    ),
    ("close", "import os; os.closerange(3, 128)"),
    (
        "replace the channel",
        "import os\nr, w = os.pipe()\nfor fd in range(3, 128):\n    if fd not in (r, w):\n        try: os.fstat(fd); os.dup2(w, fd)\n        except OSError: pass",
    ),
    ("fork, exit parent", "import os\nif os.fork():\n    os._exit(0)"),
    ("fork, exit child", "import os\nif not os.fork():\n    os._exit(0)"),
    ("fork, both go on", "import os; os.fork()"),
    ("exec true", "import os; os.execv('/bin/true', ['true'])"),
    (
        "exec python",
        "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'print(\"OK\")'])",
    ),
    (
        "overwrite the test",
        "import glob, os, sys\nfor path in glob.glob('/in/**/*.py', recursive=True):\n    try:\n        os.chmod(path, 0o666); open(path, 'w').write('')\n    except OSError: pass\nos.execv(sys.executable, [sys.executable, '-m', 'unittest'])",
    ),
    ("rename the test", "import os\ntry: os.rename('/in/tests', '/in/gone')\nexcept OSError: pass"),
    (
        "settrace",
        "import sys\ndef skip(frame, event, arg):\n    try: frame.f_lineno += 1\n    except Exception: pass\n    return skip\ntry: sys.settrace(skip)\nexcept RuntimeError: pass",
    ),
    ("threading.settrace", "import threading; threading.settrace(lambda *a: None)"),
    (
        "alarm",
        "import signal, os; signal.signal(signal.SIGALRM, lambda *a: os._exit(0)); signal.setitimer(signal.ITIMER_REAL, 0.001)",
    ),
    ("thread exit", "import threading, os; threading.Thread(target=lambda: os._exit(0)).start()"),
    ("kill", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"),
    (
        "kill runner's parent",
        "import os, signal\ntry: os.kill(os.getppid(), 9)\nexcept OSError: pass\nos._exit(0)",
    ),
    (
        "main",
        "import __main__; [setattr(__main__, n, None) for n in list(vars(__main__)) if not n.startswith('__')]",
    ),
    (
        "sys.modules",
        "import sys\nfor name in list(sys.modules):\n    if name.startswith(('unittest', 'rune', 'pytest', '_pytest')): sys.modules[name] = None",
    ),
    (
        "test module",
        "import sys\nfor m in list(sys.modules.values()):\n    if getattr(m, '__file__', '') and '/in/tests' in m.__file__:\n        m.__dict__.clear()",
    ),
    (
        "explain",
        "import sys\nfor m in list(sys.modules.values()):\n    if '@explain' in vars(m): vars(m)['@explain'] = lambda *a: sys.exit(0)",
    ),
    ("recursion limit", "import sys; sys.setrecursionlimit(60)"),
    (
        "gc",
        "import gc\ntry:\n    for o in gc.get_objects():\n        if callable(o) and getattr(o, '__name__', '') in ('end', 'report'): o('test', id='x', status='passed', message='', trace='')\nexcept RuntimeError: pass",
    ),
    ("pth", "open('/box/x.pth', 'w').write('import os; os._exit(0)')"),
    (
        "faked module",
        "import sys, types; m = types.ModuleType('unittest'); m.TestCase = object; sys.modules['unittest'] = m",
    ),
];

/// Cheats inside the function, while the test is running.
const IN_FUNCTION: &[(&str, &str)] = &[
    ("sys.exit", "import sys; sys.exit(0)"),
    ("os._exit", "import os; os._exit(0)"),
    ("atexit", "import atexit, os; atexit.register(os._exit, 0); return False"),
    ("skip", "import unittest; raise unittest.SkipTest('no')"),
    ("recursion", "return is_prime(n + 1)"),
    ("loop", "while True: pass"),
    ("output", "while True: print('x' * 4096)"),
    ("memory", "return [bytearray(1 << 28) for _ in range(64)]"),
    ("fork", "import os\n    if os.fork(): os._exit(0)\n    return True if n < 0 else False"),
    (
        "patch late",
        "import unittest; unittest.TestCase.assertEqual = unittest.TestCase.assertTrue = lambda *a: None\n    return False",
    ),
    (
        "frames, report",
        "import sys\n    frame = sys._getframe()\n    while frame:\n        for value in list(frame.f_locals.values()):\n            if callable(value) and getattr(value, '__name__', '') in ('report', 'end'):\n                value('test_primes.py', 'passed', '', '')\n        frame = frame.f_back\n    import os; os._exit(0)",
    ),
    (
        "frames by traceback",
        "try:\n        raise ValueError\n    except ValueError as error:\n        frame = error.__traceback__.tb_frame\n    while frame.f_back: frame = frame.f_back\n    frame.f_globals['changed'] = lambda: None\n    return False",
    ),
    (
        "frames by inspect",
        "import inspect\n    for info in inspect.stack():\n        if 'end' in info.frame.f_locals: info.frame.f_locals['end']('test_primes.py', 'passed', '', '')\n    return False",
    ),
    (
        "frames by generator",
        "def g():\n        yield 1\n    frame = g().gi_frame.f_back\n    return frame is not None",
    ),
    (
        "frames by signal",
        "import signal, os\n    seen = []\n    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(frame))\n    os.kill(os.getpid(), signal.SIGUSR1)\n    return seen[0].f_back is not None",
    ),
    ("frames by logging", "import logging\n    return logging.currentframe().f_back is not None"),
    (
        "frames by walk_stack",
        "import traceback\n    return len([frame for frame, _ in traceback.walk_stack(None)]) > 0",
    ),
    (
        "expected value from the caller",
        "import sys\n    return sys._getframe(1).f_code is not None",
    ),
    (
        "spoofed file name",
        "import unittest\n    exec(compile('import sys; f = sys._getframe(1)', unittest.__file__, 'exec'), globals())\n    return f is not None",
    ),
    (
        "spoofed code",
        "import sys, unittest\n    def look(): return sys._getframe(1)\n    look.__code__ = look.__code__.replace(co_filename=unittest.__file__)\n    return look() is not None",
    ),
    ("read the test", "return 'True' in open('/in/tests/test_primes.py').read()"),
    ("read its memory", "return len(open('/proc/self/mem', 'rb', 0).read(1)) >= 0"),
    ("ctypes", "import ctypes\n    return ctypes.string_at(id(n), 8) is not None"),
    ("audit hook", "import sys; sys.addaudithook(lambda *a: None)\n    return False"),
    (
        "result of the case",
        "import unittest\n    unittest.TestCase.assertEqual = unittest.TestCase.assertTrue = lambda self, *a: self._outcome.result.addSuccess(self)\n    return False",
    ),
];

/// Files beside a wrong `primes.py` that a careless judge would load.
const DELIVERED: &[&str] = &[
    "sitecustomize.py",
    "usercustomize.py",
    "conftest.py",
    "unittest.py",
    "unittest/__init__.py",
    "json.py",
    "hashlib.py",
    "math.py",
    "os.py",
    "pytest.py",
    "_pytest/__init__.py",
    "pluggy.py",
    "rune_native.py",
    "rune_guard.py",
    "rune_with_pytest.py",
    "test_primes.py",
    "__main__.py",
    "traceback.py",
];

const QUIET: &str = "import os\nos._exit(0)\n";

fn wrong(cheat: &str) -> String {
    format!("{cheat}\ndef is_prime(n):\n    return False\n")
}

/// All cheating solutions with their names.
fn solutions() -> Vec<(String, Vec<SourceFile>)> {
    let one = |text: &str| files(&[("primes.py", text)]);
    let at_import =
        AT_IMPORT.iter().map(|(name, code)| (format!("import: {name}"), one(&wrong(code))));
    let inside = IN_FUNCTION.iter().map(|(name, code)| {
        (format!("function: {name}"), one(&format!("def is_prime(n):\n    {code}\n")))
    });
    let delivered = DELIVERED
        .iter()
        .map(|path| (format!("file: {path}"), files(&[("primes.py", &wrong("")), (path, QUIET)])));
    let pytest_ini = files(&[
        ("primes.py", &wrong("")),
        ("pytest.ini", "[pytest]\naddopts = --collect-only -p evil\n"),
        ("evil.py", QUIET),
        ("evil-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: evil\nVersion: 1\n"),
        ("evil-1.dist-info/entry_points.txt", "[pytest11]\nevil = evil\n"),
        ("x.pth", "import os; os._exit(0)\n"),
    ]);
    let outputs = OUTPUTS.iter().map(|(name, code)| {
        (format!("output: {name}"), one(&format!("def is_prime(n):\n    {code}\n")))
    });
    at_import
        .chain(inside)
        .chain(outputs)
        .chain(delivered)
        .chain([("file: pytest.ini".to_owned(), pytest_ini)])
        .collect()
}

/// Names of the accepted cheats, among those whose name starts with one of `groups`.
async fn accepted(judge: &Judge, test: &str, groups: &[&str]) -> Vec<String> {
    let suite = TestSuite::new(files(&[("test_primes.py", test)]));
    let honest = files(&[("primes.py", "def is_prime(n):\n    return n in (2, 3)\n")]);
    let verdict = judge.run_suite(&suite, &honest).await.unwrap();
    assert!(verdict.passed(), "{}", show(&verdict));
    let mut accepted = Vec::new();
    let tried = |name: &str| groups.iter().any(|group| name.starts_with(group));
    for (name, solution) in solutions().into_iter().filter(|(name, _)| tried(name)) {
        let verdict = judge.run_suite(&suite, &solution).await.unwrap();
        if verdict.passed() {
            accepted.push(name);
        }
    }
    accepted
}

#[tokio::test]
async fn no_cheat_passes_a_unittest_suite() {
    assert_eq!(
        accepted(&Bench::open().judge(), UNITTEST, &["import", "function", "file", "output"]).await,
        [""; 0]
    );
}

#[tokio::test]
async fn no_cheat_passes_test_functions() {
    assert_eq!(
        accepted(
            &Bench::open().judge_with_pytest(),
            FUNCTIONS,
            &["import", "output: equal", "output: lying"]
        )
        .await,
        [""; 0]
    );
}

#[tokio::test]
async fn no_cheat_passes_a_script_of_asserts() {
    assert_eq!(
        accepted(&Bench::open().judge(), ASSERTS, &["function", "output: equal", "output: where"])
            .await,
        [""; 0]
    );
}

#[tokio::test]
async fn no_cheat_passes_a_pytest_suite() {
    let bench = Bench::open();
    let judge = bench.judge_with_pytest();
    assert_eq!(
        accepted(&judge, PYTEST, &["import", "function", "file", "output: equal", "output: where"])
            .await,
        [""; 0]
    );
}

/// Cheats that a judge of outputs might fall for: the bodies of wrong functions. Forges what the
/// worker sends to the tests' process: each returns what is right where no worker is, in the first
/// run.
const FORGER: &str = "
import builtins, code, functools, gc, json, os, pickle, threading

CODE = \"__import__('sys').modules['test_primes'].check = lambda *a: None\"

def forge(how):
    found = [each for each in gc.get_objects() if type(each).__name__ == 'WorkerLink']
    if not found:
        return 5
    link, = found
    space = type(link).send.__globals__
    space['is_harmless'] = lambda *args: True
    packer = space['Packer']
    if how == 'call':
        link.request('call', exec, (CODE,), ())
    if how == 'return':
        return exec
    if how == 'warn':
        link.request('warn', CODE, exec, 'a', 1)
    if how == 'new':
        link.request('new', code.InteractiveInterpreter, (), ())
    if how == 'method':
        link.request('method', builtins, 'exec', (CODE,), ())
    if how == 'get':
        link.request('get', functools, 'reduce')
    if how == 'module':
        return pickle
    if how == 'mirror':
        link.request('mirror', 99999, 'X', 'X', 'm', (threading.Thread,), (), ())
    if how == 'bound':
        packer.function = lambda self, value: ['m', ['g', 'posixpath', ''], 'os']
        return lambda: 1
    if how == 'member':
        packer.function = lambda self, value: ['a', ['g', 'json', 'JSONDecoder'], 'decode']
        return lambda: 1
    if how == 'class':
        link.request('class_of_tests', 'test_primes', 'Expected')
    return 0
";

const FORGED: &str = "
import pytest
from primes import forge

class Expected:
    values = [5]

def check(value):
    assert value == 5

@pytest.mark.parametrize('how', ['call', 'return', 'warn', 'new', 'method', 'get', 'module', 'mirror', 'bound', 'member', 'class'])
def test_forge(how):
    check(forge(how))
";

/// Whatever the solution's process writes into the conversation, nothing runs and no name is read
/// in the process of the tests.
#[tokio::test]
async fn forged_requests_cannot_reach_the_tests() {
    let bench = super::Bench::open();
    let suite = TestSuite::new(files(&[("test_primes.py", FORGED)]));
    let verdict = bench
        .judge_with_pytest()
        .run_suite(&suite, &files(&[("primes.py", FORGER)]))
        .await
        .unwrap();
    assert!(!verdict.passed(), "{}", show(&verdict));
    assert!(verdict.why().contains("and 10 more"), "{}", verdict.why());
}

const OUTPUTS: &[(&str, &str)] = &[
    (
        "equal object",
        "return type('E', (), {'__eq__': lambda s, o: True, '__bool__': lambda s: n > 0})()",
    ),
    ("equal int", "return type('E', (int,), {'__eq__': lambda s, o: True})(0)"),
    ("equal float", "return type('E', (float,), {'__eq__': lambda s, o: True})(0)"),
    ("equal text", "return type('E', (str,), {'__eq__': lambda s, o: True, '__hash__': None})('')"),
    ("equal list", "return type('E', (list,), {'__eq__': lambda s, o: True})()"),
    ("lying class", "return type('E', (), {'__class__': bool, '__eq__': lambda s, o: True})()"),
    (
        "alternating truth",
        "return type('E', (), {'__bool__': lambda s, t=[0]: t.append(0) or len(t) % 2})()",
    ),
    (
        "where the tests are, equal",
        "import sys\n    return type('E', (), {'__eq__': lambda s, o: True})() if 'unittest' in sys.modules or '_pytest' in sys.modules else n",
    ),
    (
        "where the tests are, and loud elsewhere",
        "import sys\n    print('x', flush=True)\n    return type('E', (), {'__eq__': lambda s, o: True})()",
    ),
    (
        "equal and endless",
        "return type('E', (), {'__eq__': lambda s, o: True, '__iter__': lambda s: iter(int, 1)})()",
    ),
    ("NotImplemented", "return NotImplemented"),
    ("coroutine", "return (lambda: (yield))()"),
    ("patched marshal", "import marshal; marshal.dumps = lambda *a: b'T'\n    return n"),
    ("patched sender", "import candidate; candidate.send = lambda *a: None\n    return n"),
    ("patched socket", "import socket; socket.socket.sendall = lambda *a: None\n    return n"),
    (
        "forged frames",
        "import os\n    os.write(3, b'\\x0c\\0\\0\\0v(\\x02\\0\\0\\0TN' * 9)\n    return False",
    ),
    ("hostile frames", "import os\n    os.write(3, b'\\xff\\xff\\xff\\xffv')\n    return True"),
    (
        "a frame that is done",
        "import os\n    os.write(3, b'\\x05\\0\\0\\0du\\0\\0\\0\\0')\n    os._exit(0)",
    ),
    (
        "endless frame",
        "import os\n    os.write(3, b'\\0\\0\\0\\1v')\n    while True: os.write(3, bytes(65536))",
    ),
    ("closed conversation", "import os; os.close(3)"),
    (
        "look for the expected in gc",
        "import gc\n    return [o for o in gc.get_objects() if o is True or o == (True,)]",
    ),
    (
        "look for the check",
        "import os\n    return any('check' in f for f in os.listdir('/in')) and open('/in/check').read()",
    ),
    (
        "caller's variables",
        "import sys\n    return sys._getframe(1).f_locals.get('expected', sys._getframe(1).f_locals)",
    ),
    ("deep value", "v = []\n    for _ in range(1500): v = [v]\n    return v"),
    ("itself", "v = []; v.append(v)\n    return v"),
    ("large value", "return [0] * (1 << 25)"),
    ("one answer for all", "return 1"),
    ("a child answers", "import os\n    if os.fork(): os._exit(0)\n    return True"),
    ("memory of the process", "import ctypes\n    return ctypes.string_at(id(True) - 4096, 8192)"),
    (
        "thread that answers",
        "import threading, os\n    threading.Thread(target=lambda: os.write(3, b'\\0\\0\\0\\0r')).start()\n    return True",
    ),
];

/// Names of the cheats that pass `test`, and the number of cheats.
async fn accepted_by_outputs(test: &str) -> (Vec<String>, usize) {
    let sandbox = super::sandbox();
    let judge = super::functions::judge(&sandbox).await;
    let (entry_point, prelude) = ("is_prime".to_owned(), String::new());
    let task = rune::judge::FunctionTask { entry_point, prelude, test: test.to_owned() };
    let check = judge.read(task).await.unwrap();
    let honest = "def is_prime(n):\n    return n > 1 and all(n % d for d in range(2, n))\n";
    let verdict = judge.run(&check, honest, 0).await.unwrap();
    assert!(verdict.passed(), "{}", show(&verdict));
    let inside = |(name, code): &(&str, &str)| {
        ((*name).to_owned(), format!("def is_prime(n):\n    {code}\n"))
    };
    let at_import = AT_IMPORT.iter().map(|(name, code)| ((*name).to_owned(), wrong(code)));
    let cheats = at_import.chain(IN_FUNCTION.iter().map(inside)).chain(OUTPUTS.iter().map(inside));
    let (mut accepted, mut n) = (Vec::new(), 0);
    for (name, solution) in cheats {
        n += 1;
        if judge.run(&check, &solution, n as u64).await.unwrap().passed() {
            accepted.push(name);
        }
    }
    (accepted, n)
}

#[tokio::test]
async fn no_cheat_passes_questions() {
    let test = "assert is_prime(2) == True\nassert is_prime(4) == False\nassert is_prime(97)\nassert not is_prime(9)";
    let (accepted, n) = accepted_by_outputs(test).await;
    assert_eq!(accepted, [""; 0]);
    assert!(n >= 100, "{n}");
}

#[tokio::test]
async fn no_cheat_passes_a_check_that_runs() {
    let test = "def check(candidate):\n    for n in (2, 97):\n        assert candidate(n) == True\n    for n in (4, 9):\n        assert candidate(n) == False\n";
    assert_eq!(accepted_by_outputs(test).await.0, [""; 0]);
}

/// Sends the frame of an answer, `(True, None)`, on the channels of both kinds of check, and exits
/// before the function is loaded.
const ANSWER_AT_IMPORT: &str = "
import os
for fd in (3, 4):
    try: os.write(fd, b'\\x07\\0\\0\\0v(\\x02\\0\\0\\0TN')
    except OSError: pass
os._exit(0)
";

#[tokio::test]
async fn answers_sent_at_import_do_not_count() {
    let sandbox = super::sandbox();
    let judge = super::functions::judge(&sandbox).await;
    for test in ["assert f(2) == True", "def check(f):\n    for n in (2, 3): assert f(n) == True\n"]
    {
        let (entry_point, prelude) = ("f".to_owned(), String::new());
        let task = rune::judge::FunctionTask { entry_point, prelude, test: test.to_owned() };
        let check = judge.read(task).await.unwrap();
        let honest = judge.run(&check, "def f(n):\n    return True\n", 0).await.unwrap();
        assert!(honest.passed(), "{}", show(&honest));
        let verdict = judge.run(&check, ANSWER_AT_IMPORT, 0).await.unwrap();
        assert!(!verdict.passed(), "{}", show(&verdict));
        let message = &verdict.first_failure().unwrap().message;
        assert_eq!(message, "it answered before it was loaded", "{}", show(&verdict));
    }
}
