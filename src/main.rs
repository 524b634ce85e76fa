//! The `rune` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rune::cli::main()
}
