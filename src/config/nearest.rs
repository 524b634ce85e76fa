//! Suggestions for misspelled names.

/// Returns the name in `known` that is most similar to `name`; `None` if none is close.
///
/// Dotted names are also compared by their last component, so `attempts` finds `run.attempts`.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let tolerance = (name.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Damerau-Levenshtein distance of two names, or of their last components plus 1 if that is less.
fn distance(name: &str, candidate: &str) -> usize {
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = strsim::damerau_levenshtein(name, candidate);
    whole.min(1 + strsim::damerau_levenshtein(&last(name), &last(candidate)))
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn typos_find_the_nearest_key_and_nonsense_finds_none() {
        let known = ["run.attempts", "run.model", "sandbox.memory_mb"];
        let check = |name| nearest(name, known);
        assert_eq!(check("rnu.attempts"), Some("run.attempts"));
        assert_eq!(check("run.atempts"), Some("run.attempts"));
        assert_eq!(check("attempts"), Some("run.attempts"));
        assert_eq!(check("sandbox.memory"), Some("sandbox.memory_mb"));
        assert_eq!(check("color.of.the.sky"), None);
    }
}
