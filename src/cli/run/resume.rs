//! Sessions that are gone on with.

use anyhow::Context as _;
use anyhow::bail;

use crate::cli::context::Context;
use crate::cli::run::Args;
use crate::config::Config;
use crate::config::Layer;
use crate::registry::Registry;
use crate::trajectory::Session;

/// The session to go on with; refused early what would be refused after the model is loaded.
pub(super) fn session(registry: &Registry, id: &str, args: &Args) -> anyhow::Result<Session> {
    let session = registry.resumable(id)?;
    // What was run without a jail must stay marked as such, and a mark is never changed.
    if args.unsafe_no_sandbox && session.sandbox_tier != "none" {
        bail!("session `{id}` was begun in a sandbox and does not go on without one");
    }
    Ok(session)
}

/// The settings that the session was begun with, below the flags of today: other settings ask other
/// questions, to which the recorded answers are none.
pub(super) fn context(
    context: &Context,
    session: &Session,
    args: &Args,
) -> anyhow::Result<Context> {
    let recorded = context.config.entries().filter_map(|entry| {
        let (section, name) = entry.key.split_once('.')?;
        let value = session.config_json.get(section)?.get(name)?;
        Some((entry.key, toml::Value::try_from(value).ok()?))
    });
    let layers = [Layer::from_flags(recorded), Layer::from_flags(args.settings())];
    let config = Config::load(&layers)
        .with_context(|| format!("the recorded settings of session `{}`", session.id))?;
    Ok(Context { config, ..context.clone() })
}
