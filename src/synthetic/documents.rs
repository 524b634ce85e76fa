//! Questions about invented libraries, with the document that answers them in front.
//!
//! They teach to read what stands in front of a question. Every question is about another library,
//! so that no name can be learned by heart.

use super::library::SyntheticLibrary;
use super::random::SeededRng;
use super::records::LibraryRecord;
use super::records::RecordOptions;

/// Seeds from here on are reserved for rehearsal: no library to be learned or measured has one.
pub const FIRST_RESERVED_SEED: u64 = 1 << 40;

/// Number of functions in each library.
const N_FUNCTIONS: usize = 6;
/// Number of passages that the wanted ones are hidden among, and in a short README.
const N_OTHERS: usize = 2;
const N_OTHERS_OF_README: usize = 3;

/// Introductions of a document. Tests use none of them.
const INTRODUCTIONS: [&str; 5] = [
    "",
    "Documentation of {library}:\n\n",
    "The manual of the Python package {library} says:\n\n",
    "Notes on {library}, which is installed here:\n\n",
    "Read this about {library} first.\n\n",
];

/// Generates `n` questions with their answers, each about a library of its own. Of eight documents,
/// five are the passages that answer the question, two hide them among others, and one is a README
/// of some of the passages. None is as long as a whole README, because tokens cost time.
pub fn document_questions(n: usize) -> Vec<LibraryRecord> {
    (FIRST_RESERVED_SEED..).take(n).map(with_document).collect()
}

/// Invents the library of `seed` and asks a question about it. Three of four ask for a call.
fn with_document(seed: u64) -> LibraryRecord {
    let library = SyntheticLibrary::invent(seed, N_FUNCTIONS);
    let mut rng = SeededRng::new(seed, "document");
    let (n_calls, n_facts) = if rng.below(4) < 3 { (1, 0) } else { (0, 1) };
    let options = RecordOptions { n_assignments: n_calls, n_definitions: n_calls, n_facts };
    let mut record = rng.pick(&library.training(options)).clone();
    let answer = &record.messages[1].content;
    let document = match rng.below(8) {
        0..5 => passages(&library, &chosen(&library, answer, 0, &mut rng)),
        5..7 => passages(&library, &chosen(&library, answer, N_OTHERS, &mut rng)),
        _ => {
            let mut shown = chosen(&library, answer, N_OTHERS_OF_README, &mut rng);
            shown.sort_unstable();
            format!("# {}\n\n{}", library.name(), passages(&library, &shown))
        }
    };
    let introduction = rng.pick(&INTRODUCTIONS).replace("{library}", library.name());
    let question = &mut record.messages[0].content;
    *question = format!("{introduction}{document}\n\n{question}");
    record.family = format!("rehearsal/{}", record.family);
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
