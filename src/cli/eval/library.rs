//! `rune eval library`: a synthetic library, records that teach it and tasks that need it.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::exit::HintedError;
use crate::cli::output;
use crate::evaluation::EvalTask;
use crate::evaluation::TaskSuite;
use crate::synthetic;
use crate::synthetic::FIRST_RESERVED_SEED;
use crate::synthetic::LibraryRecord;
use crate::synthetic::RecordOptions;
use crate::synthetic::SyntheticLibrary;
use crate::training::TrainingRecord;

#[derive(Debug, clap::Args)]
pub(super) struct LibraryArgs {
    /// Random seed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..FIRST_RESERVED_SEED))]
    seed: u64,
    /// Number of functions, 6 to 40
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(6..=40))]
    functions: u16,
    /// Write only train.jsonl, with N records that teach to read: each has a document in front of
    /// the question, about a library of its own that no seed gives
    #[arg(long, value_name = "N", conflicts_with_all = ["seed", "functions"], value_parser = clap::value_parser!(u16).range(1..))]
    reader: Option<u16>,
    /// Output folder for lib/, train.jsonl and suite.jsonl; must not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes `files` into the new folder `out`.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if `out` exists.
fn write_new(out: &Path, files: &[(String, String)]) -> io::Result<()> {
    fs::create_dir_all(out.parent().unwrap_or(Path::new("")))?;
    fs::create_dir(out)?;
    for (name, text) in files {
        let path = out.join(name);
        fs::create_dir_all(path.parent().unwrap_or(out))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Says that the output folder could not be written.
fn not_created(out: &Path) -> String {
    format!("cannot create the folder `{}`", out.display())
}

/// Renders records as the lines of a training file.
fn lines(records: &[LibraryRecord]) -> serde_json::Result<String> {
    let line = |record: &LibraryRecord| {
        Ok(serde_json::to_string(&TrainingRecord::from(record.clone()))? + "\n")
    };
    records.iter().map(line).collect()
}

/// Generates a library and writes its package, training records and task suite; or the records of
/// the reader.
pub(super) fn invent(args: &LibraryArgs) -> anyhow::Result<ExitCode> {
    if let Some(n) = args.reader {
        let files = [("train.jsonl".to_owned(), lines(&synthetic::reader_records(n.into()))?)];
        write_new(&args.out, &files).with_context(|| not_created(&args.out))?;
        output::print(&format!("{n} records, each about another library\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let library = SyntheticLibrary::invent(args.seed, args.functions.into());
    let records = library.training(RecordOptions::default());
    let tasks = library.tasks(4);
    let leaks = synthetic::leaks(&records, &tasks);
    if let Some(leak) = leaks.first() {
        let message = format!("seed {} gives tasks that are not held out: {leak}", args.seed);
        return Err(HintedError::new(message, "choose another --seed").into());
    }
    let suite = TaskSuite::new(library.name(), tasks.into_iter().map(EvalTask::from).collect());
    let files = [
        (format!("lib/{}/__init__.py", library.name()), library.module_source()),
        ("README.md".to_owned(), library.readme()),
        ("train.jsonl".to_owned(), lines(&records)?),
        ("suite.jsonl".to_owned(), suite.to_lines()),
    ];
    write_new(&args.out, &files).with_context(|| not_created(&args.out))?;
    output::print(&format!(
        "{}: {} functions, {} records, {} tasks\n",
        library.name(),
        library.functions().len(),
        records.len(),
        suite.n_tasks()
    ))?;
    Ok(ExitCode::SUCCESS)
}
