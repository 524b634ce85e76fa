//! Grammar-constrained decoding: computes which tokens may come next.
//!
//! A [`Grammar`] is compiled to a [`GrammarState`], which follows one answer over the bytes of the
//! model's tokens. The crate llguidance does the work, within its own limits and some of ours: an
//! untrusted schema must neither hang the engine, nor exhaust memory, nor overflow a stack.

use std::sync::OnceLock;

use llguidance::JsonCompileOptions;
use llguidance::Matcher;
use llguidance::ParserFactory;
use llguidance::api::StopReason;
use llguidance::api::TopLevelGrammar;
use llguidance::derivre::RegexBuilder;
use llguidance::toktrie::ApproximateTokEnv;
use llguidance::toktrie::SimpleVob;
use llguidance::toktrie::TokEnv;
use llguidance::toktrie::TokRxInfo;
use llguidance::toktrie::TokTrie;
use serde_json::Value;

use super::ModelError;
use super::tokenizer::Tokenizer;

/// Maximum size of a schema in bytes of JSON; beyond it compilation takes seconds.
const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// Maximum nesting depth of a schema.
const MAX_SCHEMA_DEPTH: usize = 64;
/// Maximum size of a regular expression in bytes; beyond it compilation takes seconds.
const MAX_REGEX_BYTES: usize = 4 << 10;
/// Maximum lexer states, 1 to 2 kB each.
const MAX_LEXER_STATES: usize = 50_000;
/// Stack of the compiling thread. llguidance follows `$ref` chains by recursion, a few kB per step;
/// this suffices for the longest chain that fits [`MAX_SCHEMA_BYTES`].
const STACK_BYTES: usize = 64 << 20;
/// Maximum token length in bytes that the trie supports; longer tokens are never allowed.
const MAX_TOKEN_BYTES: usize = 1000;
/// Whitespace allowed between JSON tokens. Without a limit, small models emit whitespace until they
/// reach `max_tokens`.
const JSON_BLANKS: &str = r"[\x20\x0A\x0D\x09]{1,40}";

/// A grammar that constrains an answer while it is generated.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// A JSON schema. Keywords that can't be enforced are an error.
    JsonSchema(Value),
    /// A regular expression that the whole answer must match.
    Regex(String),
}

/// Compiles grammars for one vocabulary. The token trie is built on first use and shared.
#[derive(Default)]
pub(super) struct GrammarCompiler {
    factory: OnceLock<Result<ParserFactory, String>>,
}

impl GrammarCompiler {
    /// Compiles a grammar. Takes milliseconds, a few hundred on first use.
    ///
    /// # Errors
    /// [`ModelError::Grammar`] when the grammar is invalid, too large, or allows no answer at all.
    pub(super) fn compile(
        &self,
        grammar: &Grammar,
        tokenizer: &Tokenizer,
    ) -> Result<GrammarState, ModelError> {
        let factory = self.factory.get_or_init(|| factory(tokenizer));
        let factory = factory.as_ref().map_err(|reason| ModelError::Grammar(reason.clone()))?;
        // A thread of its own for the large stack; a panic in it becomes an error as well.
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread =
                builder.spawn_scoped(scope, || compile(factory, grammar)).map_err(refused)?;
            thread.join().unwrap_or_else(|_| Err(refused("the grammar compiler panicked")))
        })
    }
}

/// Builds the byte trie of the vocabulary. Control tokens are left out, so that none is ever
/// allowed except those that end the answer.
fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, String> {
    let n_tokens = u32::try_from(tokenizer.n_tokens()).map_err(|error| error.to_string())?;
    let usable = |bytes: &[u8]| bytes.len() <= MAX_TOKEN_BYTES && !bytes.contains(&0xFF);
    let words: Vec<Vec<u8>> = (0..n_tokens)
        .map(|token| tokenizer.bytes(token))
        .map(|bytes| if usable(bytes) { bytes.to_vec() } else { Vec::new() })
        .collect();
    let ends: Vec<u32> = (0..n_tokens).filter(|token| tokenizer.is_end(*token)).collect();
    let end = *ends.first().ok_or("no end-of-turn token")?;
    let trie = TokTrie::from(&TokRxInfo::new(n_tokens, end), &words).with_eos_tokens(&ends);
    // Without canonical tokenization, forced text is not fed as fixed tokens: the model chooses its
    // usual segmentation.
    let vocabulary: TokEnv = std::sync::Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&vocabulary).map_err(|error| error.to_string())?;
    factory.quiet();
    let limits = factory.limits_mut();
    limits.max_lexer_states = MAX_LEXER_STATES;
    limits.verbose_errors = false;
    Ok(factory)
}

fn compile(factory: &ParserFactory, grammar: &Grammar) -> Result<GrammarState, ModelError> {
    let source = match grammar {
        Grammar::JsonSchema(schema) => {
            check_size(schema)?;
            TopLevelGrammar::from_json_schema(with_options(schema))
        }
        Grammar::Regex(pattern) if pattern.len() > MAX_REGEX_BYTES => {
            return Err(refused(format!("larger than {MAX_REGEX_BYTES} bytes")));
        }
        Grammar::Regex(pattern) => {
            // Checked first: llguidance reports a syntax error here with a position.
            RegexBuilder::new().mk_regex(pattern).map_err(refused)?;
            TopLevelGrammar::from_regex(pattern)
        }
    };
    let mut matcher = Matcher::new(factory.create_parser(source));
    // Computing the first mask also detects a valid grammar that no answer satisfies.
    matcher.compute_mask().map_err(refused)?;
    Ok(GrammarState { matcher })
}

/// Applies our compile options to a schema, overriding any `x-guidance` options of its own, which
/// could loosen it.
fn with_options(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if schema.is_object() {
        let whitespace_pattern = Some(JSON_BLANKS.to_owned());
        JsonCompileOptions { whitespace_pattern, ..JsonCompileOptions::default() }
            .apply_to(&mut schema);
    }
    schema
}

/// Rejects schemas that are too large or too deep. Iterative: a hostile schema could overflow the
/// stack of a recursive check.
fn check_size(schema: &Value) -> Result<(), ModelError> {
    let mut n_bytes = 0;
    let mut rest = vec![(schema, 0)];
    while let Some((value, depth)) = rest.pop() {
        if depth > MAX_SCHEMA_DEPTH {
            return Err(refused(format!("nested deeper than {MAX_SCHEMA_DEPTH} levels")));
        }
        n_bytes += match value {
            Value::String(text) => text.len() + 3,
            Value::Object(object) => object.keys().map(|key| key.len() + 4).sum(),
            Value::Array(_) => 2,
            _ => 5,
        };
        if n_bytes > MAX_SCHEMA_BYTES {
            return Err(refused(format!("larger than {MAX_SCHEMA_BYTES} bytes")));
        }
        match value {
            Value::Object(object) => rest.extend(object.values().map(|value| (value, depth + 1))),
            Value::Array(array) => rest.extend(array.iter().map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}

fn refused(reason: impl std::fmt::Display) -> ModelError {
    let reason = reason.to_string();
    let reason = match reason.replace("<non-verbose/>", "").trim() {
        "NoExtensionBias" => "no answer satisfies it".to_owned(),
        reason => reason.to_owned(),
    };
    ModelError::Grammar(reason)
}

/// Parser state of a grammar within one answer.
pub(super) struct GrammarState {
    matcher: Matcher,
}

impl GrammarState {
    /// Computes the tokens allowed next. End-of-turn tokens are among them exactly when the answer
    /// is complete.
    ///
    /// # Errors
    /// [`ModelError::Grammar`] when no token is allowed, or when a limit of llguidance is reached.
    pub(super) fn allowed(&mut self) -> Result<TokenSet, ModelError> {
        self.matcher.compute_mask().map(TokenSet).map_err(refused)
    }

    /// Advances by one allowed token. Returns whether only the end can follow.
    ///
    /// # Errors
    /// [`ModelError::Grammar`] when the token is not allowed or a limit is reached.
    pub(super) fn advance(&mut self, token: u32) -> Result<bool, ModelError> {
        self.matcher.consume_token(token).map_err(refused)?;
        Ok(self.matcher.stop_reason() == StopReason::NoExtension)
    }
}

/// A set of token ids, as a bit mask.
pub(super) struct TokenSet(SimpleVob);

impl TokenSet {
    /// Sets the logits of all other tokens to negative infinity.
    pub(super) fn mask(&self, logits: &mut [f32]) {
        let words = self.0.as_slice();
        for (index, logits) in logits.chunks_mut(32).enumerate() {
            match words.get(index).copied().unwrap_or(0) {
                u32::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                word => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::Grammar;
    use super::GrammarCompiler;
    use super::GrammarState;
    use crate::model::Tokenizer;
    use crate::model::gguf::GgufFile;
    use crate::model::tests::smollm2_file;

    fn tokenizer() -> Tokenizer {
        Tokenizer::load(&GgufFile::open(&smollm2_file()).unwrap()).unwrap()
    }

    fn schema(value: Value) -> Grammar {
        Grammar::JsonSchema(value)
    }

    fn regex(pattern: impl Into<String>) -> Grammar {
        Grammar::Regex(pattern.into())
    }

    /// Whether the answer may end in this state.
    fn may_end(constraint: &mut GrammarState, tokenizer: &Tokenizer) -> bool {
        let ends: Vec<u32> = (0..u32::try_from(tokenizer.n_tokens()).unwrap())
            .filter(|token| tokenizer.is_end(*token))
            .collect();
        let allowed = constraint.allowed().unwrap();
        let n_allowed = ends.iter().filter(|end| allowed.0.is_allowed(**end)).count();
        assert!(n_allowed == 0 || n_allowed == ends.len());
        n_allowed > 0
    }

    /// Feeds `text` and describes how far it was accepted and whether the answer may end there.
    fn check(
        grammars: &GrammarCompiler,
        tokenizer: &Tokenizer,
        grammar: &Grammar,
        text: &str,
    ) -> String {
        let mut constraint = match grammars.compile(grammar, tokenizer) {
            Ok(constraint) => constraint,
            Err(error) => return error.to_string(),
        };
        let mut read = Vec::new();
        for token in tokenizer.encode(text).unwrap() {
            if !constraint.allowed().unwrap().0.is_allowed(token) {
                return format!(
                    "`{}`, then not {:?}",
                    tokenizer.decode(&read),
                    tokenizer.decode(&[token])
                );
            }
            read.push(token);
            if constraint.advance(token).unwrap() {
                return format!("`{}`, complete", tokenizer.decode(&read));
            }
        }
        let end = may_end(&mut constraint, tokenizer);
        format!("`{text}`, {}", if end { "may end" } else { "incomplete" })
    }

    #[test]
    fn answer_may_end_exactly_where_the_grammar_is_satisfied() {
        let (grammars, tokenizer) = (GrammarCompiler::default(), tokenizer());
        let check = |grammar: &Grammar, text: &str| check(&grammars, &tokenizer, grammar, text);
        let point = schema(json!({
            "type": "object",
            "properties": { "x": { "type": "integer" }, "name": { "enum": ["a/b", "<|im_end|>"] } },
            "required": ["x", "name"],
            "additionalProperties": false
        }));
        insta::assert_snapshot!(
            [
                check(&point, "{\"x\": 12"),
                check(&point, "{\"x\": 12, \"name\": \"a/b\"}"),
                check(&point, "{\n  \"x\": 12.5"),
                check(&point, "{\"y\""),
                check(&point, "{\"x\": 12, \"name\": \"<|im_end|>"),
                check(&schema(json!({ "type": "integer" })), "-7"),
                check(&schema(json!(true)), "[null, {}]"),
                check(&regex("[a-c]+/x?"), "abc"),
                check(&regex("[a-c]+/x?"), "abc/"),
                check(&regex("[a-c]+/x?"), "abc/x"),
                check(&regex(""), ""),
                check(&regex("é+"), "éé"),
            ]
            .join("\n"), @r#"
        `{"x": 12`, incomplete
        `{"x": 12, "name": "a/b"}`, complete
        `{
          "x": 12`, then not "."
        `{"`, then not "y"
        `{"x": 12, "name": "`, then not ""
        `-7`, may end
        `[null, {}]`, complete
        `abc`, incomplete
        `abc/`, may end
        `abc/x`, complete
        ``, may end
        `éé`, may end
        "#
        );
    }

    #[test]
    fn unenforceable_grammars_are_rejected_with_the_reason() {
        let (grammars, tokenizer) = (GrammarCompiler::default(), tokenizer());
        let check = |grammar: &Grammar| check(&grammars, &tokenizer, grammar, "");
        insta::assert_snapshot!(
            [
                check(&schema(json!(3))),
                check(&schema(json!(false))),
                check(&schema(json!({ "type": "nonsense" }))),
                check(&schema(json!({ "type": "array", "uniqueItems": true }))),
                check(&schema(json!({ "type": "integer", "minimum": 5, "maximum": 3 }))),
                check(&schema(json!({ "$ref": "#/$defs/none" }))),
                check(&schema(json!({ "$ref": "#" }))),
                check(&schema(json!({ "type": "string", "pattern": "(" }))),
                check(&schema(json!({ "type": "nonsense", "x-guidance": { "lenient": true } }))),
                check(&regex("(")),
                check(&regex("a\\")),
                check(&regex("x(?=y)")),
            ]
            .join("\n---\n"), @r#"
        the grammar cannot be enforced: schema must be an object or boolean
        ---
        the grammar cannot be enforced: Unsatisfiable schema: schema is false
        ---
        the grammar cannot be enforced: Invalid type: nonsense
        ---
        the grammar cannot be enforced: Unimplemented keys: ["uniqueItems"]
        ---
        the grammar cannot be enforced: Unsatisfiable schema: minimum (5) is greater than maximum (3)
        ---
        the grammar cannot be enforced: Reference segment '$defs' not found in '#/$defs/none'.
        ---
        the grammar cannot be enforced: no answer satisfies it
        ---
        the grammar cannot be enforced: regex parse error:
            (
            ^
        error: unclosed group
        ---
        the grammar cannot be enforced: Invalid type: nonsense
        ---
        the grammar cannot be enforced: regex parse error:
            (
            ^
        error: unclosed group
        ---
        the grammar cannot be enforced: regex parse error:
            a\
             ^
        error: incomplete escape sequence, reached end of pattern prematurely
        ---
        the grammar cannot be enforced: regex parse error:
            x(?=y)
             ^^^
        error: look-around, including look-ahead and look-behind, is not supported
        "#
        );
    }

    #[test]
    fn hostile_grammars_neither_hang_nor_exhaust_memory() {
        let (grammars, tokenizer) = (GrammarCompiler::default(), tokenizer());
        let chain = |n: usize, link: fn(Value) -> Value| {
            let definitions = (0..n)
                .map(|i| (format!("a{i}"), link(json!({ "$ref": format!("#/$defs/a{}", i + 1) }))));
            let mut definitions: serde_json::Map<String, Value> = definitions.collect();
            definitions.insert(format!("a{n}"), json!({ "type": "integer" }));
            schema(json!({ "$defs": definitions, "$ref": "#/$defs/a0" }))
        };
        let nested = |n: usize| {
            let wrap = |inner: Value, _| json!({ "type": "array", "items": inner });
            schema((0..n).fold(json!({ "type": "integer" }), wrap))
        };
        let hostile = [
            nested(31),
            nested(2000),
            chain(1000, |next| json!({ "allOf": [next] })),
            chain(40, |next| json!({ "allOf": [next, next] })),
            chain(
                40,
                |next| json!({ "type": "array", "prefixItems": [next, next], "minItems": 2 }),
            ),
            schema(json!({ "enum": (0..50_000).map(|i| i.to_string()).collect::<Vec<_>>() })),
            schema(json!({ "type": "array", "items": true, "minItems": 4_000_000_000_u64 })),
            schema(
                json!({ "type": "string", "minLength": 1_000_000, "maxLength": 4_000_000_000_u64 }),
            ),
            schema(json!({ "type": "string", "pattern": "^((a|b.*c){1,1000}x){1,1000}$" })),
            regex("((a{0,1000}){0,1000}){0,1000}"),
            regex("(.*[ab].{20}){20}"),
            regex("(a|b|c?)*".repeat(450)),
            regex("(".repeat(4000)),
            regex("a".repeat(5000)),
        ];
        for grammar in hostile {
            let Ok(mut constraint) = grammars.compile(&grammar, &tokenizer) else { continue };
            for _ in 0..50 {
                let Ok(allowed) = constraint.allowed() else { break };
                let next = (0..u32::try_from(tokenizer.n_tokens()).unwrap())
                    .find(|token| allowed.0.is_allowed(*token) && !tokenizer.is_end(*token));
                let Some(next) = next else { break };
                let Ok(false) = constraint.advance(next) else { break };
            }
        }
        assert_eq!(
            check(&grammars, &tokenizer, &nested(2000), ""),
            "the grammar cannot be enforced: nested deeper than 64 levels"
        );
    }

    #[test]
    fn mask_leaves_only_the_allowed_tokens() {
        let (grammars, tokenizer) = (GrammarCompiler::default(), tokenizer());
        let mut constraint = grammars.compile(&regex("yes|no"), &tokenizer).unwrap();
        // More logits than tokens, as with a padded embedding.
        let mut logits = vec![1.0; tokenizer.n_tokens() + 77];
        constraint.allowed().unwrap().mask(&mut logits);
        let left = (0_u32..).zip(&logits).filter(|(_, logit)| logit.is_finite());
        let mut left: Vec<String> = left.map(|(token, _)| tokenizer.decode(&[token])).collect();
        left.sort();
        insta::assert_snapshot!(left.join(" "), @"n no y ye yes");
    }
}
