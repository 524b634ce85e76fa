//! Parses answers of small models: code blocks and lists in every observed form.

mod code;
mod list;

pub use code::CodeBlock;
pub use code::code_blocks;
pub(super) use code::continuation;
pub(super) use code::stitch;
pub(super) use code::without_thoughts;
pub(super) use list::ItemNeed;
pub(super) use list::ListItem;
pub(super) use list::items;
