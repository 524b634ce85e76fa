//! The keys and values that sequences have seen, in pages that sequences with a common prefix share.
//!
//! A page holds all layers of [`PAGE`] tokens (Kwon et al. 2023, arXiv:2309.06180). Pages of finished prompts and
//! answers are remembered in a tree of prefixes ([`super::prefix`]) until their memory is needed: what was not used
//! for longest goes first. A page is written by one sequence alone; who shares one copies it before writing.

use super::kernels::Buffer;
use super::kernels::HeadPage;
use super::kernels::PAGE;
use super::prefix::PrefixTree;
use super::weights::Shape;

/// All pages, and the tree of those that are remembered.
pub(super) struct KvStore {
    n_layers: usize,
    n_kv_heads: usize,
    head_dim: usize,
    pages: Vec<Page>,
    free: Vec<usize>,
    most_pages: usize,
    n_in_use: usize,
    tree: PrefixTree,
}

struct Page {
    /// Layer by layer, head by head: keys `(head_dim, PAGE)`, then values `(PAGE, head_dim)`.
    numbers: Buffer,
    /// Sequences at work that see it.
    users: usize,
    /// Whether the tree has it.
    remembered: bool,
}

/// What one sequence has seen: its tokens, and the pages with their keys and values. It has to be given back by
/// [`KvStore::release`].
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

/// Bytes of the keys and values of one token.
pub(super) fn token_bytes(shape: &Shape) -> usize {
    shape.n_layers * shape.kv_width() * 2 * size_of::<f32>()
}

impl KvStore {
    /// A store for a model of `shape` that never holds more than `n_bytes`, but at least two pages.
    pub(super) fn new(shape: &Shape, n_bytes: usize) -> Self {
        let most_pages = (n_bytes / (token_bytes(shape) * PAGE)).max(2);
        Self {
            n_layers: shape.n_layers,
            n_kv_heads: shape.n_kv_heads,
            head_dim: shape.head_dim,
            pages: Vec::new(),
            free: Vec::new(),
            most_pages,
            n_in_use: 0,
            tree: PrefixTree::default(),
        }
    }

    /// The most tokens that one sequence can have: a page is set aside for copying.
    pub(super) fn most_tokens(&self) -> usize {
        (self.most_pages - 1) * PAGE
    }

    /// Pages that are neither in use by a sequence at work nor beyond the limit.
    pub(super) fn n_available(&self) -> usize {
        self.most_pages - self.n_in_use
    }

    /// How many of the first tokens are remembered for this adapter.
    pub(super) fn n_remembered(&self, adapter: u64, tokens: &[u32]) -> usize {
        self.tree.find(adapter, tokens).1
    }

    /// Begins a sequence with what is remembered of the first of `tokens`.
    pub(super) fn begin(&mut self, adapter: u64, tokens: &[u32]) -> KvCache {
        let (nodes, n) = self.tree.find(adapter, tokens);
        let pages: Vec<usize> = self.tree.touch(&nodes);
        for page in &pages {
            self.take(*page);
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
            && (self.pages[*last].users > 1 || self.pages[*last].remembered)
        {
            let copy = self.allocate();
            let [from, to] =
                self.pages.get_disjoint_mut([*last, copy]).expect("a new page is another one");
            to.numbers.copy_from_slice(&from.numbers);
            self.give_back(std::mem::replace(last, copy));
        }
        while cache.pages.len() * PAGE < cache.tokens.len() + n {
            let page = self.allocate();
            cache.pages.push(page);
        }
    }

    /// Remembers what `cache` holds.
    pub(super) fn remember(&mut self, adapter: u64, cache: &KvCache) {
        let changed = self.tree.insert(adapter, &cache.tokens, &cache.pages);
        changed.added.into_iter().for_each(|page| self.pages[page].remembered = true);
        changed.removed.into_iter().for_each(|page| self.forget(page));
    }

    /// Ends a sequence.
    pub(super) fn release(&mut self, cache: KvCache) {
        cache.pages.into_iter().for_each(|page| self.give_back(page));
    }

    /// Writes the key and the value of the token at `position` of `cache` to a layer; each `(n_kv_heads, head_dim)`.
    pub(super) fn write(
        &mut self,
        cache: &KvCache,
        layer: usize,
        position: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let (head_dim, slot) = (self.head_dim, position % PAGE);
        let panel = head_dim * PAGE;
        let at = layer * self.n_kv_heads * 2 * panel;
        let numbers = &mut self.pages[cache.pages[position / PAGE]].numbers[at..];
        let heads = key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim));
        for ((key, value), numbers) in heads.zip(numbers.chunks_exact_mut(2 * panel)) {
            let (keys, values) = numbers.split_at_mut(panel);
            for (place, number) in keys[slot..].iter_mut().step_by(PAGE).zip(key) {
                *place = *number;
            }
            values[slot * head_dim..][..head_dim].copy_from_slice(value);
        }
    }

    /// The pages of a sequence as one head of a layer sees them.
    pub(super) fn head_pages(
        &self,
        cache: &KvCache,
        layer: usize,
        head: usize,
    ) -> impl Iterator<Item = HeadPage<'_>> + Clone {
        let panel = self.head_dim * PAGE;
        let at = (layer * self.n_kv_heads + head) * 2 * panel;
        cache.pages.iter().map(move |page| {
            let (keys, values) = self.pages[*page].numbers[at..][..2 * panel].split_at(panel);
            HeadPage { keys, values }
        })
    }

    /// A page for one user: a new one, a free one, or the one that nobody has used for longest.
    fn allocate(&mut self) -> usize {
        let page = if let Some(page) = self.free.pop() {
            page
        } else if self.pages.len() < self.most_pages {
            let n = self.n_layers * self.n_kv_heads * 2 * self.head_dim * PAGE;
            let numbers = Buffer::zeroed(n);
            self.pages.push(Page { numbers, users: 0, remembered: false });
            self.pages.len() - 1
        } else {
            loop {
                let oldest = self.tree.remove_oldest(|page| self.pages[page].users == 0);
                let page = oldest.expect("the scheduler takes up no more than there is room for");
                self.pages[page].remembered = false;
                if self.pages[page].users == 0 {
                    break page;
                }
            }
        };
        self.take(page);
        page
    }

    fn take(&mut self, page: usize) {
        self.pages[page].users += 1;
        self.n_in_use += usize::from(self.pages[page].users == 1);
    }

    fn give_back(&mut self, page: usize) {
        let Page { users, remembered, .. } = &mut self.pages[page];
        *users -= 1;
        if *users == 0 {
            self.n_in_use -= 1;
            if !*remembered {
                self.free.push(page);
            }
        }
    }

    fn forget(&mut self, page: usize) {
        self.pages[page].remembered = false;
        if self.pages[page].users == 0 {
            self.free.push(page);
        }
    }
}
