//! The result channel's other end: checks what arrived and gives back records.

use serde::Deserialize;
use sha2::Digest;
use sha2::Sha256;

use super::verdict::Status;

/// The secret of one run.
pub(super) type Key = [u8; 32];

/// One record of the runner.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Record {
    /// A test begins.
    Begin { id: String, case: String },
    /// A test ended.
    Test { id: String, case: String, status: Status, message: String, trace: String },
    /// The test framework was changed by the judged code.
    Tamper { message: String },
    /// The tests want something of the solution that can't be had from another process.
    Inseparable,
    /// The suite needs pytest, and there is none.
    PytestMissing,
    /// All was reported; `n` tests, canaries included.
    End { n: String },
}

/// HMAC-SHA256 (RFC 2104) in hexadecimal digits.
fn mac(key: &Key, message: &[u8]) -> String {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        for (padded, key) in block.iter_mut().zip(key) {
            *padded ^= key;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    hex(&outer)
}

/// Lower-case hexadecimal digits of `bytes`.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads the records of a run. A last line without its end is the trace of a crash and is left out.
/// # Errors
/// A reason in words, when anything that was not written by the runner arrived.
pub(super) fn read(key: &Key, channel: &[u8]) -> Result<Vec<Record>, String> {
    let mut lines: Vec<&[u8]> = channel.split(|byte| *byte == b'\n').collect();
    lines.pop();
    lines.iter().enumerate().map(|(number, line)| record(key, number, line)).collect()
}

fn record(key: &Key, number: usize, line: &[u8]) -> Result<Record, String> {
    let forged = || format!("record {number} on the result channel is forged");
    let (found, body) = line.split_at_checked(64).ok_or_else(forged)?;
    let body = body.strip_prefix(b" ").ok_or_else(forged)?;
    if found != mac(key, body).as_bytes() {
        return Err(forged());
    }
    let json = body.strip_prefix(format!("{number} ").as_bytes()).ok_or_else(forged)?;
    serde_json::from_slice(json)
        .map_err(|error| format!("record {number} is not readable: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = [7; 32];

    fn line(number: usize, json: &str) -> String {
        let body = format!("{number} {json}");
        format!("{} {body}\n", mac(&KEY, body.as_bytes()))
    }

    fn check(channel: &str) -> String {
        match read(&KEY, channel.as_bytes()) {
            Ok(records) => format!("{} records", records.len()),
            Err(reason) => reason,
        }
    }

    #[test]
    fn only_the_runners_records_in_their_order_are_taken() {
        let end = r#"{"kind":"end","n":"0"}"#;
        let first = line(0, end);
        let twice = format!("{first}{first}");
        let next = format!("{first}{}", line(1, end));
        let cut = format!("{first}{}", &line(1, end)[..80]);
        let forged = format!("{first}{{\"kind\":\"end\",\"n\":\"0\"}}\n");
        let shown: Vec<String> =
            [first.as_str(), &twice, &next, &cut, &forged, "", "\n"].map(check).into();
        assert_eq!(
            shown,
            [
                "1 records",
                "record 1 on the result channel is forged",
                "2 records",
                "1 records",
                "record 1 on the result channel is forged",
                "0 records",
                "record 0 on the result channel is forged",
            ]
        );
    }

    #[test]
    fn the_mac_is_that_of_rfc_4231() {
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let found = mac(&key, b"what do ya want for nothing?");
        assert_eq!(found, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    proptest! {
        #[test]
        fn whatever_arrives_is_never_taken_for_the_runners(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            prop_assert_eq!(read(&KEY, &bytes).map_or(0, |records| records.len()), 0);
            prop_assert_eq!(read(&KEY, &bytes).is_err(), bytes.contains(&b'\n'));
            // One flipped bit of what the runner wrote.
            let mut record = line(0, r#"{"kind":"end","n":"0"}"#).into_bytes();
            *at.get_mut(&mut record) ^= 1 << bit;
            prop_assert_eq!(read(&KEY, &record).map_or(0, |records| records.len()), 0);
        }
    }
}
