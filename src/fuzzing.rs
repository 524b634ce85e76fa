//! Entry points for fuzzing: every parser of foreign bytes as a function that must not panic.
//!
//! `fuzz/` runs them under libFuzzer, and `tests/it/fuzzing.rs` runs them on damaged samples in
//! every test run.

use std::io::Write;
use std::path::Path;

use crate::judge;
use crate::model;
use crate::peft::PeftFiles;
use crate::pipeline;
use crate::training::TrainingRecord;

/// A parser that must not panic, whatever it is given.
pub type EntryPoint = fn(&[u8]);

/// All entry points by name.
pub const TARGETS: &[(&str, EntryPoint)] = &[
    ("gguf", gguf),
    ("safetensors", safetensors),
    ("judge_channel", judge_channel),
    ("value_frame", value_frame),
    ("code_fences", code_fences),
    ("task_line", task_line),
    ("chat_records", chat_records),
];

/// A GGUF file: header, metadata, tensor directory.
pub fn gguf(bytes: &[u8]) {
    with_file(bytes, |path| drop(model::identify(path)));
}

/// The weights of an adapter, beside a valid configuration.
pub fn safetensors(bytes: &[u8]) {
    let config = br#"{"peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":["q_proj"]}"#;
    drop(PeftFiles::parse(config.to_vec(), bytes.to_vec()));
}

/// What the judge's coordinator reports.
pub fn judge_channel(bytes: &[u8]) {
    judge::read_channel(bytes);
}

/// A value that judged code returned.
pub fn value_frame(bytes: &[u8]) {
    judge::read_value(bytes);
}

/// An answer of the model.
pub fn code_fences(bytes: &[u8]) {
    drop(pipeline::code_blocks(&String::from_utf8_lossy(bytes)));
}

/// A line of a task file.
pub fn task_line(bytes: &[u8]) {
    pipeline::is_task_line(&String::from_utf8_lossy(bytes));
}

/// A file of chats to train on.
pub fn chat_records(bytes: &[u8]) {
    with_file(bytes, |path| drop(TrainingRecord::read_all(path)));
}

/// Calls `read` with the path of a file that holds `bytes`.
fn with_file(bytes: &[u8], read: impl FnOnce(&Path)) {
    let mut file = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    file.write_all(bytes).expect("the temporary folder has room");
    read(file.path());
}
