//! What a library has beside its functions: a keyword, an error class, a protocol, constants.

use super::random::SeededRng;

/// The invented names of a library that belong to no single function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LibraryFacts {
    /// The keyword argument of every function that keeps its value small.
    pub(super) limit: String,
    /// The class of what is raised for an argument that is no list.
    pub(super) error: String,
    /// The function that gives a handle to be entered by `with`.
    pub(super) opener: String,
    /// The handle's method that gives all items.
    pub(super) reader: String,
    /// Named values, each about another subject.
    pub(super) constants: Vec<LibraryConstant>,
}

/// A named value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LibraryConstant {
    pub(super) name: String,
    pub(super) subject: &'static ConstantSubject,
    pub(super) value: i64,
}

/// What a constant is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ConstantSubject {
    /// Names it in families and ids.
    pub(super) id: &'static str,
    /// Six wordings, `A` to `F`, each a noun phrase; `A` to `D` are for training.
    pub(super) phrases: [&'static str; 6],
}

/// Names that [`LibraryFacts::new`] takes.
pub(super) const N_NAMES: usize = 4 + N_CONSTANTS;
/// Constants of a library.
const N_CONSTANTS: usize = 4;

impl LibraryFacts {
    /// Gives the facts of the library of `seed` these [`N_NAMES`] names.
    pub(super) fn new(seed: u64, names: Vec<String>) -> Self {
        let mut rng = SeededRng::new(seed, "facts");
        let mut names = names.into_iter();
        let mut next = || names.next().unwrap_or_default();
        let [limit, error, opener, reader] = [next(), next(), next(), next()];
        let subjects = rng.sample(SUBJECTS, N_CONSTANTS);
        let constant = |subject| LibraryConstant {
            name: next().to_ascii_uppercase(),
            subject,
            value: rng.between(2, 99),
        };
        let constants = subjects.into_iter().map(constant).collect();
        let error = error[..1].to_ascii_uppercase() + &error[1..];
        Self { limit, error, opener, reader, constants }
    }

    /// All names, in the order of the fields.
    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let own = [&self.limit, &self.error, &self.opener, &self.reader];
        let constants = self.constants.iter().map(|constant| &constant.name);
        own.into_iter().chain(constants).map(String::as_str)
    }
}

/// What constants can be about.
#[rustfmt::skip]
pub(super) const SUBJECTS: &[ConstantSubject] = &[
    ConstantSubject { id: "timeout", phrases: [
        "default timeout", "standard timeout", "usual time limit", "normal waiting time",
        "preset timeout", "time limit used by default"] },
    ConstantSubject { id: "retries", phrases: [
        "number of retries", "retry count", "count of repeated tries", "quantity of retries",
        "amount of retries", "number of repeated tries"] },
    ConstantSubject { id: "buffer", phrases: [
        "buffer size", "size of the buffer", "bytes in a buffer", "buffer capacity",
        "buffer length", "capacity of its buffer"] },
    ConstantSubject { id: "nesting", phrases: [
        "deepest nesting", "nesting limit", "most nested blocks", "maximum depth",
        "limit on nested blocks", "greatest nesting depth"] },
    ConstantSubject { id: "decimals", phrases: [
        "number of decimals", "decimal places", "digits after the point", "rounding precision",
        "count of decimals", "precision in decimal places"] },
    ConstantSubject { id: "port", phrases: [
        "default port", "standard port number", "usual port", "port to listen on",
        "preset port", "port number used by default"] },
];
