//! The command line of clusdb. Its contract is in `docs/command-line.md`.
#![deny(unsafe_code)]

mod args;
mod check;
mod failure;
mod import;
mod json;
mod keeping;
mod output;
mod reg;
mod session;
mod tour;
mod verbs;
mod via;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Format, Port, Verb};
use failure::{Failure, Result, exit};
use session::Session;

fn main() -> ExitCode {
    keep_quiet_about_trees();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&error),
    };
    let format = cli.output;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(format);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// A panic inside sled is caught, and its tree made anew: nothing that the reader of a terminal should see.
fn keep_quiet_about_trees() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let is_tree = |name: &str| name == "clusdb-tree" || name.starts_with("sled-");
        if !thread.name().is_some_and(is_tree) {
            usual(panic);
        }
    }));
}

fn run(cli: Cli) -> Result {
    let session = Session {
        store: cli.store,
        format: cli.output,
        wait: cli.wait.unwrap_or_default(),
    };
    match cli.verb {
        Verb::Import(arguments) => import::run(&session, &arguments),
        Verb::Set(arguments) => verbs::set(&session, &arguments),
        Verb::Del(arguments) => verbs::del(&session, &arguments),
        Verb::Batch(arguments) => verbs::batch(&session, &arguments),
        Verb::Get(arguments) => verbs::get(&session, &arguments),
        Verb::Read(arguments) => verbs::read(&session, &arguments),
        Verb::Info(arguments) => verbs::info(&session, &arguments),
        Verb::Ls(arguments) => verbs::ls(&session, &arguments),
        Verb::Port(Port::Create { name, key }) => verbs::port_create(&session, &name, &key),
        Verb::Port(Port::Ls) => verbs::port_ls(&session),
        Verb::Port(Port::Rm { name }) => verbs::port_rm(&session, &name),
        Verb::Watch(arguments) => watch::watch(&session, &arguments),
        Verb::Log(arguments) => watch::log(&session, &arguments),
        Verb::Stat => verbs::stat(&session),
        Verb::Snapshot => keeping::snapshot(&session),
        Verb::Backup(arguments) => keeping::backup(&session, &arguments),
        Verb::Restore(arguments) => keeping::restore(&session, &arguments),
        Verb::Check(arguments) => check::run(&session, &arguments),
        Verb::Trim => keeping::trim(&session),
        Verb::Tour(arguments) => tour::run(&session, &arguments),
    }
}

/// Arguments that make no sense, in the format that was asked for, as far as that can be told; or help and version.
fn refuse_arguments(error: &clap::Error) -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    let asks_for_json = |word: &str| {
        word.trim_start_matches("--output=")
            .trim_start_matches("-o")
            .starts_with("json")
    };
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !is_help && arguments.iter().any(|word| asks_for_json(word)) {
        Failure::usage("usage", error.to_string().trim_end()).report(Format::Jsonl);
        return ExitCode::from(exit::USAGE);
    }
    // Fails only where nobody reads it.
    let _ = error.print();
    ExitCode::from(if is_help { 0 } else { exit::USAGE })
}
