//! [`Context`]: Rune's home, the settings and the output options of every subcommand.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use anyhow::ensure;
use clap::ColorChoice;

use crate::cli::output;
use crate::config::Config;
use crate::config::ConfigLayer;
use crate::config::ValueOrigin;
use crate::failpoint;
use crate::home::Home;
use crate::registry::Registry;
use crate::repository;

/// Flags that every subcommand accepts.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct GlobalArgs {
    /// Rune's home folder [default: ~/.rune]
    #[arg(long, global = true, env = "RUNE_HOME", value_name = "DIR", hide_env_values = true)]
    home: Option<PathBuf>,
    /// Print JSON lines to stdout
    #[arg(long, global = true)]
    json: bool,
    /// Do not print progress
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print more to stderr; repeat for even more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// When to use colors
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

impl GlobalArgs {
    /// Whether `--json` is set.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Whether to color stderr.
    pub(super) fn colors_stderr(&self) -> bool {
        output::colors(self.color, &io::stderr())
    }
}

/// Environment of a subcommand.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Context {
    /// Rune's home, which may not exist yet.
    pub(super) home: Home,
    /// Settings from all layers.
    pub(super) config: Config,
    /// Whether to color stdout.
    pub(super) color: bool,
    /// Whether to color stderr.
    pub(super) color_stderr: bool,
    /// Whether to suppress progress.
    pub(super) quiet: bool,
    /// Whether to print more details.
    pub(super) verbose: bool,
    /// Whether to print JSON lines.
    pub(super) json: bool,
}

impl Context {
    /// Reads the environment and the configuration files. `settings` are those given by a
    /// subcommand's flags.
    pub(super) fn load(
        globals: &GlobalArgs,
        settings: Vec<(&'static str, toml::Value)>,
    ) -> anyhow::Result<Self> {
        start_log(globals);
        if let Ok(name) = env::var("RUNE_FAILPOINT") {
            ensure!(failpoint::arm(&name), "unknown failpoint `{name}`");
        }
        let home = Home::new(match &globals.home {
            Some(home) => std::path::absolute(home).context("cannot determine Rune's home")?,
            None => env::home_dir().context("cannot determine the user's home")?.join(".rune"),
        });
        let mut layers = Vec::new();
        let user = home.config();
        layers.extend(layer(&user, ValueOrigin::User(user.clone()))?);
        if let Some(project) = project_file(&env::current_dir()?) {
            layers.extend(layer(&project, ValueOrigin::Project(project.clone()))?);
        }
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        layers.push(ConfigLayer::from_env(env::vars_os().filter_map(text))?);
        layers.push(ConfigLayer::from_flags(settings));
        Ok(Self {
            home,
            config: Config::load(&layers)?,
            color: output::colors(globals.color, &io::stdout()),
            color_stderr: globals.colors_stderr(),
            quiet: globals.quiet,
            verbose: globals.verbose > 0,
            json: globals.json,
        })
    }

    /// Creates Rune's home with mode 0700 unless it exists.
    pub(super) fn make_home(&self) -> anyhow::Result<()> {
        let home = self.home.path().display();
        self.home.create().with_context(|| format!("cannot create Rune's home `{home}`"))
    }

    /// Opens the registry, which is created if necessary.
    pub(super) fn registry(&self) -> anyhow::Result<Arc<Registry>> {
        self.make_home()?;
        Ok(Arc::new(Registry::open(&self.home.registry())?))
    }

    /// Returns the project key: the setting, else the digest of the git root commit, else `none`.
    pub(super) fn project(&self) -> String {
        match self.config.run.project.as_str() {
            "" => repository::project_key(Path::new(".")).unwrap_or_else(|| "none".to_owned()),
            project => project.to_owned(),
        }
    }

    /// Returns the configured Python, else the first `python3` in PATH.
    pub(super) fn python(&self) -> Option<PathBuf> {
        match self.config.sandbox.python.as_str() {
            "" => find_program("python3"),
            python => Some(PathBuf::from(python)),
        }
    }
}

/// Finds the first executable called `name` in PATH.
fn find_program(name: &str) -> Option<PathBuf> {
    let is_executable = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(is_executable)
}

/// Reads the settings of one file; `None` if it does not exist.
fn layer(path: &Path, origin: ValueOrigin) -> anyhow::Result<Option<ConfigLayer>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(ConfigLayer::parse(origin, &text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}

/// Finds the nearest `rune.toml` from `folder` up to the root of its git repository. Outside of a
/// repository only `folder` itself is searched.
fn project_file(folder: &Path) -> Option<PathBuf> {
    let root = folder.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(folder);
    let inside = folder.ancestors().take_while(|folder| folder.starts_with(root));
    inside.map(|folder| folder.join("rune.toml")).find(|path| path.is_file())
}

/// Sends the log to stderr. `RUNE_LOG` sets the level, else `--quiet` and `--verbose` do.
fn start_log(globals: &GlobalArgs) {
    let level = match (globals.quiet, globals.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("RUNE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    // Never colored: `tracing-subscriber` is built without its feature `ansi`, and complains on
    // stderr if colors are requested anyway.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Fails only if a subscriber is already set, as in tests.
    let _already_set = log.try_init();
}
