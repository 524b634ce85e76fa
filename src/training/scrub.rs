//! Redacts secrets in records before they are trained on.

use std::sync::LazyLock;

use regex::Captures;
use regex::Regex;

use super::record::TrainingRecord;

/// Replacement for a secret.
const REDACTED: &str = "[redacted]";
/// Minimum length of a word that may be a key.
const KEY_LENGTH: usize = 32;
/// Minimum entropy of a key, in bits per character. Hexadecimal digests have at most 4.
const KEY_BITS: f64 = 4.2;

/// Formats of secrets that are recognizable by their prefix or context: private keys, keys of AWS,
/// `GitHub`, `GitLab`, `OpenAI`, Hugging Face, Slack and Google, passwords in URLs, and JWTs.
static PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----",
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
        r"\bgh[pousr]_[A-Za-z0-9]{20,}\b",
        r"\bgithub_pat_[A-Za-z0-9_]{20,}\b",
        r"\bglpat-[A-Za-z0-9_-]{20,}",
        r"\bsk-[A-Za-z0-9_-]{20,}",
        r"\bhf_[A-Za-z0-9]{20,}\b",
        r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
        r"\bAIza[0-9A-Za-z_-]{35}\b",
        r"://[^/\s:@]+:[^@\s/]+@",
        r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    ]
    .iter()
    .map(|pattern| Regex::new(pattern).expect("the patterns are well formed"))
    .collect()
});

/// Names of variables that hold secrets. A name that merely ends in `token` counts only if the
/// value looks like a key.
const NAMES: &str =
    r"(?i)\b[a-z0-9_]*(?:password|passwd|secret(?:_?key)?|private_?key|api_?key|access_?key|token)";

/// A quoted value assigned to the name of a secret.
static QUOTED: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = format!(r#"({NAMES}["']?\s*[:=]\s*)(["'])([^"'\n]{{6,}})(["'])"#);
    Regex::new(&pattern).expect("the pattern is well formed")
});

/// An unquoted value at the end of a line, as in a configuration file.
static BARE: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = format!(r"(?m)({NAMES}[ \t]*[:=][ \t]*)([^\s'()\[\],.#]{{6,}})[ \t]*$");
    Regex::new(&pattern).expect("the pattern is well formed")
});

static WORD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[A-Za-z0-9+/_=-]{32,}").expect("the pattern is well formed"));

/// Redacts keys, named secrets, words that look like keys, and the path of the user's home
/// directory in a record. Returns the number of redactions.
pub(super) fn scrub(record: &mut TrainingRecord, home: &str) -> usize {
    let mut n = 0;
    for (role, text) in record.messages.iter_mut().map(|m| (m.role, &mut m.content)) {
        let (clean, found) = scrubbed(text, home);
        n += found;
        if found > 0 {
            *text = clean;
            if role == crate::trajectory::Role::Assistant {
                // Byte offsets in this answer are no longer valid.
                record.weights.clear();
            }
        }
    }
    n
}

fn scrubbed(text: &str, home: &str) -> (String, usize) {
    // Specific rules first: the entropy rule is for keys that have no recognizable form.
    let mut n = 0;
    let mut text = text.to_owned();
    for pattern in PATTERNS.iter() {
        text = pattern
            .replace_all(&text, |_: &Captures<'_>| {
                n += 1;
                REDACTED
            })
            .into_owned();
    }
    text = QUOTED
        .replace_all(&text, |found: &Captures<'_>| {
            if is_bare_token(&found[1]) && !looks_random(&found[3]) {
                return found[0].to_owned();
            }
            n += 1;
            format!("{}{}{REDACTED}{}", &found[1], &found[2], &found[4])
        })
        .into_owned();
    text = BARE
        .replace_all(&text, |found: &Captures<'_>| {
            // Unquoted values are mostly code, such as `token = next_token`. Those of real secrets
            // nearly always have digits.
            if found[2].contains('"') || !looks_random(&found[2]) {
                return found[0].to_owned();
            }
            n += 1;
            format!("{}{REDACTED}", &found[1])
        })
        .into_owned();
    text = WORD
        .replace_all(&text, |found: &Captures<'_>| {
            let word = &found[0];
            if word.len() < KEY_LENGTH || entropy(word) < KEY_BITS || is_name(word) {
                return word.to_owned();
            }
            n += 1;
            REDACTED.to_owned()
        })
        .into_owned();
    if home.len() > 1 && text.contains(home) {
        n += text.matches(home).count();
        text = text.replace(home, "~");
    }
    (text, n)
}

/// Whether a name may mean a token of a parser as well as an access token.
fn is_bare_token(name: &str) -> bool {
    let name = name.trim_end_matches([' ', '\t', ':', '=', '"', '\'']).to_lowercase();
    name.ends_with("token")
        && !["access", "auth", "refresh", "api"].iter().any(|w| name.contains(w))
}

/// Whether a value has letters and digits, as random values have and names seldom do.
fn looks_random(value: &str) -> bool {
    value.chars().any(|c| c.is_ascii_digit()) && value.chars().any(|c| c.is_ascii_alphabetic())
}

/// Whether a word is a name or path rather than a key. A key mixes digits and both cases, or has
/// many digits in a long segment between separators.
#[expect(clippy::cast_precision_loss, reason = "words are short")]
fn is_name(word: &str) -> bool {
    let has = |test: fn(&char) -> bool| word.chars().any(|c| test(&c));
    let n_digits = word.chars().filter(char::is_ascii_digit).count();
    let longest = word.split(['_', '-', '/']).map(str::len).max().unwrap_or(0);
    let is_dense = longest >= 20 && n_digits as f64 >= 0.1 * word.len() as f64;
    let is_mixed = n_digits > 0 && has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase);
    !(is_mixed || is_dense)
}

/// Shannon entropy of the characters, in bits per character.
#[expect(clippy::cast_precision_loss, reason = "words are short")]
fn entropy(word: &str) -> f64 {
    let mut counts = [0_u32; 128];
    word.bytes().for_each(|byte| counts[usize::from(byte & 127)] += 1);
    let part = |count: &u32| f64::from(*count) / word.len() as f64;
    counts.iter().filter(|count| **count > 0).map(part).map(|p| -p * p.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::scrubbed;

    #[test]
    fn secrets_are_redacted_and_code_is_unchanged() {
        let key = ["sk", "-abcdefghijklmnop", "qrstuvwx"].concat();
        let secret = [
            format!("client = Client('{key}')"),
            "DB_PASSWORD = 'hunter2hunter2'".to_owned(),
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----".to_owned(),
            "token: q7Zk3Wm9Xv2Lp8Rt5Yb1Nc6Hd4Jf0Gs9Qa3e".to_owned(),
            "open('/home/ada/notes.txt')".to_owned(),
            "{\"password\": \"hunter2hunter2\"}".to_owned(),
            "SECRET_KEY = 'django-insecure-#a$b c'".to_owned(),
            "token = \"a1b2c3d4e5\"".to_owned(),
            "DB_PASSWORD=hunter2hunter2".to_owned(),
            "  api_key: abc123def456\n  other: 1".to_owned(),
            "postgres://app:hunter2@db/x".to_owned(),
            "k = q7zk3wm9xv2lp8rt5yb1nc6hd4jf0gs9qa3e".to_owned(),
        ];
        for text in &secret {
            assert_eq!(scrubbed(text, "/home/ada").1, 1, "{text}");
        }
        for text in [
            "digest = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'",
            "def a_very_long_function_name_that_tells_a_story_of_its_own(): pass",
            "if password == given: return True",
            "token = \"NUMBER\"",
            "    token = next_token",
            "password = read_password()",
            "results_2024/test_of_many_things_in_one_file_v2",
        ] {
            assert_eq!(scrubbed(text, "/home/ada"), (text.to_owned(), 0));
        }
        assert_eq!(scrubbed(&secret[1], "/").0, "DB_PASSWORD = '[redacted]'");
    }
}
