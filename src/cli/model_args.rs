//! [`ModelArgs`]: the model that answers, and where it runs.

use std::path::Path;

/// Arguments that choose the model and its backend.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ModelArgs {
    /// Base model: a name from `rune models list`, or the path of a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    pub(super) model: Option<String>,
    /// Inference backend: in-process; llama-cpp, vllm, ollama or openai (any other compatible API)
    /// for the server of --url; or scripted [default: in-process, with --url openai]
    #[arg(long, value_name = "NAME")]
    pub(super) provider: Option<String>,
    /// URL of the model server, without `/v1`
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
    /// Canned answers for the scripted provider
    #[arg(long, value_name = "FILE")]
    pub(super) script: Option<String>,
}

impl ModelArgs {
    /// Returns the settings given by flags, as pairs of key and value.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&'static str, toml::Value)> + use<> {
        let implied = match (&self.script, &self.url) {
            (Some(_), _) => Some("scripted".to_owned()),
            (None, Some(_)) => Some("openai".to_owned()),
            (None, None) => None,
        };
        let all = [
            ("run.model", self.model.clone()),
            ("run.provider", self.provider.clone().or(implied)),
            ("run.scripted", self.script.clone()),
            ("server.url", self.url.clone()),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, toml::Value::String(value?))))
    }

    /// Returns the same with paths that mean the same from every folder.
    pub(super) fn with_absolute_paths(&self) -> Self {
        let is_path = |name: &&String| Path::new(name.as_str()).is_file();
        let model = self.model.as_ref().filter(is_path).and_then(absolute);
        Self {
            model: model.or_else(|| self.model.clone()),
            script: self.script.as_ref().and_then(absolute),
            ..self.clone()
        }
    }
}

/// Returns a path that does not depend on the current folder.
pub(super) fn absolute(path: impl AsRef<Path>) -> Option<String> {
    std::path::absolute(path).ok().map(|path| path.display().to_string())
}
