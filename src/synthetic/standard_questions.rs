//! Questions about Python's standard library, in the frames of the records.
//!
//! They teach that names follow the import: what stands behind `import heapq` comes from `heapq`.
//! Questions without an import ask for what the language itself can do.

use super::random::SeededRng;
use super::records::LibraryRecord;
use super::records::record;
use super::templates;
use super::templates::TRAINING;
use crate::trajectory::Message;

/// Value that Python computes without another package.
#[derive(Debug)]
pub(super) struct StandardTask {
    /// Module to import; empty if none is.
    pub(super) module: &'static str,
    /// Function or class of the module.
    function: &'static str,
    /// Two wordings, each a noun phrase that a variable's name completes.
    phrases: [&'static str; 2],
    /// The value as a Python expression of `{v}`.
    value: &'static str,
    /// An argument and the value for it, as Python literals.
    pub(super) example: [&'static str; 2],
}

const fn of(
    [module, function]: [&'static str; 2],
    phrases: [&'static str; 2],
    value: &'static str,
    example: [&'static str; 2],
) -> StandardTask {
    StandardTask { module, function, phrases, value, example }
}

/// Generates the questions with their answers, in the same order every time.
pub fn standard_questions() -> Vec<LibraryRecord> {
    let mut rng = SeededRng::new(0, "standard");
    let mut records: Vec<LibraryRecord> =
        TASKS.iter().flat_map(|task| task.records(&mut rng)).collect();
    for [module, name, phrase] in CONSTANTS {
        let (wanted, value) = (format!("{phrase} of {module}"), format!("{module}.{name}"));
        let code = templates::assignment(Some(module), &wanted, &value);
        records.push(record(&code, &family(module, name), &mut rng));
    }
    for [module, function, bad, error] in ERRORS {
        let phrase = rng.below(TRAINING.phrases.len());
        let code = templates::refusal(module, phrase, bad, (function, error));
        records.push(record(&code, &family(module, error), &mut rng));
    }
    records
}

impl StandardTask {
    /// Generates two records of the task. In the first, a comment asks for the value in one
    /// wording. In the second, the same or a docstring or a question for the name has the other
    /// wording.
    fn records(&self, rng: &mut SeededRng) -> [LibraryRecord; 2] {
        let first = rng.below(2);
        let comment = self.assignment(self.phrases[first], rng);
        let phrase = self.phrases[1 - first];
        let other = match rng.below(3) {
            0 => self.definition(phrase, rng),
            1 => self.naming(phrase, rng),
            _ => None,
        };
        [comment, other.unwrap_or_else(|| self.assignment(phrase, rng))]
    }

    fn assignment(&self, phrase: &str, rng: &mut SeededRng) -> LibraryRecord {
        let library = (!self.module.is_empty()).then_some(self.module);
        let variable = self.variable(rng);
        let (wanted, value) = (format!("{phrase} {variable}"), self.value_of(variable));
        let code = templates::assignment(library, &wanted, &value);
        record(&code, &self.family(), rng)
    }

    /// Generates the question for a function's body; `None` without a module.
    fn definition(&self, phrase: &str, rng: &mut SeededRng) -> Option<LibraryRecord> {
        if self.module.is_empty() {
            return None;
        }
        let (name, variable) = (TRAINING.function_name(rng), self.variable(rng));
        let value = self.value_of(variable);
        let code = templates::definition(self.module, &name, phrase, variable, &value);
        Some(record(&code, &self.family(), rng))
    }

    /// Generates the question for the function's name; `None` for a class, or without a module.
    fn naming(&self, phrase: &str, rng: &mut SeededRng) -> Option<LibraryRecord> {
        if !self.function.starts_with(|letter: char| letter.is_ascii_lowercase()) {
            return None;
        }
        let form = rng.below(TRAINING.phrases.len());
        let asked = templates::naming(self.module, form, phrase);
        let messages = vec![
            Message::user(asked.replacen("a list", self.kind().article, 1)),
            Message::assistant(self.function),
        ];
        Some(LibraryRecord { family: self.family(), messages })
    }

    fn value_of(&self, variable: &str) -> String {
        self.value.replace("{v}", variable)
    }

    fn family(&self) -> String {
        family(self.module, self.name())
    }

    /// Returns the function, or what tells tasks without a module apart.
    pub(super) fn name(&self) -> &'static str {
        if self.module.is_empty() { self.phrases[0] } else { self.function }
    }

    fn variable(&self, rng: &mut SeededRng) -> &'static str {
        rng.pick::<&str>(self.kind().variables)
    }

    /// Returns the kind of the argument.
    fn kind(&self) -> &'static ArgumentKind {
        match self.example[0].as_bytes() {
            [b'[', b'"', ..] => &WORDS,
            [b'[', ..] => &NUMBERS,
            [b'"', ..] => &TEXT,
            _ => &NUMBER,
        }
    }
}

/// Kind of an argument.
struct ArgumentKind {
    /// The kind in words.
    article: &'static str,
    variables: &'static [&'static str],
}

const NUMBERS: ArgumentKind = ArgumentKind { article: "a list", variables: TRAINING.variables };
const WORDS: ArgumentKind =
    ArgumentKind { article: "a list", variables: &["words", "names", "labels", "tags"] };
const TEXT: ArgumentKind =
    ArgumentKind { article: "a text", variables: &["text", "line", "title", "sentence"] };
const NUMBER: ArgumentKind =
    ArgumentKind { article: "a number", variables: &["n", "size", "width", "depth"] };

fn family(module: &str, name: &str) -> String {
    let module = if module.is_empty() { "python" } else { module };
    format!("rehearsal/{module}/{name}")
}

/// Constants: module, name, phrase.
const CONSTANTS: [[&str; 3]; 9] = [
    ["string", "ascii_lowercase", "lower-case letters"],
    ["string", "ascii_uppercase", "upper-case letters"],
    ["string", "digits", "decimal digits"],
    ["string", "hexdigits", "hexadecimal digits"],
    ["string", "punctuation", "punctuation characters"],
    ["math", "pi", "ratio of circumference to diameter"],
    ["math", "e", "base of the natural logarithm"],
    ["math", "inf", "positive infinity"],
    ["math", "tau", "full turn in radians"],
];

/// Errors: module, function, argument that it rejects, error class.
const ERRORS: [[&str; 4]; 4] = [
    ["statistics", "fmean", "[]", "StatisticsError"],
    ["statistics", "pvariance", "[]", "StatisticsError"],
    ["decimal", "Decimal", "\"abc\"", "InvalidOperation"],
    ["zlib", "decompress", "b\"abc\"", "error"],
];

/// All tasks. None is an operation of the invented libraries, so that controls stay untaught.
#[rustfmt::skip]
pub(super) const TASKS: &[StandardTask] = &[
    of(["heapq", "nlargest"], ["two greatest numbers by a heap from", "top two by heap of"],
        "heapq.nlargest(2, {v})", ["[4, 9, 1, 7]", "[9, 7]"]),
    of(["heapq", "merge"], ["sorted merge with [2, 5] of", "merge by heap with [2, 5] of"],
        "list(heapq.merge([2, 5], {v}))", ["[1, 3, 8]", "[1, 2, 3, 5, 8]"]),
    of(["statistics", "fmean"], ["arithmetic mean as a float of", "floating-point mean over"],
        "statistics.fmean({v})", ["[1, 2, 6]", "3.0"]),
    of(["statistics", "pstdev"], ["population standard deviation of", "standard deviation of the whole population in"],
        "statistics.pstdev({v})", ["[2, 2, 2]", "0.0"]),
    of(["statistics", "pvariance"], ["population variance of", "variance over the whole population in"],
        "statistics.pvariance({v})", ["[1, 3]", "1"]),
    of(["statistics", "multimode"], ["list of all modes of", "every mode in"],
        "statistics.multimode({v})", ["[1, 1, 2, 2, 3]", "[1, 2]"]),
    of(["statistics", "median_low"], ["low median of", "smaller of the two central values of"],
        "statistics.median_low({v})", ["[1, 2, 3, 9]", "2"]),
    of(["itertools", "combinations"], ["combinations of two from", "unordered selections of two from"],
        "list(itertools.combinations({v}, 2))", ["[1, 2, 3]", "[(1, 2), (1, 3), (2, 3)]"]),
    of(["itertools", "permutations"], ["permutations of", "orderings of all of"],
        "list(itertools.permutations({v}))", ["[1, 2]", "[(1, 2), (2, 1)]"]),
    of(["itertools", "chain"], ["chain with [0] before", "concatenation by chain of [0] and"],
        "list(itertools.chain([0], {v}))", ["[5, 6]", "[0, 5, 6]"]),
    of(["itertools", "islice"], ["slice by iterator up to two of", "part up to two by islice of"],
        "list(itertools.islice({v}, 2))", ["[8, 6, 4]", "[8, 6]"]),
    of(["itertools", "takewhile"], ["items below five taken while they last from", "prefix of values under five in"],
        "list(itertools.takewhile(lambda x: x < 5, {v}))", ["[1, 4, 6, 2]", "[1, 4]"]),
    of(["itertools", "dropwhile"], ["what is left after dropping values under five from", "suffix from the first value of five or more in"],
        "list(itertools.dropwhile(lambda x: x < 5, {v}))", ["[1, 4, 6, 2]", "[6, 2]"]),
    of(["itertools", "repeat"], ["three repeats of", "value three times, repeated from"],
        "list(itertools.repeat({v}, 3))", ["5", "[5, 5, 5]"]),
    of(["itertools", "groupby"], ["keys of the groups in", "keys of runs of equal items in"],
        "[key for key, _ in itertools.groupby({v})]", ["[1, 1, 2, 1]", "[1, 2, 1]"]),
    of(["itertools", "product"], ["Cartesian square of", "Cartesian product with itself of"],
        "list(itertools.product({v}, repeat=2))", ["[0, 1]", "[(0, 0), (0, 1), (1, 0), (1, 1)]"]),
    of(["math", "sqrt"], ["square root of", "non-negative root of"],
        "math.sqrt({v})", ["16", "4.0"]),
    of(["math", "isqrt"], ["integer square root of", "whole part of the root of"],
        "math.isqrt({v})", ["17", "4"]),
    of(["math", "factorial"], ["factorial of", "number of arrangements of"],
        "math.factorial({v})", ["5", "120"]),
    of(["math", "gcd"], ["greatest common divisor of 12 and", "common divisor, as large as can be, of 12 and"],
        "math.gcd(12, {v})", ["18", "6"]),
    of(["math", "comb"], ["ways to choose two out of", "binomial coefficient over two of"],
        "math.comb({v}, 2)", ["5", "10"]),
    of(["math", "floor"], ["floor of half of", "half, rounded down, of"],
        "math.floor({v} / 2)", ["7", "3"]),
    of(["math", "ceil"], ["ceiling of half of", "half, rounded up, of"],
        "math.ceil({v} / 2)", ["7", "4"]),
    of(["math", "log2"], ["base-two logarithm of", "logarithm to base two of"],
        "math.log2({v})", ["8", "3.0"]),
    of(["math", "hypot"], ["hypotenuse over 3 and", "length of the hypotenuse for legs 3 and"],
        "math.hypot(3, {v})", ["4", "5.0"]),
    of(["math", "fsum"], ["exact floating-point total of", "sum without rounding errors of"],
        "math.fsum({v})", ["[0.5, 0.25]", "0.75"]),
    of(["math", "degrees"], ["degrees of the angle", "angle in degrees for radians"],
        "math.degrees({v})", ["0", "0.0"]),
    of(["math", "copysign"], ["magnitude one with the sign of", "one, signed like"],
        "math.copysign(1, {v})", ["-3", "-1.0"]),
    of(["collections", "Counter"], ["counter over", "tally by Counter of"],
        "collections.Counter({v})", ["[1, 1, 2]", "Counter({1: 2, 2: 1})"]),
    of(["collections", "deque"], ["double-ended queue of", "deque made from"],
        "collections.deque({v})", ["[1, 2]", "deque([1, 2])"]),
    of(["bisect", "bisect_left"], ["leftmost place to insert 3 into sorted", "place before equal items for 3 in sorted"],
        "bisect.bisect_left({v}, 3)", ["[1, 3, 3, 5]", "1"]),
    of(["bisect", "bisect_right"], ["rightmost place to insert 3 into sorted", "place after equal items for 3 in sorted"],
        "bisect.bisect_right({v}, 3)", ["[1, 3, 3, 5]", "3"]),
    of(["functools", "reduce"], ["fold by subtraction of", "left fold with minus over"],
        "functools.reduce(lambda a, b: a - b, {v})", ["[9, 2, 3]", "4"]),
    of(["functools", "cmp_to_key"], ["ordering by a comparison function of", "copy sorted by comparing differences of"],
        "sorted({v}, key=functools.cmp_to_key(lambda a, b: b - a))", ["[1, 3, 2]", "[3, 2, 1]"]),
    of(["operator", "itemgetter"], ["second and first item, by a getter, of", "items 1 and 0, by operator, of"],
        "operator.itemgetter(1, 0)({v})", ["[7, 8, 9]", "(8, 7)"]),
    of(["operator", "mul"], ["product, by operator, of 6 and", "multiplication operator on 6 and"],
        "operator.mul(6, {v})", ["7", "42"]),
    of(["operator", "neg"], ["negation, by operator, of", "minus operator on"],
        "operator.neg({v})", ["4", "-4"]),
    of(["operator", "countOf"], ["occurrences, by operator, of 2 in", "how often 2 is in"],
        "operator.countOf({v}, 2)", ["[2, 5, 2]", "2"]),
    of(["operator", "concat"], ["concatenation, by operator, of [0] with", "operator's joining of [0] and"],
        "operator.concat([0], {v})", ["[1]", "[0, 1]"]),
    of(["string", "capwords"], ["text with each word capitalized of", "capitalized words of"],
        "string.capwords({v})", ["\"one two\"", "'One Two'"]),
    of(["string", "Template"], ["template with x set to 1 of", "substitution of x by 1 in"],
        "string.Template({v}).substitute(x=1)", ["\"x is $x\"", "'x is 1'"]),
    of(["textwrap", "wrap"], ["lines of at most eight characters of", "wrapping at width eight of"],
        "textwrap.wrap({v}, 8)", ["\"alpha beta gamma\"", "['alpha', 'beta', 'gamma']"]),
    of(["textwrap", "fill"], ["paragraph filled to width eight of", "text broken at width eight of"],
        "textwrap.fill({v}, 8)", ["\"alpha beta gamma\"", "'alpha\\nbeta\\ngamma'"]),
    of(["textwrap", "dedent"], ["text without common indentation of", "dedented form of"],
        "textwrap.dedent({v})", ["\"  a\\n  b\"", "'a\\nb'"]),
    of(["textwrap", "indent"], ["text with '> ' before each line of", "quoted lines of"],
        "textwrap.indent({v}, '> ')", ["\"a\\nb\"", "'> a\\n> b'"]),
    of(["textwrap", "shorten"], ["text shortened to width eleven of", "truncation to width eleven of"],
        "textwrap.shorten({v}, 11)", ["\"alpha beta gamma\"", "'alpha [...]'"]),
    of(["copy", "deepcopy"], ["deep copy of", "copy that shares nothing with"],
        "copy.deepcopy({v})", ["[1, [2]]", "[1, [2]]"]),
    of(["shlex", "split"], ["shell words of", "words, as a shell splits them, of"],
        "shlex.split({v})", ["\"a 'b c'\"", "['a', 'b c']"]),
    of(["fnmatch", "filter"], ["names that match '*.py' in", "Python files, by pattern, among"],
        "fnmatch.filter({v}, '*.py')", ["[\"a.py\", \"b.txt\"]", "['a.py']"]),
    of(["zlib", "crc32"], ["CRC-32 checksum of the bytes of", "checksum, CRC-32, over encoded"],
        "zlib.crc32({v}.encode())", ["\"abc\"", "891568578"]),
    of(["hashlib", "sha256"], ["SHA-256 digest in hex of the bytes of", "hexadecimal SHA-256 of encoded"],
        "hashlib.sha256({v}.encode()).hexdigest()", ["\"abc\"", "'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'"]),
    of(["difflib", "get_close_matches"], ["close matches of 'apple' among", "words like 'apple' in"],
        "difflib.get_close_matches('apple', {v})", ["[\"apply\", \"pear\"]", "['apply']"]),
    of(["unicodedata", "name"], ["Unicode name of the character", "official name of the character"],
        "unicodedata.name({v})", ["\"a\"", "'LATIN SMALL LETTER A'"]),
    of(["array", "array"], ["array of signed integers from", "compact integer array of"],
        "array.array('i', {v})", ["[1, 2]", "array('i', [1, 2])"]),
    of(["cmath", "sqrt"], ["complex square root of", "root, as a complex number, of"],
        "cmath.sqrt({v})", ["-4", "2j"]),
    of(["decimal", "Decimal"], ["decimal number of the text", "exact decimal value of"],
        "decimal.Decimal({v})", ["\"0.10\"", "Decimal('0.10')"]),
    of(["", ""], ["upper-case form of", "capital letters of"],
        "{v}.upper()", ["\"abc\"", "'ABC'"]),
    of(["", ""], ["word count of", "number of words in"],
        "len({v}.split())", ["\"a b c\"", "3"]),
    of(["", ""], ["words in a list of", "text, split at spaces, of"],
        "{v}.split()", ["\"a b\"", "['a', 'b']"]),
    of(["", ""], ["text without spaces at its ends of", "stripped form of"],
        "{v}.strip()", ["\" a \"", "'a'"]),
    of(["", ""], ["comma-separated text of", "words joined by ', ' of"],
        "', '.join({v})", ["[\"a\", \"b\"]", "'a, b'"]),
    of(["", ""], ["longest word in", "word of most letters among"],
        "max({v}, key=len)", ["[\"a\", \"bcd\"]", "'bcd'"]),
    of(["", ""], ["lengths of the words in", "letter counts of"],
        "[len(word) for word in {v}]", ["[\"a\", \"bcd\"]", "[1, 3]"]),
    of(["", ""], ["binary digits of", "binary text of"],
        "bin({v})[2:]", ["5", "'101'"]),
    of(["", ""], ["hexadecimal digits of", "hexadecimal text of"],
        "hex({v})[2:]", ["255", "'ff'"]),
    of(["", ""], ["cube of", "third power of"],
        "{v} ** 3", ["2", "8"]),
    of(["", ""], ["digits in a list of", "single digits of"],
        "[int(digit) for digit in str({v})]", ["407", "[4, 0, 7]"]),
];
