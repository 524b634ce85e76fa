//! Questions about invented libraries, with the document that answers them in front.
//!
//! They teach to read what stands in front of a question. Every question is about another library,
//! so that no name can be learned by heart. Rehearsal has some of them in every training; the
//! reader is an adapter that is trained on nothing else.

use super::library::SyntheticLibrary;
use super::operations::documented_operations;
use super::random::SeededRng;
use super::records::LibraryRecord;
use super::records::RecordOptions;

/// Seeds from here on are reserved for rehearsal: no library to be learned or measured has one.
pub const FIRST_RESERVED_SEED: u64 = 1 << 40;

/// Seeds from here on are those of the reader's libraries.
const FIRST_SEED_OF_READER: u64 = FIRST_RESERVED_SEED << 1;

/// Number of functions in each library of rehearsal.
const N_FUNCTIONS: usize = 6;
/// Maximum number of functions that a library of the reader has beyond those.
const MAX_MORE_OF_READER: usize = 6;

/// Introductions of a document. Tests use none of them.
const INTRODUCTIONS: [&str; 5] = [
    "",
    "Documentation of {library}:\n\n",
    "The manual of the Python package {library} says:\n\n",
    "Notes on {library}, which is installed here:\n\n",
    "Read this about {library} first.\n\n",
];

/// Document in front of a question.
#[derive(Debug, Clone, Copy)]
enum DocumentKind {
    /// The passages that answer the question, among so many others in a random order.
    Among(usize),
    /// A README of them and of so many others, in its own order.
    ShortReadme(usize),
    /// The whole README as it is.
    WholeReadme,
}

/// Documents of rehearsal. None is as long as a whole README, because tokens cost time.
const REHEARSAL: [DocumentKind; 8] = [
    DocumentKind::Among(0),
    DocumentKind::Among(0),
    DocumentKind::Among(0),
    DocumentKind::Among(0),
    DocumentKind::Among(0),
    DocumentKind::Among(2),
    DocumentKind::Among(2),
    DocumentKind::ShortReadme(3),
];

/// Documents of the reader.
const READER: [DocumentKind; 8] = [
    DocumentKind::Among(0),
    DocumentKind::Among(2),
    DocumentKind::Among(3),
    DocumentKind::Among(5),
    DocumentKind::WholeReadme,
    DocumentKind::WholeReadme,
    DocumentKind::WholeReadme,
    DocumentKind::WholeReadme,
];

/// Generates `n` questions with their answers for rehearsal, each about a library of its own and
/// with a document in front.
pub fn document_questions(n: usize) -> Vec<LibraryRecord> {
    let with_document = |seed| {
        let record = question_with_document(&rehearsal_library(seed), &REHEARSAL);
        LibraryRecord { family: format!("rehearsal/{}", record.family), ..record }
    };
    (FIRST_RESERVED_SEED..).take(n).map(with_document).collect()
}

/// Invents the library of a rehearsal question.
pub(super) fn rehearsal_library(seed: u64) -> SyntheticLibrary {
    SyntheticLibrary::invent_from(seed, N_FUNCTIONS, &documented_operations())
}

/// Generates `n` records that teach to use a library from a document in front, each about a library
/// of its own. A quarter of all operations is in none of them: see [`super::is_new_to_reader`].
pub fn reader_records(n: usize) -> Vec<LibraryRecord> {
    let operations = documented_operations();
    let with_document = |seed| {
        let n_functions = N_FUNCTIONS + SeededRng::new(seed, "size").below(MAX_MORE_OF_READER + 1);
        let library = SyntheticLibrary::invent_from(seed, n_functions, &operations);
        question_with_document(&library, &READER)
    };
    (FIRST_SEED_OF_READER..).take(n).map(with_document).collect()
}

/// Asks a question about a library, with one of these documents in front. Three of four questions
/// ask for a call.
fn question_with_document(library: &SyntheticLibrary, kinds: &[DocumentKind; 8]) -> LibraryRecord {
    let mut rng = SeededRng::new(library.seed(), "document");
    let (n_calls, n_facts) = if rng.below(4) < 3 { (1, 0) } else { (0, 1) };
    let options = RecordOptions { n_assignments: n_calls, n_definitions: n_calls, n_facts };
    let mut record = rng.pick(&library.training(options)).clone();
    let answer = &record.messages[1].content;
    let document = match *rng.pick(kinds) {
        DocumentKind::Among(n_others) => {
            passages(library, &chosen(library, answer, n_others, &mut rng))
        }
        DocumentKind::ShortReadme(n_others) => {
            let mut shown = chosen(library, answer, n_others, &mut rng);
            shown.sort_unstable();
            format!("# {}\n\n{}", library.name(), passages(library, &shown))
        }
        DocumentKind::WholeReadme => library.readme().trim_end().to_owned(),
    };
    let introduction = rng.pick(&INTRODUCTIONS).replace("{library}", library.name());
    let question = &mut record.messages[0].content;
    *question = format!("{introduction}{document}\n\n{question}");
    record
}

/// Returns the indices of the passages that introduce the names in `answer`, and of `n_others`
/// others, in a random order.
fn chosen(
    library: &SyntheticLibrary,
    answer: &str,
    n_others: usize,
    rng: &mut SeededRng,
) -> Vec<usize> {
    let wanted = library.passages_about(answer);
    let is_other = |index: &usize| !wanted.contains(index);
    let mut others: Vec<usize> = (0..library.passages().len()).filter(is_other).collect();
    rng.shuffle(&mut others);
    others.truncate(n_others);
    let mut chosen = [wanted, others].concat();
    rng.shuffle(&mut chosen);
    chosen
}

/// Renders the passages with these indices.
fn passages(library: &SyntheticLibrary, indices: &[usize]) -> String {
    let all = library.passages();
    let shown: Vec<&str> = indices.iter().map(|index| all[*index].trim_end()).collect();
    shown.join("\n\n")
}
