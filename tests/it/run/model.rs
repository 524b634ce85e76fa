//! `rune run` with a real, tiny model: that it ends orderly, whatever it writes.

use std::path::PathBuf;

use rune::home::Home;
use rune::hub;
use rune::hub::ModelCatalogue;

use super::Bench;
use super::TASK;
use super::TESTS;
use super::end;

/// Rune's home of the user who runs the tests, which has the models.
pub(crate) fn real_home() -> PathBuf {
    let home = std::env::home_dir().unwrap().join(".rune");
    std::env::var_os("RUNE_HOME").map_or(home, PathBuf::from)
}

#[test]
fn a_session_with_a_real_model_ends_orderly() {
    let name = "smollm2-135m-instruct";
    let catalogue = ModelCatalogue::embedded();
    let path = hub::path(&Home::new(real_home()), catalogue.get(name).unwrap());
    let path = path.unwrap_or_else(|| panic!("run `rune models pull {name}` first"));
    let bench = Bench::new();
    bench.write("test_adder.py", TESTS);
    let mut command = bench.rune();
    command.args(["run", TASK, "--tests", "test_adder.py", "--out", "out", "--model"]).arg(path);
    command.args(["--max-tokens", "120", "--max-seconds", "60", "--candidates", "1"]);
    for (key, n) in
        [("DECOMPOSE", "32"), ("PLAN", "32"), ("CODE", "48"), ("DIAGNOSE", "16"), ("REPAIR", "48")]
    {
        command.env(format!("RUNE_TOKENS_{key}"), n);
    }
    command.env("RUNE_ENGINE_CONTEXT", "2048");
    let ended = end(command);
    assert!(matches!(ended.code, Some(0 | 1 | 6)), "{ended:?}");
    let attempts = bench.attempts();
    assert!(attempts.len() >= 2, "{ended:?}");
    for attempt in &attempts {
        let completion = &attempt["completion"];
        assert!(completion["tokens_out"].as_u64().unwrap() > 0, "{attempt}");
        assert!(completion["tokens_in"].as_u64().unwrap() > 30, "{attempt}");
        assert!(!attempt["verdict"].as_str().unwrap().is_empty(), "{attempt}");
    }
    let texts: String =
        attempts.iter().filter_map(|one| one["completion"]["text"].as_str()).collect();
    assert!(texts.split_whitespace().count() > 10, "{texts}");
    let session = bench.session();
    assert_eq!(session["exit_code"].as_i64(), ended.code.map(i64::from));
    assert_ne!(session["status"], "running");
}
