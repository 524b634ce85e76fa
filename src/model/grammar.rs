//! Holds an answer to a form: which tokens may come next.
//!
//! A [`Grammar`] says what is asked for. It is compiled to a [`GrammarState`], which follows one
//! answer over the bytes of the model's tokens. The crate llguidance does the work, within its
//! limits and some of our own: a schema from outside must neither hang the engine, nor fill the
//! memory, nor overflow a stack.

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

/// The most bytes of a schema, written out: beyond it compiling takes seconds.
const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// The deepest nesting of a schema.
const MAX_SCHEMA_DEPTH: usize = 64;
/// The most bytes of a regular expression: beyond it compiling takes seconds.
const MAX_REGEX_BYTES: usize = 4 << 10;
/// States of the lexer, 1 to 2 kB each.
const MAX_LEXER_STATES: usize = 50_000;
/// Chains of references are followed by recursion, a few kB each: a stack for the longest that a
/// schema has room for.
const STACK_BYTES: usize = 64 << 20;
/// Longer tokens, in bytes, are never allowed: the trie has no room for them.
const MAX_TOKEN_BYTES: usize = 1000;
/// What may stand between the tokens of JSON. Without a limit a small model writes blanks until it
/// is cut off.
const JSON_BLANKS: &str = r"[\x20\x0A\x0D\x09]{1,40}";

/// A form that an answer is held to while it is generated.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// A JSON schema. A keyword that can't be enforced is an error.
    JsonSchema(Value),
    /// A regular expression, for the whole answer.
    Regex(String),
}

/// Compiles grammars for one vocabulary. What is shared by all of them is made when the first is
/// asked for.
#[derive(Default)]
pub(super) struct GrammarCompiler {
    factory: OnceLock<Result<ParserFactory, String>>,
}

impl GrammarCompiler {
    /// Takes milliseconds; the first time, a few hundred.
    ///
    /// # Errors
    /// [`ModelError::Grammar`] when the grammar is wrong, too large, or allows no answer at all.
    pub(super) fn compile(
        &self,
        grammar: &Grammar,
        tokenizer: &Tokenizer,
    ) -> Result<GrammarState, ModelError> {
        let factory = self.factory.get_or_init(|| factory(tokenizer));
        let factory = factory.as_ref().map_err(|reason| ModelError::Grammar(reason.clone()))?;
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread =
                builder.spawn_scoped(scope, || compile(factory, grammar)).map_err(refused)?;
            thread.join().unwrap_or_else(|_| Err(refused("the compiler broke off")))
        })
    }
}

/// The trie of the vocabulary's bytes. Control tokens are not in it, so that none is ever allowed
/// but those that end the answer.
fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, String> {
    let n_tokens = u32::try_from(tokenizer.n_tokens()).map_err(|error| error.to_string())?;
    let usable = |bytes: &[u8]| bytes.len() <= MAX_TOKEN_BYTES && !bytes.contains(&0xFF);
    let words: Vec<Vec<u8>> = (0..n_tokens)
        .map(|token| tokenizer.bytes(token))
        .map(|bytes| if usable(bytes) { bytes.to_vec() } else { Vec::new() })
        .collect();
    let ends: Vec<u32> = (0..n_tokens).filter(|token| tokenizer.is_end(*token)).collect();
    let end = *ends.first().ok_or("no token ends a turn")?;
    let trie = TokTrie::from(&TokRxInfo::new(n_tokens, end), &words).with_eos_tokens(&ends);
    // Tokens are not forced: the model cuts the text as it is used to.
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
            return Err(refused(format!("it has more than {MAX_REGEX_BYTES} bytes")));
        }
        Grammar::Regex(pattern) => {
            RegexBuilder::new().mk_regex(pattern).map_err(refused)?;
            TopLevelGrammar::from_regex(pattern)
        }
    };
    let mut matcher = Matcher::new(factory.create_parser(source));
    // Also tells of a grammar that is sound and allows nothing.
    matcher.compute_mask().map_err(refused)?;
    Ok(GrammarState { matcher })
}

/// The schema with our manners; those it brings itself could loosen it.
fn with_options(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if schema.is_object() {
        let whitespace_pattern = Some(JSON_BLANKS.to_owned());
        JsonCompileOptions { whitespace_pattern, ..JsonCompileOptions::default() }
            .apply_to(&mut schema);
    }
    schema
}

/// Refuses what is too large or too deep, without recursion.
fn check_size(schema: &Value) -> Result<(), ModelError> {
    let mut n_bytes = 0;
    let mut rest = vec![(schema, 0)];
    while let Some((value, depth)) = rest.pop() {
        if depth > MAX_SCHEMA_DEPTH {
            return Err(refused(format!("it is nested deeper than {MAX_SCHEMA_DEPTH}")));
        }
        n_bytes += match value {
            Value::String(text) => text.len() + 3,
            Value::Object(object) => object.keys().map(|key| key.len() + 4).sum(),
            Value::Array(_) => 2,
            _ => 5,
        };
        if n_bytes > MAX_SCHEMA_BYTES {
            return Err(refused(format!("it has more than {MAX_SCHEMA_BYTES} bytes")));
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
        "NoExtensionBias" => "no answer of tokens fits it".to_owned(),
        reason => reason.to_owned(),
    };
    ModelError::Grammar(reason)
}

/// A grammar on its way through one answer.
pub(super) struct GrammarState {
    matcher: Matcher,
}

impl GrammarState {
    /// The tokens that may come next; those that end the answer exactly when it is complete.
    ///
    /// # Errors
    /// [`ModelError::Grammar`] when there is none, or when finding out would take too long.
    pub(super) fn allowed(&mut self) -> Result<TokenSet, ModelError> {
        self.matcher.compute_mask().map(TokenSet).map_err(refused)
    }

    /// Goes on by one of the allowed tokens. Returns whether nothing but the end can follow.
    ///
    /// # Errors
    /// [`ModelError::Grammar`] when the token does not fit or the limits are reached.
    pub(super) fn advance(&mut self, token: u32) -> Result<bool, ModelError> {
        self.matcher.consume_token(token).map_err(refused)?;
        Ok(self.matcher.stop_reason() == StopReason::NoExtension)
    }
}

/// A set of tokens.
pub(super) struct TokenSet(SimpleVob);

impl TokenSet {
    /// Makes all other tokens impossible.
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

    /// Whether the answer could end here.
    fn may_end(constraint: &mut GrammarState, tokenizer: &Tokenizer) -> bool {
        let ends: Vec<u32> = (0..u32::try_from(tokenizer.n_tokens()).unwrap())
            .filter(|token| tokenizer.is_end(*token))
            .collect();
        let allowed = constraint.allowed().unwrap();
        let n_allowed = ends.iter().filter(|end| allowed.0.is_allowed(**end)).count();
        assert!(n_allowed == 0 || n_allowed == ends.len());
        n_allowed > 0
    }

    /// Feeds `text`; tells how far it went and how it could go on.
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
        format!("`{text}`, {}", if end { "may end" } else { "has to go on" })
    }

    #[test]
    fn an_answer_may_end_exactly_where_the_grammar_is_satisfied() {
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
        `{"x": 12`, has to go on
        `{"x": 12, "name": "a/b"}`, complete
        `{
          "x": 12`, then not "."
        `{"`, then not "y"
        `{"x": 12, "name": "`, then not ""
        `-7`, may end
        `[null, {}]`, complete
        `abc`, has to go on
        `abc/`, may end
        `abc/x`, complete
        ``, may end
        `éé`, may end
        "#
        );
    }

    #[test]
    fn what_cannot_be_enforced_is_an_error_that_names_the_reason() {
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
        the answer cannot be held to the grammar: schema must be an object or boolean
        ---
        the answer cannot be held to the grammar: Unsatisfiable schema: schema is false
        ---
        the answer cannot be held to the grammar: Invalid type: nonsense
        ---
        the answer cannot be held to the grammar: Unimplemented keys: ["uniqueItems"]
        ---
        the answer cannot be held to the grammar: Unsatisfiable schema: minimum (5) is greater than maximum (3)
        ---
        the answer cannot be held to the grammar: Reference segment '$defs' not found in '#/$defs/none'.
        ---
        the answer cannot be held to the grammar: no answer of tokens fits it
        ---
        the answer cannot be held to the grammar: regex parse error:
            (
            ^
        error: unclosed group
        ---
        the answer cannot be held to the grammar: Invalid type: nonsense
        ---
        the answer cannot be held to the grammar: regex parse error:
            (
            ^
        error: unclosed group
        ---
        the answer cannot be held to the grammar: regex parse error:
            a\
             ^
        error: incomplete escape sequence, reached end of pattern prematurely
        ---
        the answer cannot be held to the grammar: regex parse error:
            x(?=y)
             ^^^
        error: look-around, including look-ahead and look-behind, is not supported
        "#
        );
    }

    #[test]
    fn a_hostile_grammar_neither_hangs_nor_fills_the_memory() {
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
            "the answer cannot be held to the grammar: it is nested deeper than 64"
        );
    }

    #[test]
    fn a_mask_leaves_the_allowed_and_no_others() {
        let (grammars, tokenizer) = (GrammarCompiler::default(), tokenizer());
        let mut constraint = grammars.compile(&regex("yes|no"), &tokenizer).unwrap();
        // Logits beyond the vocabulary, as of a padded embedding.
        let mut logits = vec![1.0; tokenizer.n_tokens() + 77];
        constraint.allowed().unwrap().mask(&mut logits);
        let left = (0_u32..).zip(&logits).filter(|(_, logit)| logit.is_finite());
        let mut left: Vec<String> = left.map(|(token, _)| tokenizer.decode(&[token])).collect();
        left.sort();
        insta::assert_snapshot!(left.join(" "), @"n no y ye yes");
    }
}
