//! Reads what small models write: code blocks and lists, in every form that was seen.

mod code;
mod list;

pub use code::Block;
pub use code::code_blocks;
pub(super) use code::continuation;
pub(super) use code::stitch;
pub(super) use code::without_thoughts;
pub(super) use list::Item;
pub(super) use list::Need;
pub(super) use list::items;
