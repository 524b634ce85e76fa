//! Data files beside a single test file: as many as fit, those that the tests mention first.

use std::path::Path;
use std::path::PathBuf;

use super::collector::FileCollector;
use super::collector::FoundFile;
use super::error::OmittedFile;
use super::error::SuiteError;
use super::error::size_text;
use super::is_python;
use super::root;

/// Maximum number of data files.
const MAX_FILES: usize = 1_000;
/// Maximum bytes of all data files, which are stored with the task.
const MAX_BYTES: u64 = 16 << 20;
/// Maximum omitted files that are reported one by one.
const NAMED: usize = 5;

/// A data file, with its importance to the tests.
struct DataFile {
    name: String,
    file: FoundFile,
    is_mentioned: bool,
    depth: usize,
}

/// Adds the data files below `folder` to `files`. `texts` are the sources of the tests and their
/// helpers. If `folder` is a project root, only the folders that these mention are visited: the
/// others do not belong to the tests.
pub(super) fn add_data(
    files: &mut FileCollector,
    folder: &Path,
    texts: &[String],
    new_walk: FileCollector,
) -> Result<(), SuiteError> {
    let is_mentioned = |name: &str| texts.iter().any(|text| text.contains(name));
    let is_project = root::is_project(folder);
    let mut walk = new_walk;
    let is_whole = walk.add_nearby(folder, |name| !is_project || is_mentioned(name))?;
    let mut found: Vec<DataFile> = Vec::new();
    for (name, file) in std::mem::take(&mut walk.found) {
        let inside = file.path.strip_prefix(folder).unwrap_or(&file.path);
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        // Tests often build a path from its parts, so the name of any part counts.
        let is_mentioned = parts.iter().any(|part| is_mentioned(part));
        let is_hidden = parts.last().is_some_and(|name| name.starts_with('.'));
        if is_python(&file.path) || (is_hidden && !is_mentioned) {
            continue;
        }
        found.push(DataFile { depth: parts.len(), is_mentioned, name, file });
    }
    // Mentioned files first, then those nearest to the tests: the rest may not fit.
    found.sort_by_key(|data| (!data.is_mentioned, data.depth, data.name.clone()));
    let omitted = take_what_fits(files, found);
    files.omitted.append(&mut walk.omitted);
    files.omitted.extend(summary(folder, &omitted, is_whole));
    Ok(())
}

/// Moves files to `files` as long as they fit the limits; returns the others.
fn take_what_fits(files: &mut FileCollector, found: Vec<DataFile>) -> Vec<FoundFile> {
    let (mut count, mut n_bytes, mut omitted) = (0, 0, Vec::new());
    for DataFile { name, file, .. } in found {
        if count < MAX_FILES && n_bytes + file.n_bytes <= MAX_BYTES {
            count += 1;
            n_bytes += file.n_bytes;
            files.found.entry(name).or_insert(file);
        } else {
            omitted.push(file);
        }
    }
    omitted
}

/// Reports the files that did not fit: the first ones by name, the others as a total.
fn summary(folder: &Path, omitted: &[FoundFile], is_whole: bool) -> Vec<OmittedFile> {
    let of_file = |file: &FoundFile| OmittedFile {
        path: file.path.clone(),
        reason: format!("{} of data do not fit beside the test file", size_text(file.n_bytes)),
    };
    let rest = omitted.get(NAMED..).unwrap_or_default();
    let n_bytes: u64 = rest.iter().map(|file| file.n_bytes).sum();
    let of_rest = OmittedFile {
        path: PathBuf::from(folder),
        reason: format!("{} more data files, {} in all", rest.len(), size_text(n_bytes)),
    };
    let of_unseen = OmittedFile {
        path: PathBuf::from(folder),
        reason: "there are too many files to look at".to_owned(),
    };
    let named = omitted.iter().take(NAMED).map(of_file);
    let rest = (!rest.is_empty()).then_some(of_rest);
    named.chain(rest).chain((!is_whole).then_some(of_unseen)).collect()
}
