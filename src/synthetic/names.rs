//! Invents names of libraries and functions.

use super::random;
use super::random::SeededRng;

const CONSONANTS: &[u8] = b"bdfgjklmnprstvz";
const VOWELS: &[u8] = b"aeiou";
/// Final letters that are rare in English, so that few invented names are words.
const FINALS: &[u8] = b"bfgkmpvz";

/// Shapes of names: `c` is a consonant, `v` a vowel, `f` a final letter.
const LIBRARY_SHAPES: &[&str] = &["cvcvf"];
const FUNCTION_SHAPES: &[&str] = &["cvccvf", "cvcvcvf"];

/// Number of seed groups that the names are divided among.
const N_GROUPS: u64 = 64;

/// Python keywords, builtins and standard library names of five to seven letters.
const PYTHON: &str = "
    aiter anext array ascii assert async asyncio atexit audioop await bisect break bytes cgitb
    chunk class cmath codecs codeop compile complex copyreg credits crypt ctypes curses decimal
    delattr difflib divmod doctest email errno except fcntl filecmp filter finally float fnmatch
    format ftplib getattr getopt getpass gettext global globals hasattr hashlib heapq idlelib
    imaplib imghdr import input inspect keyword lambda license locale locals logging mailbox
    mailcap marshal match msilib msvcrt netrc nntplib ntpath numbers object opcode pathlib
    pickle pipes pkgutil poplib posix pprint print profile pstats pyclbr pydoc pyexpat queue
    quopri raise random range reprlib return round runpy sched secrets select setattr shelve
    shlex shutil signal slice smtpd smtplib sndhdr socket sorted string struct sunau super
    syslog tarfile termios timeit tkinter token tomllib trace tuple turtle types typing urllib
    weakref while winreg wsgiref xdrlib xmlrpc yield zipapp zipfile
";

/// English words, Python packages and tools that match the shape of a name.
const WORDS: &str = "
    bedlam begum bignum bitmap bottom burlap dalek datum debug dedup delim denim denom deref
    deriv develop fandom fantom forum galop gitlab golem gossip gulag gunzip jakub kebab kidnap
    kodak laptop libev libuv libzip lorem madam markup matlab minim minimum miniz modem mortem
    motif namib nizam nutmeg param pilaf pogrom popup purim ransom reflog remap remez retab
    rimraf rollup rustup salam salep salib sebum seldom serif serum setup signum sitemap subtag
    talib tandem tulip turnip velum venom verilog zigzag zulip
";

/// Fragments of rude words and of words about lists and numbers, which no name may contain.
const PIECES: &[&str] = &[
    "abs", "add", "all", "any", "avg", "big", "bin", "bit", "bot", "dat", "del", "dif", "div",
    "dob", "dup", "end", "fin", "fir", "get", "int", "item", "las", "len", "lib", "lis", "log",
    "lon", "low", "map", "mas", "max", "med", "mem", "mid", "min", "mod", "mul", "neg", "nul",
    "num", "odd", "ord", "pair", "pop", "pos", "red", "ref", "rep", "res", "ret", "rev", "rot",
    "run", "set", "siz", "sor", "sub", "sum", "tab", "ten", "tes", "tim", "tip", "top", "tot",
    "tup", "uni", "val", "var", "zer", "zip", "dik", "fag", "fuk", "guk", "jap", "jiz", "kik",
    "nazi", "nig", "puk", "rap", "tit", "vag",
];

/// Invents the name of a library, then `n_names` names in it. Within a library, no two names start
/// with the same three letters.
pub(super) fn invent(seed: u64, n_names: usize) -> (String, Vec<String>) {
    let mut rng = SeededRng::new(seed, "names");
    let mut names = vec![next(&mut rng, LIBRARY_SHAPES, seed, &[])];
    for _ in 0..n_names {
        names.push(next(&mut rng, FUNCTION_SHAPES, seed, &names));
    }
    let library = names.remove(0);
    (library, names)
}

/// Draws names until one is valid and belongs to the group of `seed`.
fn next(rng: &mut SeededRng, shapes: &[&str], seed: u64, taken: &[String]) -> String {
    loop {
        let name = spell(rng, shapes);
        let new = taken.iter().all(|other| other[..3] != name[..3]);
        if new && random::hash(&name) % N_GROUPS == seed % N_GROUPS && is_fit(&name) {
            return name;
        }
    }
}

fn spell(rng: &mut SeededRng, shapes: &[&str]) -> String {
    let shape = *rng.pick(shapes);
    let letter = |kind: u8| match kind {
        b'c' => char::from(*rng.pick(CONSONANTS)),
        b'v' => char::from(*rng.pick(VOWELS)),
        _ => char::from(*rng.pick(FINALS)),
    };
    shape.bytes().map(letter).collect()
}

/// Whether a name is neither a Python nor an English word, and does not suggest list operations.
pub(super) fn is_fit(name: &str) -> bool {
    let is_word = |text: &str| text.split_whitespace().any(|word| word == name);
    !is_word(PYTHON) && !is_word(WORDS) && !PIECES.iter().any(|piece| name.contains(piece))
}
