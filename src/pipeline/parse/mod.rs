//! Reads what small models write: code blocks and lists, in every form that was seen.

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
