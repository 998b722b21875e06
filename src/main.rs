//! The binary `kvs`: hands the arguments to the command they name. No logic lives here.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    kvs::cli::run(kvs::cli::Arguments::parse())
}
