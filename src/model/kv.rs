//! The keys and values that sequences have seen, in pages that sequences with a common prefix
//! share.
//!
//! A page holds all layers of [`PAGE`] tokens (Kwon et al. 2023, arXiv:2309.06180). Pages of
//! finished prompts and answers are remembered in a tree of prefixes ([`super::prefix`]) until
//! their memory is needed: what was not used for longest goes first. A page is written by one
//! sequence alone; who shares one copies it before writing.

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

/// All pages, and the tree of those that are remembered.
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

/// What stands in the pages, layer by layer, head by head: keys `(head_dim, PAGE)`, then values
/// `(PAGE, head_dim)`.
enum KvNumbers {
    Half(Vec<AlignedBuffer<f16>>),
    Full(Vec<AlignedBuffer<f32>>),
}

struct KvPage {
    /// Sequences at work that see it.
    users: usize,
    /// Whether the tree has it.
    is_cached: bool,
}

/// What one sequence has seen: its tokens, and the pages with their keys and values. It has to be
/// given back by [`KvStore::release`].
#[derive(Default)]
pub(super) struct KvCache {
    tokens: Vec<u32>,
    pages: Vec<usize>,
}

impl KvCache {
    /// Tokens held.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Pages held.
    pub(super) fn n_pages(&self) -> usize {
        self.pages.len()
    }

    /// Counts new tokens as held, when every layer has them.
    pub(super) fn advance(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }
}

impl KvStore {
    /// A store for a model of `shape` that never holds more than `n_bytes`, but at least two pages.
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

    /// Bytes of the keys and values of one token.
    pub(super) fn token_bytes(&self) -> usize {
        self.token_bytes
    }

    /// The most tokens that one sequence can have: a page is set aside for copying.
    pub(super) fn max_tokens(&self) -> usize {
        (self.max_pages - 1) * PAGE
    }

    /// Pages that are neither in use by a sequence at work nor beyond the limit.
    pub(super) fn n_available(&self) -> usize {
        self.max_pages - self.n_in_use
    }

    /// How many of the first tokens are remembered for this adapter.
    pub(super) fn n_cached(&self, adapter: u64, tokens: &[u32]) -> usize {
        self.tree.find(adapter, tokens).1
    }

    /// Begins a sequence with what is remembered of the first of `tokens`.
    pub(super) fn begin(&mut self, adapter: u64, tokens: &[u32]) -> KvCache {
        let (nodes, n) = self.tree.find(adapter, tokens);
        let pages: Vec<usize> = self.tree.touch(&nodes);
        for page in &pages {
            self.add_user(*page);
        }
        KvCache { tokens: tokens[..n].to_vec(), pages }
    }

    /// Makes room for `n` more tokens at the end of `cache`, in pages of its own.
    ///
    /// # Panics
    /// When more pages are in use than the caller made sure of by [`Self::n_available`].
    pub(super) fn grow(&mut self, cache: &mut KvCache, n: usize) {
        if let Some(last) = cache.pages.last_mut()
            && !cache.tokens.len().is_multiple_of(PAGE)
            && (self.pages[*last].users > 1 || self.pages[*last].is_cached)
        {
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

    /// Remembers what `cache` holds.
    pub(super) fn remember(&mut self, adapter: u64, cache: &KvCache) {
        let changed = self.tree.insert(adapter, &cache.tokens, &cache.pages);
        changed.added.into_iter().for_each(|page| self.pages[page].is_cached = true);
        changed.removed.into_iter().for_each(|page| self.uncache(page));
    }

    /// Ends a sequence.
    pub(super) fn release(&mut self, cache: KvCache) {
        cache.pages.into_iter().for_each(|page| self.drop_user(page));
    }

    /// Writes the key and the value of the token at `position` of `cache` to a layer; each
    /// `(n_kv_heads, head_dim)`.
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

    /// [`attend`] to what `cache` holds for one head of a layer.
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

    /// Numbers of one head of a layer in a page.
    fn head_numbers(&self) -> usize {
        2 * self.head_dim * PAGE
    }

    /// A page for one user: a new one, a free one, or the one that nobody has used for longest.
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
                let oldest = self.tree.remove_oldest(|page| self.pages[page].users == 0);
                let page = oldest.expect("the scheduler takes up no more than there is room for");
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

/// Copies a page over another one.
fn copy_page<T: KvElement>(pages: &mut [AlignedBuffer<T>], from: usize, to: usize) {
    let [from, to] = pages.get_disjoint_mut([from, to]).expect("a new page is another one");
    to.copy_from_slice(from);
}

/// Writes the key and the value of one token to the heads of a layer.
fn write<T: KvElement>(
    numbers: &mut [T],
    head_dim: usize,
    slot: usize,
    key: &[f32],
    value: &[f32],
) {
    const TOGETHER: usize = 32;
    let panel = head_dim * PAGE;
    let heads = key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim));
    for ((key, value), numbers) in heads.zip(numbers.chunks_exact_mut(2 * panel)) {
        let (keys, values) = numbers.split_at_mut(panel);
        T::round(value, &mut values[slot * head_dim..][..head_dim]);
        for (key, keys) in key.chunks(TOGETHER).zip(keys.chunks_mut(TOGETHER * PAGE)) {
            let mut nearest = [T::default(); TOGETHER];
            T::round(key, &mut nearest[..key.len()]);
            for (place, number) in keys[slot..].iter_mut().step_by(PAGE).zip(nearest) {
                *place = number;
            }
        }
    }
}

/// The pages of a sequence as one head of a layer sees them: `size` numbers from `at` on.
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
