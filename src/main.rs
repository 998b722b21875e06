//! The binary `kvs`. No logic lives here.

use std::process::ExitCode;

fn main() -> ExitCode {
    kvs::cli::main()
}
