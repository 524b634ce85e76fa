#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rune::fuzzing::chat_records(bytes));
