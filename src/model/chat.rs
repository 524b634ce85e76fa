//! A chat as one prompt, by the template that the model was trained with.

use minijinja::Environment;
use minijinja::ErrorKind;
use minijinja::context;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;

use super::ModelError;
use super::gguf::Gguf;
use super::gguf::Value;
use super::tokenizer::Tokenizer;
use crate::trajectory::Message;

/// The template of a GGUF file, ready to render.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    control: Vec<String>,
}

impl ChatTemplate {
    /// Reads and compiles `tokenizer.chat_template`.
    pub(super) fn load(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the default delimiters differ"));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<(), _> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        let source = gguf.text("tokenizer.chat_template")?.to_owned();
        environment.add_template_owned("chat", source).map_err(|error| ModelError::Malformed {
            path: gguf.path().to_owned(),
            reason: format!("its chat template does not compile: {error}"),
        })?;
        let named = |key| match gguf.get(key) {
            Some(Value::Int(id)) => named_token(gguf, *id),
            _ => String::new(),
        };
        Ok(Self {
            environment,
            bos: named("tokenizer.ggml.bos_token_id"),
            eos: named("tokenizer.ggml.eos_token_id"),
            control: tokenizer.control_texts(),
        })
    }

    /// Renders `messages` and the head of the model's turn. What looks like a control token within a message is
    /// broken up by a blank, so that no text can end its own turn.
    pub(super) fn render(&self, messages: &[Message]) -> Result<String, ModelError> {
        let messages: Vec<Message> = messages
            .iter()
            .map(|message| Message { role: message.role, content: self.plain(&message.content) })
            .collect();
        let template = self.environment.get_template("chat").expect("added when loaded");
        template
            .render(context! {
                messages => Serde(messages),
                add_generation_prompt => true,
                bos_token => &self.bos,
                eos_token => &self.eos,
            })
            .map_err(|error| ModelError::ChatTemplate(error.to_string()))
    }

    fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for control in &self.control {
            if text.contains(control.as_str()) {
                let (head, tail) = control.split_at(control.ceil_char_boundary(1));
                text = text.replace(control.as_str(), &format!("{head} {tail}"));
            }
        }
        text
    }
}

fn named_token(gguf: &Gguf, id: i64) -> String {
    let tokens = gguf.array("tokenizer.ggml.tokens").unwrap_or_default();
    match usize::try_from(id).ok().and_then(|id| tokens.get(id)) {
        Some(Value::Text(token)) => token.clone(),
        _ => String::new(),
    }
}
