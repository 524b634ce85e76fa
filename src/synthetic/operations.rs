//! Operations of a library's functions, and the phrases that ask for them.

/// Pure operation on a list of integers.
#[derive(Debug, PartialEq, Eq)]
pub struct ListOperation {
    /// Short name in families and ids.
    pub id: &'static str,
    /// The operation as a Python expression of `{v}`, for lists that are not empty. It holds where
    /// the name put for `{v}` is an argument or a global name: `lambda rows: sum(rows)`.
    pub reference: &'static str,
    /// Result for an empty list, as a Python literal.
    pub empty: &'static str,
    /// Whether `reference` is little more than a call of Python builtins.
    pub builtin: bool,
    /// Additional sentence of the docstring; may be empty.
    pub note: &'static str,
    /// Six wordings, `A` to `F`, each a noun phrase that a variable's name completes. `A` to `D`
    /// are for training, `E` and `F` for tests.
    pub phrases: [&'static str; 6],
}

/// Type of an operation's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// The operation returns an integer.
    Number,
    /// The operation returns a list of integers.
    Numbers,
    /// The operation returns a list of lists.
    Lists,
    /// The operation returns a boolean or a string.
    Other,
}

const fn of(
    id: &'static str,
    reference: &'static str,
    empty: &'static str,
    phrases: [&'static str; 6],
) -> ListOperation {
    ListOperation { id, reference, empty, builtin: false, note: "", phrases }
}

impl ListOperation {
    /// Returns the reference expression with the given variable.
    pub fn reference_over(&self, variable: &str) -> String {
        self.reference.replace("{v}", variable)
    }

    /// Returns the type of the values.
    pub(super) fn gives(&self) -> ValueKind {
        match (self.empty, self.id) {
            ("[]", "pairs" | "chunks") => ValueKind::Lists,
            ("[]", _) => ValueKind::Numbers,
            ("True" | "False" | "\"\"", _) => ValueKind::Other,
            _ => ValueKind::Number,
        }
    }

    /// Returns the expression of a call with `limit`; `None` if values have no size to limit.
    pub(super) fn limited(&self, limit: i64) -> Option<String> {
        match self.gives() {
            ValueKind::Numbers | ValueKind::Lists => {
                Some(format!("({})[:{limit}]", self.reference))
            }
            ValueKind::Number => Some(format!("min({}, {limit})", self.reference)),
            ValueKind::Other => None,
        }
    }

    const fn builtin(self) -> Self {
        Self { builtin: true, ..self }
    }

    const fn note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }
}

/// Every fourth operation is in no library whose documents are trained on.
const HELD_OUT_EVERY: usize = 4;

/// Returns the operations of the libraries whose documents are trained on, as rehearsal or by the
/// reader. The others show whether an adapter reads or has learned the operations themselves.
pub(super) fn documented_operations() -> Vec<&'static ListOperation> {
    let is_taught = |(index, _): &(usize, &ListOperation)| (index + 1) % HELD_OUT_EVERY != 0;
    OPERATIONS.iter().enumerate().filter(is_taught).map(|(_, operation)| operation).collect()
}

/// Whether a family is about an operation that no document teaches.
pub fn is_new_to_reader(family: &str) -> bool {
    let subject = family.split('/').nth(1);
    subject.is_some_and(|id| OPERATIONS.iter().any(|one| one.id == id))
        && documented_operations().iter().all(|operation| Some(operation.id) != subject)
}

/// All operations, with those of similar meaning next to each other.
#[rustfmt::skip]
pub(super) const OPERATIONS: &[ListOperation] = &[
    of("sum", "sum({v})", "0",
        ["sum of", "total of", "added-up value of", "overall amount in",
         "result of adding together", "aggregate of"]).builtin(),
    of("sum_of_squares", "sum(x * x for x in {v})", "0",
        ["sum of squares over", "total of the squared items in", "added-up squares in",
         "squared values summed across", "result of squaring then adding up",
         "aggregate of second powers in"]),
    of("sum_of_odds", "sum(x for x in {v} if x % 2)", "0",
        ["sum of the odd items in", "total of odds in", "added-up odd numbers of",
         "odd items summed across", "result of adding only the uneven entries of",
         "aggregate of uneven values in"]),
    of("sum_of_evens", "sum(x for x in {v} if x % 2 == 0)", "0",
        ["sum of the even items in", "total of evens in", "added-up even numbers of",
         "even items summed across", "result of adding only the multiples of two from",
         "aggregate of values divisible by two in"]),
    of("product", "([p := 1] + [p := p * x for x in {v}])[-1]", "1",
        ["product of", "result of multiplying together", "multiplied-out value of",
         "outcome of multiplying all of", "full multiplication of", "value after multiplying up"]),
    of("mean", "sum({v}) // len({v})", "0",
        ["floored mean of", "rounded-down average of", "integer mean of",
         "whole-number average over", "mean without remainder of",
         "average cut down to an integer for"]),
    of("median", "sorted({v})[len({v}) // 2]", "0",
        ["median of", "sorted middle of", "central value by size in", "halfway number by rank in",
         "middle-ranked item of", "fiftieth percentile of"])
        .note("Of two items in the middle it is the larger."),
    of("mode", "max(sorted(set({v})), key={v}.count)", "0",
        ["most frequent item of", "most common value in", "mode of", "item repeated most often in",
         "prevailing value of", "commonest entry in"])
        .note("Of several it is the smallest."),
    of("largest", "max({v})", "0",
        ["largest item in", "maximum of", "biggest number in", "highest value in",
         "greatest member of", "upper extreme of"]).builtin(),
    of("smallest", "min({v})", "0",
        ["smallest item in", "minimum of", "tiniest number in", "lowest value in",
         "least member of", "lower extreme of"]).builtin(),
    of("second_largest", "sorted({v})[-2:][0]", "0",
        ["second-largest item in", "runner-up by size in", "second-highest value of",
         "next-to-biggest number in", "next greatest after the maximum in",
         "silver-place value of"])
        .note("A repeated item counts each time; one item alone is its own answer."),
    of("range", "max({v}) - min({v})", "0",
        ["range of", "spread of", "difference between largest and smallest of",
         "gap from minimum to maximum in", "span between the extremes of",
         "width from lowest to highest in"]).builtin(),
    of("index_of_largest", "{v}.index(max({v}))", "-1",
        ["index of the largest in", "position of the maximum in", "place of the biggest in",
         "location of the highest item in", "slot holding the greatest of",
         "whereabouts of the peak in"])
        .note("Of several it is the first."),
    of("index_of_smallest", "{v}.index(min({v}))", "-1",
        ["index of the smallest in", "position of the minimum in", "place of the tiniest in",
         "location of the lowest item in", "slot holding the least of",
         "whereabouts of the trough in"])
        .note("Of several it is the first."),
    of("count", "len({v})", "0",
        ["number of items in", "length of", "item count of", "size of", "quantity of entries in",
         "cardinality of"]).builtin(),
    of("distinct_count", "len(set({v}))", "0",
        ["number of distinct items in", "count of unique values in",
         "number of different values in", "size without repeats of", "tally of unequal entries in",
         "quantity of separate values in"]).builtin(),
    of("even_count", "sum(x % 2 == 0 for x in {v})", "0",
        ["number of even items in", "count of evens in", "frequency of even numbers in",
         "evens count for", "tally of numbers divisible by two in",
         "amount of even-valued members of"]),
    of("zero_count", "{v}.count(0)", "0",
        ["number of zeros in", "count of zeros in", "zeros count for", "frequency of zero in",
         "tally of noughts in", "amount of null entries in"]),
    of("positive_count", "sum(x > 0 for x in {v})", "0",
        ["number of positive items in", "count of positives in",
         "frequency of values above zero in", "positives count for",
         "tally of entries over zero in",
         "amount of strictly positive members of"]),
    of("ascending", "sorted({v})", "[]",
        ["ascending order of", "increasing arrangement of", "smallest-to-largest ordering of",
         "upward sorting of", "low-to-high listing of", "rising order of"]).builtin(),
    of("descending", "sorted({v}, reverse=True)", "[]",
        ["descending order of", "decreasing arrangement of", "largest-to-smallest ordering of",
         "downward sorting of", "high-to-low listing of", "falling order of"]).builtin(),
    of("reversed", "list(reversed({v}))", "[]",
        ["reversed copy of", "back-to-front version of", "mirrored sequence of",
         "opposite order of", "end-to-start reading of", "flipped-around form of"]).builtin(),
    of("rotated", "{v}[1:] + {v}[:1]", "[]",
        ["left rotation by one of", "copy with the first moved to the end of",
         "one-place rotation of", "items shifted round by one from",
         "cycle with the head sent to the rear of", "circular move by one of"]),
    of("unique", "list(dict.fromkeys({v}))", "[]",
        ["unique items in order from", "duplicate-free copy of", "first appearances in",
         "distinct values in original order from", "repeat-free version of",
         "deduplicated sequence of"]),
    of("running_totals", "[sum({v}[:i + 1]) for i in range(len({v}))]", "[]",
        ["running totals of", "cumulative sums of", "partial sums of", "totals so far in",
         "accumulating subtotals of", "progressive additions over"]),
    of("running_maxima", "[max({v}[:i + 1]) for i in range(len({v}))]", "[]",
        ["running maxima of", "cumulative maxima of", "largest so far at each place of",
         "highest-yet values in", "high records reached along", "progressive peaks of"]),
    of("differences", "[b - a for a, b in zip({v}, {v}[1:])]", "[]",
        ["differences between neighbours in", "changes from one item to the next in",
         "successive differences of", "gaps between consecutive items of",
         "item-to-item increments in", "jumps between adjacent entries of"]),
    of("pairs", "[[a, b] for a, b in zip({v}, {v}[1:])]", "[]",
        ["pairs of neighbours in", "adjacent pairs of", "two-item windows over",
         "consecutive couples in", "side-by-side duos of", "overlapping twosomes from"]),
    of("chunks", "[{v}[i:i + 2] for i in range(0, len({v}), 2)]", "[]",
        ["chunks of two from", "groups of two from", "blocks of size two in",
         "pieces of length two from", "non-overlapping twosomes of", "two-by-two partition of"])
        .note("A last item without a partner stands alone."),
    of("evens", "[x for x in {v} if x % 2 == 0]", "[]",
        ["even items of", "evens only from", "even numbers picked from",
         "items divisible by two in", "multiples of two in", "even-valued entries of"]),
    of("odds", "[x for x in {v} if x % 2]", "[]",
        ["odd items of", "odds only from", "odd numbers picked from",
         "items not divisible by two in", "entries of uneven value in", "odd-valued entries of"]),
    of("positives", "[x for x in {v} if x > 0]", "[]",
        ["positive items of", "positives only from", "items above zero in",
         "numbers greater than zero from", "above-zero entries of",
         "strictly positive picks from"]),
    of("negatives", "[x for x in {v} if x < 0]", "[]",
        ["negative items of", "negatives only from", "items below zero in",
         "numbers less than zero from", "below-zero entries of", "strictly negative picks from"]),
    of("squares", "[x * x for x in {v}]", "[]",
        ["squares of", "squared values of", "second powers of", "items times themselves from",
         "each-number-squared version of", "self-multiplied entries of"]),
    of("doubles", "[2 * x for x in {v}]", "[]",
        ["doubles of", "doubled values of", "twofold values of", "items times two from",
         "twice-as-big values of", "entries multiplied by two in"]),
    of("halves", "[x // 2 for x in {v}]", "[]",
        ["floored halves of", "halved values of", "integer halves of",
         "values divided by two from", "half-sized version of", "entries split in half from"])
        .note("Halves are rounded down."),
    of("absolute", "[abs(x) for x in {v}]", "[]",
        ["absolute values of", "magnitudes of", "values without sign of", "unsigned values of",
         "distances from zero of", "sign-free entries of"]),
    of("negated", "[-x for x in {v}]", "[]",
        ["negated values of", "sign-flipped items of", "opposites of",
         "items times minus one from", "additive inverses of",
         "entries with their sign switched in"]),
    of("signs", "[(x > 0) - (x < 0) for x in {v}]", "[]",
        ["signs of", "sign numbers of", "polarities of", "plus-or-minus indicators of",
         "directions from zero of", "signum results for"])
        .note("A sign is -1, 0 or 1."),
    of("clipped", "[max(x, 0) for x in {v}]", "[]",
        ["values clipped at zero from", "copy with negatives set to zero of",
         "items floored at zero from", "zero-bounded version of", "non-negative parts of",
         "entries raised to at least zero in"]),
    of("first", "{v}[0]", "0",
        ["first item of", "leading item of", "opening item of", "item at the front of", "head of",
         "initial entry in"]),
    of("last", "{v}[-1]", "0",
        ["last item of", "final item of", "closing item of", "item at the back of",
         "tail-end member of", "ultimate entry in"]),
    of("rest", "{v}[1:]", "[]",
        ["all but the first of", "everything after the first in", "tail after the opening of",
         "items following the first in", "rest once the head is dropped from",
         "leftovers beyond the initial entry of"]),
    of("beginning", "{v}[:-1]", "[]",
        ["all but the last of", "everything before the last in", "items preceding the last in",
         "part up to the closing one of", "rest once the final one is dropped from",
         "everything ahead of the ultimate entry of"]),
    of("first_three", "{v}[:3]", "[]",
        ["first three items of", "leading three of", "opening three of",
         "three items at the front of", "initial trio of", "head triple of"]),
    of("last_three", "{v}[-3:]", "[]",
        ["last three items of", "final three of", "closing three of",
         "three items at the back of", "ending trio of", "tail triple of"]),
    of("alternate", "{v}[::2]", "[]",
        ["alternate items of", "every other item of", "items at even indices of",
         "every second item from", "selection by skipping every next one of",
         "two-apart picks from"])
        .note("The first item is the first of them."),
    of("is_ascending", "all(a <= b for a, b in zip({v}, {v}[1:]))", "True",
        ["check for ascending order in", "test of being sorted for",
         "verdict on increasing order in", "answer to whether nothing falls in",
         "yes-or-no on upward order for", "confirmation of never falling in"]),
    of("all_positive", "all(x > 0 for x in {v})", "True",
        ["check that all are positive in", "test of all being above zero for",
         "verdict on every item being positive in", "answer to whether only positives are in",
         "yes-or-no on all exceeding zero for", "confirmation of nothing at or below zero in"])
        .builtin(),
    of("any_negative", "any(x < 0 for x in {v})", "False",
        ["check for any negative in", "test of some being below zero for",
         "verdict on a negative occurring in", "answer to whether a negative is in",
         "yes-or-no on a minus number for", "confirmation of something under zero in"]).builtin(),
    of("joined", "\" \".join(map(str, {v}))", "\"\"",
        ["space-separated text of", "text with spaces between the items of",
         "string joined by spaces from", "one-line text of", "blank-delimited writing of",
         "single string form of"]),
];
