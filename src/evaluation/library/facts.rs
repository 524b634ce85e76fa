//! What a library has beside its functions: a keyword, an error class, a protocol, constants.

use super::chance::Chance;

/// The invented names of a library that belong to no single function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The keyword argument of every function that keeps its value small.
    pub(super) limit: String,
    /// The class of what is raised for an argument that is no list.
    pub(super) error: String,
    /// The function that gives a handle to be entered by `with`.
    pub(super) opener: String,
    /// The handle's method that gives all items.
    pub(super) reader: String,
    /// Named values, each about another subject.
    pub(super) constants: Vec<Constant>,
}

/// A named value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Constant {
    pub(super) name: String,
    pub(super) subject: &'static Subject,
    pub(super) value: i64,
}

/// What a constant is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// Names it in families and ids.
    pub(super) id: &'static str,
    /// Six wordings, `A` to `F`, each a noun phrase; `A` to `D` are for training.
    pub(super) phrases: [&'static str; 6],
}

/// Names that [`Facts::new`] takes.
pub(super) const N_NAMES: usize = 4 + N_CONSTANTS;
/// Constants of a library.
const N_CONSTANTS: usize = 4;

impl Facts {
    /// Gives the facts of the library of `seed` these [`N_NAMES`] names.
    pub(super) fn new(seed: u64, names: Vec<String>) -> Self {
        let mut chance = Chance::new(seed, "facts");
        let mut names = names.into_iter();
        let mut next = || names.next().unwrap_or_default();
        let [limit, error, opener, reader] = [next(), next(), next(), next()];
        let subjects = chance.sample(SUBJECTS, N_CONSTANTS);
        let constant = |subject| Constant {
            name: next().to_ascii_uppercase(),
            subject,
            value: chance.between(2, 99),
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
pub(super) const SUBJECTS: &[Subject] = &[
    Subject { id: "timeout", phrases: [
        "default timeout", "standard timeout", "usual time limit", "normal waiting time",
        "preset timeout", "time limit used by default"] },
    Subject { id: "retries", phrases: [
        "number of retries", "retry count", "count of repeated tries", "quantity of retries",
        "amount of retries", "number of repeated tries"] },
    Subject { id: "buffer", phrases: [
        "buffer size", "size of the buffer", "bytes in a buffer", "buffer capacity",
        "buffer length", "capacity of its buffer"] },
    Subject { id: "nesting", phrases: [
        "deepest nesting", "nesting limit", "most nested blocks", "maximum depth",
        "limit on nested blocks", "greatest nesting depth"] },
    Subject { id: "decimals", phrases: [
        "number of decimals", "decimal places", "digits after the point", "rounding precision",
        "count of decimals", "precision in decimal places"] },
    Subject { id: "port", phrases: [
        "default port", "standard port number", "usual port", "port to listen on",
        "preset port", "port number used by default"] },
];
