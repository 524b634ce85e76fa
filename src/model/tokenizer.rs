//! Text to token ids and back, from the vocabulary inside a GGUF file.
//!
//! Byte-level BPE (`tokenizer.ggml.model = gpt2`) with the pre-tokenizers `qwen2` and `smollm`. Any
//! other is refused: splitting text in another way than in training makes a model silently worse.

use std::collections::HashMap;
use std::ops::Range;

use sha2::Digest;
use sha2::Sha256;
use tokenizers::AddedToken;
use tokenizers::PreTokenizerWrapper;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::models::bpe::BPE;
use tokenizers::models::bpe::Vocab;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::pre_tokenizers::split::SplitPattern;

use super::ModelError;
use super::gguf::GgufFile;
use super::gguf::MetadataValue;

/// How Qwen2 cuts text before BPE (`tokenizer.json` of the hub's repository).
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// ggml's number for tokens that stand for themselves and are never text, such as `<|im_end|>`.
const CONTROL: i64 = 3;
/// ggml's number for tokens added whole by the model's makers.
const USER_DEFINED: i64 = 4;

/// A byte-level BPE tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The bytes of each token; empty for control tokens.
    bytes: Vec<Vec<u8>>,
    control: HashMap<String, u32>,
    end_tokens: Vec<u32>,
    digest: String,
}

impl Tokenizer {
    /// Builds the tokenizer from metadata.
    pub(super) fn load(gguf: &GgufFile) -> Result<Self, ModelError> {
        let malformed = |reason: &str| ModelError::Malformed {
            path: gguf.path().to_owned(),
            reason: reason.to_owned(),
        };
        let kind = gguf.text("tokenizer.ggml.model")?;
        let pre = gguf.text("tokenizer.ggml.pre")?;
        if kind != "gpt2" || !matches!(pre, "qwen2" | "smollm") {
            let what =
                format!("the tokenizer `{kind}`/`{pre}`; Rune knows gpt2/qwen2 and gpt2/smollm");
            return Err(ModelError::Unsupported { path: gguf.path().to_owned(), what });
        }
        let tokens = texts(gguf.array("tokenizer.ggml.tokens")?)
            .ok_or_else(|| malformed("a token is no text"))?;
        let merges = texts(gguf.array("tokenizer.ggml.merges")?)
            .ok_or_else(|| malformed("a merge is no text"))?;
        let kinds = gguf.array("tokenizer.ggml.token_type")?;
        if kinds.len() != tokens.len() || u32::try_from(tokens.len()).is_err() {
            return Err(malformed("token types and tokens differ in number"));
        }
        let special = |index: usize, expected: &[i64]| matches!(kinds[index], MetadataValue::Int(kind) if expected.contains(&kind));

        let mut inner = bpe(&tokens, &merges, pre)
            .map_err(|source| malformed(&format!("its tokenizer does not build: {source}")))?;
        let added = (0..tokens.len())
            .filter(|i| special(*i, &[CONTROL, USER_DEFINED]))
            .map(|i| AddedToken::from(tokens[i], special(i, &[CONTROL])).normalized(false));
        inner
            .add_special_tokens(added.collect::<Vec<_>>())
            .map_err(|source| malformed(&format!("its tokenizer does not build: {source}")))?;

        let table = byte_table();
        let bytes = (0..tokens.len()).map(|index| match special(index, &[CONTROL, USER_DEFINED]) {
            true if special(index, &[CONTROL]) => Vec::new(),
            true => tokens[index].as_bytes().to_vec(),
            false => tokens[index].chars().filter_map(|c| table.get(&c).copied()).collect(),
        });
        let bytes = bytes.collect();
        let control: HashMap<String, u32> = (0_u32..)
            .zip(&tokens)
            .filter(|(id, _)| special(*id as usize, &[CONTROL]))
            .map(|(id, token)| ((*token).to_owned(), id))
            .collect();
        let end_tokens = end_tokens(gguf, &control);
        if end_tokens.is_empty() {
            return Err(malformed("no token ends a turn"));
        }
        Ok(Self { inner, bytes, control, end_tokens, digest: digest(&tokens, &merges, pre) })
    }

    /// Cuts `text` into tokens; control tokens in it are recognized.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when the library refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|source| ModelError::Tokenizer(source.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`Self::encode`], with the bytes of `text` that each token was made from.
    pub(super) fn encode_with_places(
        &self,
        text: &str,
    ) -> Result<Vec<(u32, Range<usize>)>, ModelError> {
        let encoding = self.inner.encode(text, false);
        let encoding = encoding.map_err(|source| ModelError::Tokenizer(source.to_string()))?;
        let places = encoding.get_offsets().iter().map(|(start, end)| *start..*end);
        Ok(encoding.get_ids().iter().copied().zip(places).collect())
    }

    /// The bytes that a token stands for: part of a character maybe, none for a control token.
    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// The text of `tokens`, control tokens left out, broken characters replaced.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.bytes(*token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether the token ends the model's turn.
    pub(super) fn is_end(&self, token: u32) -> bool {
        self.end_tokens.contains(&token)
    }

    /// Tokens in the vocabulary.
    pub(super) fn n_tokens(&self) -> usize {
        self.bytes.len()
    }

    /// The texts of control tokens, such as `<|im_end|>`, the longest first.
    pub(super) fn control_texts(&self) -> Vec<String> {
        let mut texts: Vec<_> = self.control.keys().filter(|t| !t.is_empty()).cloned().collect();
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts
    }

    /// sha256 of the vocabulary, the merges and the pre-tokenizer's name.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

fn texts(values: &[MetadataValue]) -> Option<Vec<&str>> {
    let mut texts = Vec::with_capacity(values.len());
    for value in values {
        let MetadataValue::Text(text) = value else { return None };
        texts.push(text.as_str());
    }
    Some(texts)
}

fn bpe(tokens: &[&str], merges: &[&str], pre: &str) -> tokenizers::Result<tokenizers::Tokenizer> {
    let vocabulary: Vocab =
        (0_u32..).zip(tokens).map(|(id, token)| ((*token).to_owned(), id)).collect();
    let pairs = merges
        .iter()
        .map(|merge| {
            let (left, right) = merge.split_once(' ').ok_or("a merge without a blank")?;
            Ok((left.to_owned(), right.to_owned()))
        })
        .collect::<tokenizers::Result<Vec<_>>>()?;
    let model = BPE::builder().vocab_and_merges(vocabulary, pairs).build()?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let steps: Vec<PreTokenizerWrapper> = if pre == "qwen2" {
        tokenizer.with_normalizer(Some(NFC))?;
        let pattern = SplitPattern::Regex(QWEN2_SPLIT.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
        vec![split.into(), ByteLevel::new(false, false, false).into()]
    } else {
        vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()]
    };
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    Ok(tokenizer)
}

/// The tokens after which a model has said its say: the one the file names, and the usual ones by
/// name.
fn end_tokens(gguf: &GgufFile, control: &HashMap<String, u32>) -> Vec<u32> {
    let named = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>"];
    let mut ends: Vec<u32> = named.iter().filter_map(|name| control.get(*name).copied()).collect();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        if let Some(MetadataValue::Int(id)) = gguf.get(key) {
            ends.extend(u32::try_from(*id));
        }
    }
    ends
}

/// GPT-2's letters for bytes: printable ones stand for themselves, the others for 256 and up.
fn byte_table() -> HashMap<char, u8> {
    let mut next = 256_u32;
    (0_u8..=255)
        .map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let code = if printable { u32::from(byte) } else { next };
            next += u32::from(!printable);
            (char::from_u32(code).expect("below the surrogates"), byte)
        })
        .collect()
}

fn digest(tokens: &[&str], merges: &[&str], pre: &str) -> String {
    let mut hash = Sha256::new();
    for text in tokens.iter().chain(merges).chain([&pre]) {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    format!("{:x}", hash.finalize())
}
