//! Invented names: of a library, of its functions.

use super::random;
use super::random::SeededRng;

const CONSONANTS: &[u8] = b"bdfgjklmnprstvz";
const VOWELS: &[u8] = b"aeiou";
/// Last letters that are rare in English, so that few invented names are words.
const FINALS: &[u8] = b"bfgkmpvz";

/// Shapes of a name: `c` a consonant, `v` a vowel, `f` a last letter.
const LIBRARY_SHAPES: &[&str] = &["cvcvf"];
const FUNCTION_SHAPES: &[&str] = &["cvccvf", "cvcvcvf"];

/// Names are dealt out among this many groups of seeds.
const N_GROUPS: u64 = 64;

/// Names of Python's standard library and builtins, and its keywords, of five to seven letters.
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

/// English words, names of other Python packages and of tools that have the shape of a name.
const WORDS: &str = "
    bedlam begum bignum bitmap bottom burlap dalek datum debug dedup delim denim denom deref
    deriv develop fandom fantom forum galop gitlab golem gossip gulag gunzip jakub kebab kidnap
    kodak laptop libev libuv libzip lorem madam markup matlab minim minimum miniz modem mortem
    motif namib nizam nutmeg param pilaf pogrom popup purim ransom reflog remap remez retab
    rimraf rollup rustup salam salep salib sebum seldom serif serum setup signum sitemap subtag
    talib tandem tulip turnip velum venom verilog zigzag zulip
";

/// Pieces of words with a meaning for lists and numbers, and of rude ones; no name has one.
const PIECES: &[&str] = &[
    "abs", "add", "all", "any", "avg", "big", "bin", "bit", "bot", "dat", "del", "dif", "div",
    "dob", "dup", "end", "fin", "fir", "get", "int", "item", "las", "len", "lib", "lis", "log",
    "lon", "low", "map", "mas", "max", "med", "mem", "mid", "min", "mod", "mul", "neg", "nul",
    "num", "odd", "ord", "pair", "pop", "pos", "red", "ref", "rep", "res", "ret", "rev", "rot",
    "run", "set", "siz", "sor", "sub", "sum", "tab", "ten", "tes", "tim", "tip", "top", "tot",
    "tup", "uni", "val", "var", "zer", "zip", "dik", "fag", "fuk", "guk", "jap", "jiz", "kik",
    "nazi", "nig", "puk", "rap", "tit", "vag",
];

/// Invents a library's name, then `n_names` names of what is in it. Within a library no two names
/// begin with the same three letters.
pub(super) fn invent(seed: u64, n_names: usize) -> (String, Vec<String>) {
    let mut rng = SeededRng::new(seed, "names");
    let mut names = vec![next(&mut rng, LIBRARY_SHAPES, seed, &[])];
    for _ in 0..n_names {
        names.push(next(&mut rng, FUNCTION_SHAPES, seed, &names));
    }
    let library = names.remove(0);
    (library, names)
}

/// Tries names until one is fit and belongs to the group of `seed`.
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

/// Whether a name is no word of Python or English and reminds of none about lists.
pub(super) fn is_fit(name: &str) -> bool {
    let is_word = |text: &str| text.split_whitespace().any(|word| word == name);
    !is_word(PYTHON) && !is_word(WORDS) && !PIECES.iter().any(|piece| name.contains(piece))
}
