//! Grammar-constrained answers.

use rune::model::Engine;
use rune::model::EngineUpdate;
use rune::model::GenerationRequest;
use rune::model::Grammar;
use rune::model::ModelError;
use rune::trajectory::Completion;
use rune::trajectory::FinishReason;
use rune::trajectory::Message;
use rune::trajectory::Sampling;
use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

use super::end;
use super::short;
use super::smollm2;
use super::transcript;

fn generation(engine: &Engine, question: &str, sampling: Sampling) -> GenerationRequest {
    let prompt = engine.prompt(&[Message::user(question)]).unwrap();
    GenerationRequest { logprobs: true, ..GenerationRequest::new(prompt, sampling) }
}

fn ask(
    engine: &Engine,
    question: &str,
    sampling: Sampling,
    grammar: Grammar,
) -> Result<UnboundedReceiver<EngineUpdate>, ModelError> {
    let generation = generation(engine, question, sampling);
    engine.submit(GenerationRequest { grammar: Some(grammar), ..generation })
}

fn answer(engine: &Engine, question: &str, sampling: Sampling, grammar: Grammar) -> Completion {
    end(ask(engine, question, sampling, grammar).unwrap()).unwrap()
}

fn regex(pattern: &str) -> Grammar {
    Grammar::Regex(pattern.to_owned())
}

fn hot(seed: u64) -> Sampling {
    Sampling { temperature: 1.0, seed, max_tokens: 400, ..Sampling::default() }
}

/// Texts are short, so that answers at random end.
fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 20 },
            "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "likes": {
                "type": "array",
                "items": { "enum": ["tea", "chess", "rain", "\"quotes\"", "été"] },
                "minItems": 1,
                "maxItems": 4
            },
            "friend": { "anyOf": [{ "type": "null" }, { "type": "boolean" }] }
        },
        "required": ["name", "age", "likes"],
        "additionalProperties": false
    })
}

#[test]
fn sampled_answers_are_valid_by_the_schema() {
    let engine = smollm2(2, 6);
    let schema = person();
    let question = "Describe a person as JSON.";
    let receivers: Vec<_> = (0..6)
        .map(|seed| ask(&engine, question, hot(seed), Grammar::JsonSchema(schema.clone())).unwrap())
        .collect();
    let mut texts = Vec::new();
    for receiver in receivers {
        let completion = end(receiver).unwrap();
        let value: Value = serde_json::from_str(&completion.text).expect(&completion.text);
        assert!(jsonschema::is_valid(&schema, &value), "{value}");
        assert_eq!(completion.finish_reason, FinishReason::Stop);
        let logprobs = completion.logprobs.unwrap();
        assert!(logprobs.iter().all(|logprob| logprob.is_finite() && *logprob <= 0.0));
        texts.push(completion.text);
    }
    texts.sort();
    texts.dedup();
    assert!(texts.len() > 1, "{texts:?}");
}

#[test]
fn sampled_answers_match_the_expression() {
    let engine = smollm2(2, 6);
    let receivers: Vec<_> = (0..6)
        .map(|seed| {
            let grammar = regex(r"(19|20)\d\d-[01]\d: [a-zé ]{1,12}[.!]");
            ask(&engine, "When was it?", hot(seed), grammar).unwrap()
        })
        .collect();
    for receiver in receivers {
        let text = end(receiver).unwrap().text;
        let (date, sentence) = text.split_once(": ").expect(&text);
        let (year, month) = date.split_once('-').expect(&text);
        assert!(year.len() == 4 && month.len() == 2, "{text}");
        assert!(sentence.ends_with(['.', '!']), "{text}");
        let words = sentence.trim_end_matches(['.', '!']);
        assert!((1..=12).contains(&words.chars().count()), "{text}");
        assert!(words.chars().all(|c| c.is_ascii_lowercase() || " é".contains(c)), "{text}");
    }
}

#[test]
fn grammar_matching_the_plain_answer_changes_nothing() {
    let engine = smollm2(2, 1);
    for question in super::PROMPTS {
        let plain = end(engine.submit(generation(&engine, question, short())).unwrap()).unwrap();
        let constrained = answer(&engine, question, short(), regex("(?s).*"));
        assert_eq!(transcript(&constrained), transcript(&plain));
        assert_eq!(constrained.finish_reason, plain.finish_reason);
    }
}

#[test]
fn logprobs_come_from_the_unmasked_logits() {
    let engine = smollm2(2, 1);
    let question = super::PROMPTS[0];
    let plain = answer(&engine, question, short(), regex("(?s).*"));
    let first: String = plain.text.chars().take(3).collect();
    let unlikely = answer(&engine, question, short(), regex("Zzyzx"));
    assert_eq!((unlikely.text.as_str(), unlikely.finish_reason), ("Zzyzx", FinishReason::Stop));
    let logprob = |completion: &Completion| completion.logprobs.as_ref().unwrap()[0];
    assert!(logprob(&unlikely) < logprob(&plain) - 3.0, "{first} {unlikely:?}");
}

#[test]
fn sequences_are_constrained_independently() {
    let questions = ["Give me a number.", "Name a color.", super::PROMPTS[0]];
    let grammars = [Some(regex(r"-?\d{1,5}")), Some(regex("red|green|blue")), None];
    let submit = |engine: &Engine, i: usize| {
        let generation = generation(engine, questions[i], short());
        engine.submit(GenerationRequest { grammar: grammars[i].clone(), ..generation }).unwrap()
    };
    let alone = smollm2(1, 1);
    let expected = [0, 1, 2].map(|i| transcript(&end(submit(&alone, i)).unwrap()));
    drop(alone);
    assert!(expected[0].0.parse::<i64>().is_ok(), "{expected:?}");
    assert!(["red", "green", "blue"].contains(&expected[1].0.as_str()), "{expected:?}");
    let shared = smollm2(2, 3);
    let receivers = [2, 0, 1].map(|i| submit(&shared, i));
    for (receiver, i) in receivers.into_iter().zip([2, 0, 1]) {
        assert_eq!(transcript(&end(receiver).unwrap()), expected[i]);
    }
}

#[test]
fn invalid_grammars_are_rejected_before_generation() {
    let engine = smollm2(1, 1);
    let refused = |grammar: Grammar| match ask(&engine, "Hello?", short(), grammar) {
        Err(error @ ModelError::Grammar(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let schema = refused(Grammar::JsonSchema(json!({ "type": "nonsense" })));
    assert!(schema.contains("nonsense"), "{schema}");
    let pattern = refused(regex("[a-"));
    assert!(pattern.contains("unclosed character class"), "{pattern}");
    assert_eq!(answer(&engine, "Hello?", short(), regex("yes")).text, "yes");
}

#[test]
fn stop_texts_and_token_limits_hold_under_a_grammar() {
    let engine = smollm2(2, 1);
    let cut = Sampling { max_tokens: 5, ..Sampling::default() };
    let completion = answer(&engine, "Count.", cut, regex("[0-9 ]{200}"));
    assert_eq!((completion.tokens_out, completion.finish_reason), (5, FinishReason::Length));
    let stop = Sampling { stop: vec!["c".to_owned()], ..short() };
    let completion = answer(&engine, "Spell.", stop, regex("abcd"));
    assert_eq!((completion.text.as_str(), completion.finish_reason), ("ab", FinishReason::Stop));
    let exact = Sampling { max_tokens: 1, ..Sampling::default() };
    let completion = answer(&engine, "Yes or no?", exact, regex("yes|no"));
    assert!(["yes", "no"].contains(&completion.text.as_str()), "{completion:?}");
    assert_eq!(completion.finish_reason, FinishReason::Stop, "{completion:?}");
    let empty = answer(&engine, "Nothing?", short(), regex(""));
    assert_eq!((empty.text.as_str(), empty.finish_reason), ("", FinishReason::Stop));
}
