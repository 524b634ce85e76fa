//! New ids: as ULIDs, 48 bits of milliseconds and 80 random bits, in lower case.

use std::io;
use std::io::Read;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Makes an id of 26 characters that sorts by its time of birth (to the millisecond).
///
/// # Errors
/// When the kernel's random numbers can't be read.
pub fn new_id() -> io::Result<String> {
    let mut random = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random[6..])?;
    Ok(encode(SystemTime::now(), u128::from_be_bytes(random)))
}

fn encode(at: SystemTime, random: u128) -> String {
    let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let bits = (millis << 80) | random;
    let digit = |shift: u32| char::from(ALPHABET[(bits >> shift) as usize % 32]);
    (0..26).rev().map(|place| digit(place * 5)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ids_sort_by_time_and_fit_the_form_of_ids() {
        let early = encode(UNIX_EPOCH + Duration::from_secs(1_700_000_000), u128::MAX >> 48);
        let late = encode(UNIX_EPOCH + Duration::from_millis(1_700_000_000_001), 0);
        assert_eq!(early, "01hf7yat00zzzzzzzzzzzzzzzz");
        assert!(early < late);
        assert_ne!(new_id().unwrap(), new_id().unwrap());
    }
}
