//! Facts of a library beside its functions: a keyword, an error class, a protocol and constants.

use super::random::SeededRng;

/// Invented names of a library that do not belong to a single function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LibraryFacts {
    /// Keyword argument of every function that caps its value.
    pub(super) limit: String,
    /// Exception class raised for an argument that is not a list.
    pub(super) error: String,
    /// Function that returns a context manager.
    pub(super) opener: String,
    /// Method of the context manager that returns all items.
    pub(super) reader: String,
    /// Named constants, each on a different subject.
    pub(super) constants: Vec<LibraryConstant>,
}

/// Named constant of a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LibraryConstant {
    pub(super) name: String,
    pub(super) subject: &'static ConstantSubject,
    pub(super) value: i64,
}

/// Subject of a constant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ConstantSubject {
    /// Short name in families and ids.
    pub(super) id: &'static str,
    /// Six wordings, `A` to `F`, each a noun phrase; `A` to `D` are for training.
    pub(super) phrases: [&'static str; 6],
}

/// Number of names that [`LibraryFacts::new`] needs.
pub(super) const N_NAMES: usize = 4 + N_CONSTANTS;
/// Number of constants per library.
const N_CONSTANTS: usize = 4;

impl LibraryFacts {
    /// Creates the facts of the library of `seed` with these [`N_NAMES`] names.
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

    /// Returns all names in the order of the fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let own = [&self.limit, &self.error, &self.opener, &self.reader];
        let constants = self.constants.iter().map(|constant| &constant.name);
        own.into_iter().chain(constants).map(String::as_str)
    }
}

/// Possible subjects of constants.
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
