//! Renders chats with the Jinja template that the model was trained with.

use std::ops::Range;
use std::path::Path;

use minijinja::Environment;
use minijinja::ErrorKind;
use minijinja::context;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;

use super::ModelError;
use super::gguf::GgufFile;
use super::gguf::MetadataValue;
use super::tokenizer::Tokenizer;
use crate::trajectory::Message;
use crate::trajectory::Role;

/// The compiled chat template of a GGUF file.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    control: Vec<String>,
}

impl ChatTemplate {
    /// Reads and compiles `tokenizer.chat_template`.
    pub(super) fn load(gguf: &GgufFile, tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        // The settings that transformers renders chat templates with.
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
            reason: format!("the chat template does not compile: {error}"),
        })?;
        let named = |key| match gguf.get(key) {
            Some(MetadataValue::Int(id)) => named_token(gguf, *id),
            _ => String::new(),
        };
        Ok(Self {
            environment,
            bos: named("tokenizer.ggml.bos_token_id"),
            eos: named("tokenizer.ggml.eos_token_id"),
            control: tokenizer.control_texts(),
        })
    }

    /// Renders `messages` and the header of the model's turn. Control tokens inside a message are
    /// broken up by a space, so that no message can end its own turn.
    pub(super) fn render(&self, messages: &[Message]) -> Result<String, ModelError> {
        self.fill(&self.all_plain(messages), true)
    }

    /// Renders a whole chat. Also returns the byte range of each assistant message.
    fn render_whole(
        &self,
        messages: &[Message],
    ) -> Result<(String, Vec<Range<usize>>), ModelError> {
        let messages = self.all_plain(messages);
        let whole = self.fill(&messages, false)?;
        // Answers are rendered as private-use markers and substituted afterwards: searching for
        // their text would find quotations of it elsewhere in the chat.
        let mark = |index: usize| format!("\u{f8ff}{index}\u{f8fe}");
        let marked: Vec<Message> = messages
            .iter()
            .enumerate()
            .map(|(index, message)| match message.role {
                Role::Assistant => Message { content: mark(index), ..message.clone() },
                _ => message.clone(),
            })
            .collect();
        let marked = self.fill(&marked, false)?;
        let (mut text, mut places, mut rest) = (String::new(), Vec::new(), marked.as_str());
        for (index, message) in messages.iter().enumerate() {
            if message.role != Role::Assistant {
                continue;
            }
            let Some((before, after)) = rest.split_once(&mark(index)) else { break };
            text.push_str(before);
            places.push(text.len()..text.len() + message.content.len());
            text.push_str(&message.content);
            rest = after;
        }
        text.push_str(rest);
        // Differs when the template trims or rewrites answers, or drops some of them.
        if text == whole {
            return Ok((text, places));
        }
        Err(ModelError::ChatTemplate("the template alters assistant messages".to_owned()))
    }

    /// [`Self::plain`] for the content of every message.
    fn all_plain(&self, messages: &[Message]) -> Vec<Message> {
        let plain = |message: &Message| Message {
            role: message.role,
            content: self.plain(&message.content),
        };
        messages.iter().map(plain).collect()
    }

    fn fill(&self, messages: &[Message], is_prompt: bool) -> Result<String, ModelError> {
        let template = self.environment.get_template("chat").expect("added when loaded");
        template
            .render(context! {
                messages => Serde(messages),
                add_generation_prompt => is_prompt,
                bos_token => &self.bos,
                eos_token => &self.eos,
            })
            .map_err(|error| ModelError::ChatTemplate(error.to_string()))
    }

    /// Breaks up every control token in `text` by a space after its first character.
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

/// Encodes whole chats for training, with the same tokens that inference uses.
pub struct ChatEncoder {
    tokenizer: Tokenizer,
    chat: ChatTemplate,
}

impl std::fmt::Debug for ChatEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatEncoder")
            .field("tokenizer", &self.tokenizer.digest())
            .finish_non_exhaustive()
    }
}

/// Tokens of a chat, and which of them are the model's answers.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedChat {
    /// Token ids of the whole chat.
    pub input_ids: Vec<u32>,
    /// For each token: the index of the answer that it belongs to, and its start in bytes within
    /// that answer. The token that ends a turn starts where the answer ends. `None` outside
    /// answers.
    pub answers: Vec<Option<(usize, usize)>>,
}

impl ChatEncoder {
    /// Loads tokenizer and template of the GGUF file at `path`, without its weights.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Malformed`] or [`ModelError::Unsupported`] when the file
    /// can't be loaded.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let gguf = GgufFile::open(path)?;
        let tokenizer = Tokenizer::load(&gguf)?;
        let chat = ChatTemplate::load(&gguf, &tokenizer)?;
        Ok(Self { tokenizer, chat })
    }

    /// Returns the model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Encodes a chat that the model is to continue, as inference does.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] when the template rejects the messages;
    /// [`ModelError::Tokenizer`] when the rendered text can't be tokenized.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode(&self.chat.render(messages)?)
    }

    /// Encodes a chat. A token that straddles the boundary of an answer does not count as part of
    /// it.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] when the template rejects the messages, or alters answers so
    /// that their positions are unknown; [`ModelError::Tokenizer`] when the rendered text can't be
    /// tokenized.
    pub fn encode(&self, messages: &[Message]) -> Result<EncodedChat, ModelError> {
        let (text, places) = self.chat.render_whole(messages)?;
        let tokens = self.tokenizer.encode_with_places(&text)?;
        let mut answers = Vec::with_capacity(tokens.len());
        for (token, bytes) in &tokens {
            let inside = |place: &Range<usize>| {
                let ends_turn = bytes.start == place.end && self.tokenizer.is_end(*token);
                (place.start <= bytes.start && bytes.end <= place.end && !bytes.is_empty())
                    || ends_turn
            };
            let answer = places.iter().position(inside);
            answers.push(answer.map(|answer| (answer, bytes.start - places[answer].start)));
        }
        Ok(EncodedChat { input_ids: tokens.into_iter().map(|(token, _)| token).collect(), answers })
    }
}

fn named_token(gguf: &GgufFile, id: i64) -> String {
    let tokens = gguf.array("tokenizer.ggml.tokens").unwrap_or_default();
    match usize::try_from(id).ok().and_then(|id| tokens.get(id)) {
        Some(MetadataValue::Text(token)) => token.clone(),
        _ => String::new(),
    }
}
