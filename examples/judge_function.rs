//! Judges two answers to a question by tests that the answers never see.
//!
//! `cargo run --release --example judge_function`

#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use std::sync::Arc;

use rune::judge::Judge;
use rune::judge::TestSuite;
use rune::sandbox::Sandbox;
use rune::task::SourceFile;

const TESTS: &str = "\
import unittest
from adder import add


class TestAdd(unittest.TestCase):
    def test_positive_numbers(self):
        self.assertEqual(add(2, 3), 5)

    def test_negative_number(self):
        self.assertEqual(add(2, -3), -1)
";

const RIGHT: &str = "def add(a, b):\n    return a + b\n";
const WRONG: &str = "def add(a, b):\n    return 5\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The sandbox starts this program again as its helper: see `sandbox::helper_main`.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|name| name == rune::sandbox::HELPER_SUBCOMMAND) {
        let code = rune::sandbox::helper_main(args);
        return if code == 0 { Ok(()) } else { Err("the helper of the sandbox failed".into()) };
    }
    let sandbox = Arc::new(Sandbox::start(&std::env::current_exe()?)?);
    let judge = Judge::new(&sandbox, &sandbox.interpreter(None)?);
    let suite = TestSuite::new(vec![SourceFile::new("test_adder.py", TESTS)]);
    let runtime = tokio::runtime::Runtime::new()?;
    for (name, code) in [("right", RIGHT), ("wrong", WRONG)] {
        let solution = [SourceFile::new("adder.py", code)];
        let verdict = runtime.block_on(judge.run_suite(&suite, &solution))?;
        println!("{name}: {}", verdict.summary());
    }
    Ok(())
}
