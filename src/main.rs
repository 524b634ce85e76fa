//! The `rune` binary. All code is in the library.

use std::process::ExitCode;

use rune::sandbox;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // Must come first: the sandbox helper forks, and so must never have a second thread.
    if args.next().is_some_and(|name| name == sandbox::HELPER_SUBCOMMAND) {
        return ExitCode::from(sandbox::helper_main(args));
    }
    rune::cli::main()
}
