//! Tokenizer built from the vocabulary inside a GGUF file.
//!
//! Byte-level BPE (`tokenizer.ggml.model = gpt2`) with the pre-tokenizers `qwen2` and `smollm`. Any
//! other is rejected: a different split than in training degrades a model without any error.

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

/// Qwen2's pre-tokenization pattern, from `tokenizer.json` of its Hugging Face repository.
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// `LLAMA_TOKEN_TYPE_CONTROL`: special tokens that are never text, such as `<|im_end|>`.
const CONTROL: i64 = 3;
/// `LLAMA_TOKEN_TYPE_USER_DEFINED`: added tokens that are matched as a whole.
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
    /// Builds the tokenizer from GGUF metadata.
    pub(super) fn load(gguf: &GgufFile) -> Result<Self, ModelError> {
        let malformed = |reason: &str| ModelError::Malformed {
            path: gguf.path().to_owned(),
            reason: reason.to_owned(),
        };
        let kind = gguf.text("tokenizer.ggml.model")?;
        let pre = gguf.text("tokenizer.ggml.pre")?;
        if kind != "gpt2" || !matches!(pre, "qwen2" | "smollm") {
            let what = format!("tokenizer `{kind}`/`{pre}`");
            return Err(ModelError::Unsupported { path: gguf.path().to_owned(), what });
        }
        let tokens = texts(gguf.array("tokenizer.ggml.tokens")?)
            .ok_or_else(|| malformed("a token is not a string"))?;
        let merges = texts(gguf.array("tokenizer.ggml.merges")?)
            .ok_or_else(|| malformed("a merge is not a string"))?;
        let kinds = gguf.array("tokenizer.ggml.token_type")?;
        if kinds.len() != tokens.len() || u32::try_from(tokens.len()).is_err() {
            return Err(malformed("the numbers of tokens and token types differ"));
        }
        let special = |index: usize, expected: &[i64]| matches!(kinds[index], MetadataValue::Int(kind) if expected.contains(&kind));

        let mut inner = bpe(&tokens, &merges, pre)
            .map_err(|source| malformed(&format!("cannot build the tokenizer: {source}")))?;
        let added = (0..tokens.len())
            .filter(|i| special(*i, &[CONTROL, USER_DEFINED]))
            .map(|i| AddedToken::from(tokens[i], special(i, &[CONTROL])).normalized(false));
        inner
            .add_special_tokens(added.collect::<Vec<_>>())
            .map_err(|source| malformed(&format!("cannot build the tokenizer: {source}")))?;

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
            return Err(malformed("no end-of-turn token"));
        }
        Ok(Self { inner, bytes, control, end_tokens, digest: digest(&tokens, &merges, pre) })
    }

    /// Tokenizes `text`. Control tokens in it, such as `<|im_end|>`, are recognized.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when the `tokenizers` crate rejects the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|source| ModelError::Tokenizer(source.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Like [`Self::encode`], with the byte range of `text` behind each token.
    pub(super) fn encode_with_places(
        &self,
        text: &str,
    ) -> Result<Vec<(u32, Range<usize>)>, ModelError> {
        let encoding = self.inner.encode(text, false);
        let encoding = encoding.map_err(|source| ModelError::Tokenizer(source.to_string()))?;
        let places = encoding.get_offsets().iter().map(|(start, end)| *start..*end);
        Ok(encoding.get_ids().iter().copied().zip(places).collect())
    }

    /// Bytes of a token: possibly part of a character, empty for a control token.
    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// Decodes `tokens`. Control tokens are skipped, invalid UTF-8 is replaced.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.bytes(*token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether the token ends the model's turn.
    pub(super) fn is_end(&self, token: u32) -> bool {
        self.end_tokens.contains(&token)
    }

    /// Size of the vocabulary.
    pub(super) fn n_tokens(&self) -> usize {
        self.bytes.len()
    }

    /// Texts of all control tokens, such as `<|im_end|>`, longest first.
    pub(super) fn control_texts(&self) -> Vec<String> {
        let mut texts: Vec<_> = self.control.keys().filter(|t| !t.is_empty()).cloned().collect();
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts
    }

    /// SHA-256 of the vocabulary, the merges and the pre-tokenizer's name, in hex.
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
            let (left, right) = merge.split_once(' ').ok_or("a merge without a space")?;
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
        // As in SmolLM's `tokenizer.json`: single digits, then GPT-2's own pattern.
        vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()]
    };
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    Ok(tokenizer)
}

/// End-of-turn tokens: those named by the metadata, and well-known ones by text.
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

/// GPT-2's byte-to-character table (`bytes_to_unicode`): printable bytes map to themselves, the
/// others to code points from 256 on.
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
        // Lengths are hashed too: otherwise moving a character between two tokens would go
        // unnoticed.
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    format!("{:x}", hash.finalize())
}
