//! Generation of ids: ULIDs (48 bits of milliseconds, 80 random bits) in lower case.

use std::io;
use std::io::Read;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// Crockford's base 32: no `i`, `l`, `o` or `u`.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Generates an id of 26 characters. Ids sort by creation time, to the millisecond.
///
/// # Errors
/// When `/dev/urandom` cannot be read.
pub fn new_id() -> io::Result<String> {
    // The upper 6 bytes stay zero: that is where the milliseconds go.
    let mut random = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random[6..])?;
    Ok(encode(SystemTime::now(), u128::from_be_bytes(random)))
}

fn encode(at: SystemTime, random: u128) -> String {
    let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let bits = (millis << 80) | random;
    let digit = |shift: u32| char::from(ALPHABET[(bits >> shift) as usize % 32]);
    // 26 digits of 5 bits hold 130 bits; the first digit has only the upper 3 bits of 128.
    (0..26).rev().map(|place| digit(place * 5)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ids_sort_by_creation_time() {
        let early = encode(UNIX_EPOCH + Duration::from_secs(1_700_000_000), u128::MAX >> 48);
        let late = encode(UNIX_EPOCH + Duration::from_millis(1_700_000_000_001), 0);
        assert_eq!(early, "01hf7yat00zzzzzzzzzzzzzzzz");
        assert!(early < late);
        assert_ne!(new_id().unwrap(), new_id().unwrap());
    }
}
