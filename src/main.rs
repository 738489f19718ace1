//! The `lbd` program: hands the arguments to `lbd::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    lbd::cli::main(std::env::args_os().collect())
}
