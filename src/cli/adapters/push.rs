//! `rune adapters push`.

use serde_json::json;

use crate::adapter::Adapter;
use crate::cli::context::Context;
use crate::cli::exit::HintedError;
use crate::cli::models;
use crate::cli::output;
use crate::cli::providers::server_of;
use crate::cli::runtime;
use crate::cli::screen::Screen;
use crate::provider::PushedAdapter;
use crate::registry::AdapterStore;

/// Gives an adapter to the configured server, and returns what to print.
pub(super) fn push(
    context: &Context,
    store: &AdapterStore,
    adapter: &Adapter,
) -> anyhow::Result<String> {
    server_of(&context.config)?;
    let screen = Screen::of_document(context);
    let (folder, files) = (store.path(&adapter.id), context.home.served());
    let pushed = runtime::block_on(|shutdown| async move {
        let work = async {
            let server = models::source(context).connect(&context.config, &screen).await?;
            let base = server.base().base_model;
            if base != adapter.base_model {
                let message = format!(
                    "adapter `{}` was made for {}, and the server has {base}",
                    adapter.id, adapter.base_model
                );
                let hint = "if it is the same model, name it in `server.base_model`";
                return Err(HintedError::new(message, hint).into());
            }
            Ok::<_, anyhow::Error>(server.push_adapter(&folder, &files).await?)
        };
        shutdown.or_stop(work).await?
    })?;
    Ok(match pushed {
        PushedAdapter::Served(name) if context.json => {
            format!("{}\n", json!({ "adapter": adapter.id, "name": name, "served": true }))
        }
        PushedAdapter::NeedsRestart(file) if context.json => {
            format!("{}\n", json!({ "adapter": adapter.id, "file": file, "served": false }))
        }
        PushedAdapter::Served(name) => format!("{name}\n"),
        PushedAdapter::NeedsRestart(file) => {
            output::note("restart llama-server and add this file to its `--lora` list");
            format!("{}\n", file.display())
        }
    })
}
