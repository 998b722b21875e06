//! The binary `kvs`: parses the arguments and runs the command. No logic lives here.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    kvs::cli::run(kvs::cli::Arguments::parse())
}
