//! `rune config`.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::output;
use crate::config::Config;

/// Print settings
#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigArgs {
    /// Print the current settings
    Show {
        /// Print the origin of each value
        #[arg(long)]
        origin: bool,
    },
    /// Print every setting with its description and default
    Keys,
}

pub(super) fn run(context: &Context, args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let text = match args {
        ConfigArgs::Show { .. } if context.json => json_lines(&context.config)?,
        ConfigArgs::Show { origin: true } => with_origins(&context.config),
        ConfigArgs::Show { origin: false } => toml::to_string(&context.config)?,
        ConfigArgs::Keys => Config::DEFAULTS.to_owned(),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn json_lines(config: &Config) -> anyhow::Result<String> {
    let mut text = String::new();
    for entry in config.entries() {
        let value = serde_json::to_value(entry.value)?;
        let origin = entry.origin.to_string().replace('`', "");
        text += &json!({ "key": entry.key, "value": value, "origin": origin }).to_string();
        text.push('\n');
    }
    Ok(text)
}

fn with_origins(config: &Config) -> String {
    let row = |entry: crate::config::ConfigEntry<'_>| {
        vec![format!("{} = {}", entry.key, entry.value), format!("# {}", entry.origin)]
    };
    output::table(&config.entries().map(row).collect::<Vec<_>>())
}
