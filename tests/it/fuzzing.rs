//! No damaged input makes a parser of foreign bytes panic: the entry points of `fuzz/`, briefly.

use std::fs;

use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::TestRunner;
use rune::fuzzing::TARGETS;

/// Inputs of a target that are valid, or nearly so.
fn samples(target: &str) -> Vec<Vec<u8>> {
    let text = |text: &str| vec![text.as_bytes().to_vec()];
    match target {
        "gguf" => {
            let mut header = b"GGUF\x03\0\0\0".to_vec();
            header.extend(1_u64.to_le_bytes());
            header.extend(1_u64.to_le_bytes());
            header.extend(20_u64.to_le_bytes());
            header.extend(b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama");
            vec![header]
        }
        "safetensors" => {
            vec![fs::read("tests/fixtures/training/peft_all/adapter_model.safetensors").unwrap()]
        }
        "judge_channel" => text("{\"who\":\"coordinator\",\"collected\":[\"test_a.py::test\"]}\n"),
        "value_frame" => vec![vec![b'i', 42, 0, 0, 0], b"(\x02\0\0\0TF".to_vec()],
        "code_fences" => text("Here it is:\n```python\ndef f():\n    return 1\n```\nand\n~~~\nx\n"),
        "task_line" => fs::read("tests/fixtures/tasks/eight.jsonl").map(|all| vec![all]).unwrap(),
        "chat_records" => text(
            "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n",
        ),
        other => panic!("no samples for {other}"),
    }
}

/// Replaces, removes and repeats parts of `bytes`.
fn damaged(mut bytes: Vec<u8>, edits: &[(usize, u8, u8)]) -> Vec<u8> {
    for (at, kind, value) in edits {
        let at = at % (bytes.len() + 1);
        match kind % 4 {
            0 if at < bytes.len() => bytes[at] = *value,
            1 => bytes.truncate(at),
            2 => bytes.insert(at, *value),
            _ => {
                let end = (at + usize::from(*value)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

#[test]
fn parsers_of_foreign_bytes_never_panic() {
    for (name, parse) in TARGETS {
        for sample in samples(name) {
            let edits = prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 0..12);
            let mut runner =
                TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(400) });
            let found = runner.run(&edits, |edits| {
                parse(&damaged(sample.clone(), &edits));
                Ok(())
            });
            assert!(found.is_ok(), "{name}: {found:?}");
        }
    }
}
