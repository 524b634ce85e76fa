//! Paged KV cache with prefix sharing.
//!
//! A page holds the keys and values of [`PAGE`] tokens, all layers (Kwon et al. 2023, paged
//! attention, arXiv:2309.06180). Pages of finished prompts and answers stay in the prefix tree
//! ([`super::prefix`]) until their memory is needed; the least recently used leaf is evicted first.
//! A page has at most one writer: a sequence that shares its last page copies it before appending
//! (copy-on-write).
//!
//! ```text
//! sequence A  tokens 0..70  pages [0, 1, 2]     users: page 0 = 2, 1 = 2, 2 = 1, 3 = 1
//! sequence B  tokens 0..68  pages [0, 1, 3]     A and B share a prefix of 64 tokens
//!
//!   prefix tree:  [page 0] -- [page 1] -+- [page 2]   tokens 64..70 of A
//!                                       +- [page 3]   tokens 64..68 of B
//!
//! one page:
//!   layer 0, head 0: keys (head_dim, PAGE) | values (PAGE, head_dim)
//!   layer 0, head 1: keys (head_dim, PAGE) | values (PAGE, head_dim)
//!   ...
//!   layer 1, head 0: ...
//! ```
//!
//! Keys are stored transposed: scores of one query for a whole page are then sums over contiguous
//! vectors, as outputs are over values.

use half::f16;

use super::kernels::AlignedBuffer;
use super::kernels::AttentionBlock;
use super::kernels::HeadPage;
use super::kernels::Isa;
use super::kernels::KvElement;
use super::kernels::PAGE;
use super::kernels::attend;
use super::prefix::PrefixTree;
use super::weights::ModelShape;
use super::weights::Precision;

/// The page allocator and the prefix tree over cached pages.
pub(super) struct KvStore {
    n_layers: usize,
    n_kv_heads: usize,
    head_dim: usize,
    pages: Vec<KvPage>,
    numbers: KvNumbers,
    token_bytes: usize,
    free: Vec<usize>,
    max_pages: usize,
    n_in_use: usize,
    tree: PrefixTree,
}

/// Contents of the pages; see the module's diagram for the layout.
enum KvNumbers {
    Half(Vec<AlignedBuffer<f16>>),
    Full(Vec<AlignedBuffer<f32>>),
}

struct KvPage {
    /// Active sequences that reference the page.
    users: usize,
    /// Whether the prefix tree references the page.
    is_cached: bool,
}

/// The cached tokens of one sequence and the pages that hold their keys and values. Must be
/// returned with [`KvStore::release`], or its pages leak.
#[derive(Default)]
pub(super) struct KvCache {
    tokens: Vec<u32>,
    pages: Vec<usize>,
}

impl KvCache {
    /// Number of cached tokens.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Number of pages referenced.
    pub(super) fn n_pages(&self) -> usize {
        self.pages.len()
    }

    /// Appends tokens whose keys and values have been written in every layer.
    pub(super) fn advance(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }
}

impl KvStore {
    /// Creates an empty store limited to `n_bytes`, with a minimum of two pages.
    pub(super) fn new(shape: &ModelShape, precision: Precision, n_bytes: usize) -> Self {
        let (numbers, width) = match precision {
            Precision::Packed => (KvNumbers::Half(Vec::new()), size_of::<f16>()),
            Precision::Exact => (KvNumbers::Full(Vec::new()), size_of::<f32>()),
        };
        let token_bytes = shape.n_layers * shape.kv_width() * 2 * width;
        Self {
            n_layers: shape.n_layers,
            n_kv_heads: shape.n_kv_heads,
            head_dim: shape.head_dim,
            pages: Vec::new(),
            numbers,
            token_bytes,
            free: Vec::new(),
            max_pages: (n_bytes / (token_bytes * PAGE)).max(2),
            n_in_use: 0,
            tree: PrefixTree::default(),
        }
    }

    /// Bytes per token, all layers together.
    pub(super) fn token_bytes(&self) -> usize {
        self.token_bytes
    }

    /// Maximum tokens of one sequence. One page is reserved for copy-on-write.
    pub(super) fn max_tokens(&self) -> usize {
        (self.max_pages - 1) * PAGE
    }

    /// Pages that an active sequence could still get: free, unallocated, or held by the prefix tree
    /// alone.
    pub(super) fn n_available(&self) -> usize {
        self.max_pages - self.n_in_use
    }

    /// Length of the longest cached prefix of `tokens` under this adapter.
    pub(super) fn n_cached(&self, adapter: u64, tokens: &[u32]) -> usize {
        self.tree.find(adapter, tokens).1
    }

    /// Starts a sequence from the longest cached prefix of `tokens`.
    pub(super) fn begin(&mut self, adapter: u64, tokens: &[u32]) -> KvCache {
        let (nodes, n) = self.tree.find(adapter, tokens);
        let pages: Vec<usize> = self.tree.touch(&nodes);
        for page in &pages {
            self.add_user(*page);
        }
        KvCache { tokens: tokens[..n].to_vec(), pages }
    }

    /// Allocates space for `n` more tokens at the end of `cache`, copying a shared last page.
    ///
    /// # Panics
    /// When no page is available; callers check [`Self::n_available`] first.
    pub(super) fn grow(&mut self, cache: &mut KvCache, n: usize) {
        if let Some(last) = cache.pages.last_mut()
            && !cache.tokens.len().is_multiple_of(PAGE)
            && (self.pages[*last].users > 1 || self.pages[*last].is_cached)
        {
            // Copy-on-write: other sequences or the prefix tree still read the original.
            let copy = self.allocate();
            match &mut self.numbers {
                KvNumbers::Half(pages) => copy_page(pages, *last, copy),
                KvNumbers::Full(pages) => copy_page(pages, *last, copy),
            }
            self.drop_user(std::mem::replace(last, copy));
        }
        while cache.pages.len() * PAGE < cache.tokens.len() + n {
            let page = self.allocate();
            cache.pages.push(page);
        }
    }

    /// Inserts the tokens and pages of `cache` into the prefix tree.
    pub(super) fn remember(&mut self, adapter: u64, cache: &KvCache) {
        let changed = self.tree.insert(adapter, &cache.tokens, &cache.pages);
        changed.added.into_iter().for_each(|page| self.pages[page].is_cached = true);
        changed.removed.into_iter().for_each(|page| self.uncache(page));
    }

    /// Releases the pages of a finished sequence.
    pub(super) fn release(&mut self, cache: KvCache) {
        cache.pages.into_iter().for_each(|page| self.drop_user(page));
    }

    /// Writes the key and value of the token at `position` in one layer, each `(n_kv_heads,
    /// head_dim)`.
    pub(super) fn write(
        &mut self,
        cache: &KvCache,
        layer: usize,
        position: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let (page, slot) = (cache.pages[position / PAGE], position % PAGE);
        let at = layer * self.n_kv_heads * self.head_numbers();
        match &mut self.numbers {
            KvNumbers::Half(pages) => {
                write(&mut pages[page][at..], self.head_dim, slot, key, value);
            }
            KvNumbers::Full(pages) => {
                write(&mut pages[page][at..], self.head_dim, slot, key, value);
            }
        }
    }

    /// Runs [`attend`] over the cached tokens for one KV head of a layer.
    pub(super) fn attend(
        &self,
        isa: Isa,
        block: &AttentionBlock<'_>,
        (cache, layer, head): (&KvCache, usize, usize),
        done: impl FnMut(usize, &[f32]),
    ) {
        let size = self.head_numbers();
        let at = (layer * self.n_kv_heads + head) * size;
        match &self.numbers {
            KvNumbers::Half(pages) => attend(isa, block, head_pages(pages, cache, at, size), done),
            KvNumbers::Full(pages) => attend(isa, block, head_pages(pages, cache, at, size), done),
        }
    }

    /// Elements of one head of one layer in a page, keys and values together.
    fn head_numbers(&self) -> usize {
        2 * self.head_dim * PAGE
    }

    /// Returns a page with one user: a free one, a new one, or an evicted one.
    fn allocate(&mut self) -> usize {
        let page = if let Some(page) = self.free.pop() {
            page
        } else if self.pages.len() < self.max_pages {
            let n = self.n_layers * self.n_kv_heads * self.head_numbers();
            match &mut self.numbers {
                KvNumbers::Half(pages) => pages.push(AlignedBuffer::zeroed(n)),
                KvNumbers::Full(pages) => pages.push(AlignedBuffer::zeroed(n)),
            }
            self.pages.push(KvPage { users: 0, is_cached: false });
            self.pages.len() - 1
        } else {
            loop {
                // A removed leaf can still be in use by a sequence; it only stops being shareable,
                // and its parent becomes the next candidate.
                let oldest = self.tree.remove_oldest(|page| self.pages[page].users == 0);
                let page = oldest.expect("the scheduler admits only sequences that fit");
                self.pages[page].is_cached = false;
                if self.pages[page].users == 0 {
                    break page;
                }
            }
        };
        self.add_user(page);
        page
    }

    fn add_user(&mut self, page: usize) {
        self.pages[page].users += 1;
        self.n_in_use += usize::from(self.pages[page].users == 1);
    }

    fn drop_user(&mut self, page: usize) {
        let KvPage { users, is_cached, .. } = &mut self.pages[page];
        *users -= 1;
        if *users == 0 {
            self.n_in_use -= 1;
            if !*is_cached {
                self.free.push(page);
            }
        }
    }

    fn uncache(&mut self, page: usize) {
        self.pages[page].is_cached = false;
        if self.pages[page].users == 0 {
            self.free.push(page);
        }
    }
}

/// Copies the contents of page `from` to page `to`.
fn copy_page<T: KvElement>(pages: &mut [AlignedBuffer<T>], from: usize, to: usize) {
    let [from, to] = pages
        .get_disjoint_mut([from, to])
        .expect("a newly allocated page differs from the copied one");
    to.copy_from_slice(from);
}

/// Writes the key and value of one token to all heads of a layer.
fn write<T: KvElement>(
    numbers: &mut [T],
    head_dim: usize,
    slot: usize,
    key: &[f32],
    value: &[f32],
) {
    const CHUNK: usize = 32;
    let panel = head_dim * PAGE;
    let heads = key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim));
    for ((key, value), numbers) in heads.zip(numbers.chunks_exact_mut(2 * panel)) {
        let (keys, values) = numbers.split_at_mut(panel);
        T::round(value, &mut values[slot * head_dim..][..head_dim]);
        // Keys are scattered with a stride of `PAGE`; converting a chunk at a time keeps the
        // vectorized rounding.
        for (key, keys) in key.chunks(CHUNK).zip(keys.chunks_mut(CHUNK * PAGE)) {
            let mut nearest = [T::default(); CHUNK];
            T::round(key, &mut nearest[..key.len()]);
            for (place, number) in keys[slot..].iter_mut().step_by(PAGE).zip(nearest) {
                *place = number;
            }
        }
    }
}

/// The pages of a sequence restricted to one head of a layer: `size` elements from offset `at` of
/// each page.
fn head_pages<'a, T>(
    pages: &'a [AlignedBuffer<T>],
    cache: &'a KvCache,
    at: usize,
    size: usize,
) -> impl Iterator<Item = HeadPage<'a, T>> + Clone {
    cache.pages.iter().map(move |page| {
        let (keys, values) = pages[*page][at..][..size].split_at(size / 2);
        HeadPage { keys, values }
    })
}
