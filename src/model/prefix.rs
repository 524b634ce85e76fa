//! Prefix cache: a radix tree of token sequences with one KV page per node.
//!
//! ```text
//! adapter 0 -+- page 10: 32 tokens -+- page 11: 32 tokens --- page 12: 5 tokens (leaf)
//!            |                      +- page 21: 32 tokens (leaf)
//!            +- page 30: 9 tokens (leaf)
//! adapter 7 --- ...
//! ```
//!
//! Inner nodes are always full ([`PAGE`] tokens); only leaves may be partial. A lookup may use the
//! first tokens of a node whose rest differs: keys depend on earlier tokens alone, so that part of
//! the page is valid. Siblings may therefore share leading tokens, unlike in a textbook radix tree,
//! where such nodes are split: a page can't be.

use std::collections::HashMap;

use super::kernels::PAGE;

/// Cached prefixes, keyed by adapter: the same tokens have different keys and values under another
/// adapter.
#[derive(Default)]
pub(super) struct PrefixTree {
    nodes: HashMap<usize, PrefixNode>,
    /// Root nodes by adapter number.
    roots: HashMap<u64, Vec<usize>>,
    /// Logical time for LRU eviction; also the source of node ids.
    clock: usize,
}

struct PrefixNode {
    /// `Ok` is the parent node's id; `Err` is the adapter number of a root.
    parent: Result<usize, u64>,
    /// Tokens whose keys the page holds: [`PAGE`] of them, fewer only in a leaf.
    tokens: Vec<u32>,
    page: usize,
    children: Vec<usize>,
    /// Logical time of the last use.
    used: usize,
}

/// Pages added to the tree and removed from it by an insertion.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ChangedPages {
    pub(super) added: Vec<usize>,
    pub(super) removed: Vec<usize>,
}

impl PrefixTree {
    /// Finds the longest cached prefix of `tokens`: its nodes, root first, and its length in
    /// tokens.
    pub(super) fn find(&self, adapter: u64, tokens: &[u32]) -> (Vec<usize>, usize) {
        let mut found = Vec::new();
        let mut n = 0;
        let mut children = self.roots.get(&adapter);
        while let Some(best) = children.and_then(|ids| self.best(ids, &tokens[n..])) {
            let (id, common) = best;
            found.push(id);
            n += common;
            children = (common == PAGE).then(|| &self.nodes[&id].children);
        }
        (found, n)
    }

    /// The node among `ids` with the longest common prefix with `tokens`, and that length; `None`
    /// if all lengths are 0.
    fn best(&self, ids: &[usize], tokens: &[u32]) -> Option<(usize, usize)> {
        let common = |id: &usize| {
            self.nodes[id].tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count()
        };
        let lengths = ids.iter().map(|id| (*id, common(id)));
        lengths.max_by_key(|(_, common)| *common).filter(|(_, common)| *common > 0)
    }

    /// Marks nodes as just used and returns their pages.
    pub(super) fn touch(&mut self, ids: &[usize]) -> Vec<usize> {
        self.clock += 1;
        let mut pages = Vec::with_capacity(ids.len());
        for id in ids {
            let node = self.nodes.get_mut(id).expect("returned by `find`");
            node.used = self.clock;
            pages.push(node.page);
        }
        pages
    }

    /// Inserts `tokens`, held by `pages`. Chunks that are already cached keep their existing page.
    pub(super) fn insert(&mut self, adapter: u64, tokens: &[u32], pages: &[usize]) -> ChangedPages {
        self.clock += 1;
        let mut changed = ChangedPages::default();
        let mut parent = Err(adapter);
        for (tokens, page) in tokens.chunks(PAGE).zip(pages) {
            let siblings = match parent {
                Err(adapter) => self.roots.entry(adapter).or_default(),
                Ok(id) => {
                    &mut self.nodes.get_mut(&id).expect("the parent was just inserted").children
                }
            };
            let siblings = siblings.clone();
            let best = self.best(&siblings, tokens);
            let id = match best {
                Some((id, common)) if common == tokens.len() => id,
                // The chunk extends a partial leaf: the new page holds everything the old one did,
                // so it replaces it.
                Some((id, common)) if common == self.nodes[&id].tokens.len() => {
                    let node = self.nodes.get_mut(&id).expect("returned by `find`");
                    node.tokens = tokens.to_vec();
                    changed.removed.push(std::mem::replace(&mut node.page, *page));
                    changed.added.push(*page);
                    id
                }
                _ => {
                    changed.added.push(*page);
                    self.add(parent, tokens, *page)
                }
            };
            self.nodes.get_mut(&id).expect("found or added").used = self.clock;
            parent = Ok(id);
        }
        changed
    }

    fn add(&mut self, parent: Result<usize, u64>, tokens: &[u32], page: usize) -> usize {
        self.clock += 1;
        let id = self.clock;
        let (tokens, children) = (tokens.to_vec(), Vec::new());
        self.nodes.insert(id, PrefixNode { parent, tokens, page, children, used: id });
        self.siblings(parent).push(id);
        id
    }

    fn siblings(&mut self, parent: Result<usize, u64>) -> &mut Vec<usize> {
        match parent {
            Ok(id) => &mut self.nodes.get_mut(&id).expect("a parent outlives its child").children,
            Err(adapter) => self.roots.entry(adapter).or_default(),
        }
    }

    /// Evicts the least recently used leaf and returns its page, preferring pages that are idle. A
    /// page in use can hide an idle parent: two sequences that computed the same tokens hold
    /// different pages, and only one of them is in the tree.
    pub(super) fn remove_oldest(&mut self, is_idle: impl Fn(usize) -> bool) -> Option<usize> {
        let leaves = self.nodes.iter().filter(|(_, node)| node.children.is_empty());
        let id = *leaves.min_by_key(|(_, node)| (!is_idle(node.page), node.used))?.0;
        let node = self.nodes.remove(&id)?;
        self.siblings(node.parent).retain(|sibling| *sibling != id);
        Some(node.page)
    }
}

#[cfg(test)]
mod tests {
    use super::ChangedPages;
    use super::PAGE;
    use super::PrefixTree;

    fn text(n: usize, last: u32) -> Vec<u32> {
        let n = u32::try_from(n).unwrap();
        (0..n - 1).chain([last]).collect()
    }

    #[test]
    fn longest_prefix_is_found_within_a_page_and_per_adapter() {
        let mut tree = PrefixTree::default();
        let first = tree.insert(0, &text(2 * PAGE + 5, 900), &[10, 11, 12]);
        assert_eq!(first, ChangedPages { added: vec![10, 11, 12], removed: vec![] });
        let second = tree.insert(0, &text(2 * PAGE, 901), &[20, 21]);
        assert_eq!(
            second,
            ChangedPages { added: vec![21], removed: vec![] },
            "the first page is known"
        );

        let found = |tokens: &[u32]| tree.find(0, tokens).1;
        assert_eq!(found(&text(2 * PAGE + 5, 900)), 2 * PAGE + 5);
        assert_eq!(found(&text(2 * PAGE + 5, 902)), 2 * PAGE + 4);
        assert_eq!(found(&text(2 * PAGE, 901)), 2 * PAGE);
        assert_eq!(found(&text(PAGE + 3, 7)), PAGE + 2);
        assert_eq!(found(&[5, 6]), 0);
        assert_eq!(tree.find(1, &text(9, 0)).1, 0);
    }

    #[test]
    fn longer_leaf_replaces_its_prefix_and_shorter_one_is_dropped() {
        let mut tree = PrefixTree::default();
        tree.insert(0, &text(5, 4), &[1]);
        let longer = tree.insert(0, &text(9, 8), &[2]);
        assert_eq!(longer, ChangedPages { added: vec![2], removed: vec![1] });
        assert_eq!(tree.insert(0, &text(7, 6), &[3]), ChangedPages::default());
    }

    #[test]
    fn eviction_takes_the_oldest_idle_leaf_and_never_an_inner_node() {
        let mut tree = PrefixTree::default();
        tree.insert(0, &text(PAGE + 1, 900), &[1, 2]);
        tree.insert(0, &text(PAGE + 1, 901), &[1, 3]);
        let (nodes, _) = tree.find(0, &text(PAGE + 1, 900));
        tree.touch(&nodes);
        assert_eq!(tree.remove_oldest(|page| page != 3), Some(2), "page 3 is in use");
        assert_eq!(tree.remove_oldest(|page| page != 3), Some(3), "it hides page 1");
        assert_eq!(tree.remove_oldest(|_| true), Some(1));
        assert_eq!(tree.remove_oldest(|_| true), None);
    }
}
