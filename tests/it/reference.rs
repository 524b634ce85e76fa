//! The pages of `docs/reference/` are generated from the code, and a page that differs fails.
//! `UPDATE_REFERENCE=1 cargo test --release --test it reference` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Tells that the pages shall be written, not compared.
const UPDATE: &str = "UPDATE_REFERENCE";

/// The first lines of a page.
fn page(title: &str, source: &str, text: &str) -> String {
    format!("# {title}\n\n<!-- Generated from {source} by `tests/it/reference.rs`. -->\n\n{text}")
}

fn check(name: &str, page: &str) {
    let path = Path::new("docs/reference").join(name);
    let page = page.trim_end().to_owned() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        fs::create_dir_all("docs/reference").unwrap();
        fs::write(&path, &page).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "`{}` is out of date: run with {UPDATE}=1", path.display());
}

fn help(command: &[&str]) -> String {
    let mut rune = Command::new(crate::sandbox::binary());
    rune.args(command).arg("--help").env_remove("RUNE_HOME").env("NO_COLOR", "1");
    String::from_utf8(rune.output().unwrap().stdout).unwrap()
}

/// The section of `rune COMMAND`, and those of its subcommands.
fn write_command(command: &[&str], text: &mut String) {
    let help = help(command);
    let level = "#".repeat(2 + command.len().min(2));
    let name = ["rune"].iter().chain(command).copied().collect::<Vec<_>>().join(" ");
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    writeln!(text, "{level} `{name}`\n\n```text\n{}\n```\n", lines.join("\n")).unwrap();
    let commands = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    for line in commands.lines().take_while(|line| line.starts_with("  ")) {
        let Some(name) = line.strip_prefix("  ").filter(|line| !line.starts_with(' ')) else {
            continue;
        };
        let name = name.split(' ').next().unwrap();
        if name != "help" {
            write_command(&[command, &[name]].concat(), text);
        }
    }
}

#[test]
fn cli_page_is_current() {
    let mut text = String::new();
    write_command(&[], &mut text);
    check("cli.md", &page("Command line", "`rune COMMAND --help`", &text));
}

#[test]
fn exit_code_page_is_current() {
    let help = help(&[]);
    let mut text = "| code | meaning |\n|---|---|\n".to_owned();
    for line in help.split("Exit codes:\n").nth(1).unwrap().lines() {
        let Some((code, meaning)) = line.trim().split_once(' ') else { break };
        writeln!(text, "| {code} | {} |", meaning.trim()).unwrap();
    }
    check("exit-codes.md", &page("Exit codes", "`rune --help`", &text));
}

/// What a value must be and what a project's file may do with it, by key: from
/// `src/config/keys.rs`.
fn key_rules() -> BTreeMap<String, (String, &'static str)> {
    let source = fs::read_to_string("src/config/keys.rs").unwrap();
    // A key that rustfmt has broken into several lines becomes one.
    let source = source.replace("key(\n        ", "key(").replace(",\n        ", ", ");
    let keys = source.lines().filter_map(|line| line.trim().strip_prefix("key(\""));
    keys.map(|line| {
        let (name, rest) = line.split_once('"').unwrap();
        let rule = rest.split("ValueRule::").nth(1).unwrap();
        let (kind, values) =
            rule.split_once(", ProjectRule").unwrap().0.split_once('(').unwrap_or((rule, ""));
        let values = values.trim_end_matches(')').trim_start_matches("&[").trim_end_matches(']');
        let value = match kind.split(',').next().unwrap() {
            "Range" => values.replace(", ", " to ").replace(".0", "").replace('_', ""),
            "OneOf" => values.replace('"', "`"),
            "Flag" => "`true`, `false`".to_owned(),
            "Filled" => "text, not empty".to_owned(),
            _ => "text".to_owned(),
        };
        let project = match rest.split("ProjectRule::").nth(1).unwrap().split(')').next().unwrap() {
            "Free" => "any value",
            "Lower" => "only a lower value",
            _ => "not allowed",
        };
        (name.to_owned(), (value, project))
    })
    .collect()
}

#[test]
fn config_page_is_current() {
    let rules = key_rules();
    let mut text = "Settings come from, in rising order of precedence: the defaults below, `config.toml` in Rune's\n\
        home, the project's `rune.toml`, environment variables such as `RUNE_RUN_MODEL`, and flags.\n\
        `rune config show` prints each value and where it comes from.\n"
        .to_owned();
    let (mut section, mut comment) = (String::new(), Vec::new());
    for line in fs::read_to_string("configs/default.toml").unwrap().lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            writeln!(text, "\n## `[{section}]`\n").unwrap();
            text += "| key | default | values | in a project's `rune.toml` | meaning |\n|---|---|---|---|---|\n";
        } else if let Some(words) = line.strip_prefix("# ") {
            comment.push(words.to_owned());
        } else if let Some((key, value)) = line.split_once(" = ") {
            let (values, project) = &rules[&format!("{section}.{key}")];
            let meaning = comment.join(" ");
            writeln!(text, "| `{key}` | `{value}` | {values} | {project} | {meaning} |").unwrap();
            comment.clear();
        } else {
            comment.clear();
        }
    }
    check(
        "config.md",
        &page("Configuration", "`configs/default.toml` and `src/config/keys.rs`", &text),
    );
}

/// A doc comment as one line, with its links as plain code.
fn doc_line(lines: &[&str]) -> String {
    let text = lines.join(" ");
    let mut plain = String::new();
    for (number, part) in text.split("[`").enumerate() {
        match part.split_once("`]") {
            Some((name, rest)) if number > 0 => {
                let rest = rest
                    .strip_prefix('(')
                    .and_then(|rest| rest.split_once(')'))
                    .map_or(rest, |(_, rest)| rest);
                write!(plain, "`{name}`{rest}").unwrap();
            }
            _ => plain += part,
        }
    }
    plain.replace('|', "\\|")
}

/// The members of the type that begins with the line `head` in a file: name, type and doc comment,
/// with the name that an attribute gives. Variants are followed by their fields.
fn members(path: &str, head: &str) -> Vec<(usize, String, String, String)> {
    let source = fs::read_to_string(path).unwrap();
    let body = source.split(&format!("\n{head} {{\n")).nth(1).unwrap();
    let (mut docs, mut renamed, mut found) = (Vec::new(), None, Vec::new());
    for line in body.lines().take_while(|line| *line != "}") {
        let (depth, line) = ((line.len() - line.trim_start().len()) / 4, line.trim());
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
        } else if let Some(name) = line.strip_prefix("#[serde(rename = \"") {
            renamed = name.split('"').next();
        } else if !line.starts_with("#[") && line.starts_with(|c: char| c.is_alphabetic()) {
            let line = line.trim_start_matches("pub ").trim_end_matches([',', '{', ' ']);
            let (name, kind) = line.split_once(": ").unwrap_or((line, ""));
            let name = renamed.take().unwrap_or(name.split('(').next().unwrap());
            let doc = docs.iter().take_while(|line| !line.is_empty()).copied().collect::<Vec<_>>();
            found.push((depth, name.to_owned(), kind.to_owned(), doc_line(&doc)));
            docs.clear();
        }
    }
    found
}

#[test]
fn event_page_is_current() {
    let mut text = "With `--json`, work prints one JSON object a line. Every line has `type`, `ts` (RFC 3339, UTC), `seq`\n\
        (gap-free, from 0) and `subject` (the id of a session or a training run, the name of a model\n\
        that is pulled, or empty), and the fields of its type. What `--json` prints at once, such as a list or a\n\
        plan, is a document without them. The JSON schema is `src/event/schema.json`.\n"
        .to_owned();
    for (depth, name, kind, doc) in members("src/event/kind.rs", "pub enum Event") {
        if depth == 1 {
            writeln!(text, "\n## `{name}`\n\n{doc}\n").unwrap();
        } else {
            writeln!(text, "- `{name}` (`{kind}`): {doc}").unwrap();
        }
    }
    check("events.md", &page("Events", "`src/event/kind.rs`", &text));
}

#[test]
fn home_page_is_current() {
    let source = fs::read_to_string("src/home.rs").unwrap();
    let mut text =
        "Rune keeps everything in one folder: `~/.rune`, or `--home`, or `RUNE_HOME`.\n\n\
        | path | content |\n|---|---|\n"
            .to_owned();
    let mut doc = String::new();
    for line in source.lines() {
        if let Some(words) = line.trim().strip_prefix("/// ") {
            doc = words.to_owned();
        } else if let Some(joins) = line.trim().strip_prefix("self.0.join(") {
            let parts = joins.split("join(").map(|part| part.split(')').next().unwrap());
            let parts = parts.map(|part| {
                if part.starts_with('"') { part.replace('"', "") } else { format!("<{part}>") }
            });
            writeln!(text, "| `{}` | {doc} |", parts.collect::<Vec<_>>().join("/")).unwrap();
        }
    }
    check("home-layout.md", &page("Layout of Rune's home", "`src/home.rs`", &text));
}

#[test]
fn task_file_page_is_current() {
    let mut text =
        "A task file (`rune run --task FILE` or `FILE:ID`) has one JSON object a line:\n\n\
        | field | type | meaning |\n|---|---|---|\n"
            .to_owned();
    for (_, name, kind, doc) in members("src/pipeline/task_file.rs", "struct TaskLine") {
        let kind = match kind.strip_prefix("Option<").map(|kind| kind.trim_end_matches('>')) {
            Some("TestsField") => "text, or a list of `{\"path\", \"text\"}`, optional".to_owned(),
            Some("TaskType") => {
                "one of `function`, `module`, `cli`, `fix`, `repo`, optional".to_owned()
            }
            Some(_) => "text, optional".to_owned(),
            None => "text".to_owned(),
        };
        writeln!(text, "| `{name}` | {kind} | {doc} |").unwrap();
    }
    let example = fs::read_to_string("tests/fixtures/tasks/eight.jsonl").unwrap();
    write!(text, "\nExample:\n\n```json\n{}\n```\n", example.lines().next().unwrap()).unwrap();
    check("task-file-format.md", &page("Task files", "`src/pipeline/task_file.rs`", &text));
}
