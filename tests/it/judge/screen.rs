//! Every construct of `screen.json` is found, and ordinary code is clean.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use serde_json::json;

/// Makes a file, `name|text`, that contains a construct of the list.
type Form = dyn Fn(&str) -> String;

/// Runs `screen.py` on each of `sources` and returns their numbers of findings.
fn findings(sources: &[String]) -> Vec<usize> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/judge/python");
    let program = "
import json, os, sys, tempfile
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import standard
sys.modules['rune_standard'] = standard
import screen
constructs = json.load(open(sys.argv[1] + '/screen.json'))
counts = []
for source in json.loads(sys.argv[2]):
    with tempfile.TemporaryDirectory() as folder:
        name, _, text = source.partition('|')
        with open(os.path.join(folder, name), 'w') as file:
            file.write(text)
        counts.append(len(screen.findings(folder, constructs)))
print(json.dumps(counts))
";
    let sources = json!(sources).to_string();
    let mut command = Command::new("python3");
    let output = command.args(["-c", program]).arg(python).arg(sources).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn constructs() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/judge/python/screen.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_construct_of_the_screen_is_found() {
    let constructs = constructs();
    let words = |key: &str| -> Vec<String> {
        let words = constructs[key].as_array().unwrap().iter();
        words.map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let forms: [(&str, &Form); 9] = [
        ("modules", &|word| format!("work.py|import {word}")),
        ("attributes", &|word| format!("work.py|x = y.{word}")),
        ("assigned", &|word| format!("work.py|y.{word} = 1")),
        ("definitions", &|word| format!("work.py|class C:\n    def {word}(self): pass")),
        ("names", &|word| format!("work.py|x = {word}")),
        ("raised", &|word| format!("work.py|raise {word}")),
        ("dotted", &|word| {
            let (module, name) = word.rsplit_once('.').unwrap();
            if module.contains('.') {
                format!("work.py|from {module} import {name}\nx = {name}")
            } else {
                format!("work.py|import {module}\nx = {word}")
            }
        }),
        ("texts", &|word| format!("work.py|x = {:?}", format!("a{word}b"))),
        ("files", &|word| format!("{word}|")),
    ];
    let mut missed = Vec::new();
    for (key, form) in forms {
        let sources: Vec<String> = words(key).iter().map(|word| form(word)).collect();
        let found = findings(&sources).into_iter().zip(&sources);
        missed.extend(found.filter(|(n, _)| *n == 0).map(|(_, source)| source.clone()));
    }
    let endings: Vec<String> = words("endings").iter().map(|end| format!("a{end}|")).collect();
    let found = findings(&endings).into_iter().zip(&endings);
    missed.extend(found.filter(|(n, _)| *n == 0).map(|(_, source)| source.clone()));
    assert_eq!(missed, [""; 0]);
}

#[test]
fn ordinary_code_is_clean() {
    let sources = [
        "import sys\nprint(sys.argv, file=sys.stderr)\nsys.exit(0)",
        "import re, json, math, collections\nclass Stack:\n    def __init__(self): self.items = []\n    def push(self, item): self.items.append(item)",
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int = 0\n    def __repr__(self): return f'{self.x}'",
        "def words(text):\n    for word in text.split():\n        yield word.lower()\ndef first(items):\n    return next(iter(items), None)",
        "import itertools, functools\n@functools.lru_cache\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)",
    ];
    let sources = sources.map(|source| format!("work.py|{source}"));
    assert_eq!(findings(&sources), [0; 5]);
}
