//! a
mod parse;
