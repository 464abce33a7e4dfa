//! The command line: which verbs there are, and what every verb shares.
//!
//! | file | question it answers |
//! |---|---|
//! | `build` `search` `decode` `truth` `convert` | what a verb does |
//! | `get` `inspect` `check` `upgrade` `demo` `serve` | the same |
//! | `completions` `man` | how a shell and a manual learn the verbs |
//! | `exit_code` | which number a failure ends with |
//! | `output` `table` `terminal` | how results reach a reader or a script |
//! | `progress` `interrupt` | how a long job is watched and ended |
//! | `search_report` `decode_report` | how a measured search or decode is told |
//! | `choices` `size` `row_range` | what the text of an argument means |
//! | `inputs` `parquet_base` | how a file is read, where its name does not say |
//! | `query_file` `key_file` `payload_line` `neighbor_lists` `sample` | what files hold |
//! | `shell_words` | how a command is shown so that it can be pasted |

mod allowed_keys;
mod build;
mod check;
mod choices;
mod completions;
mod convert;
mod decode;
mod decode_report;
mod demo;
mod exit_code;
mod get;
mod inputs;
mod inspect;
mod interrupt;
mod key_file;
mod man;
mod measured;
mod neighbor_lists;
mod output;
mod parquet_base;
mod payload_line;
mod progress;
mod query_file;
mod row_range;
mod sample;
mod search;
mod search_report;
mod serve;
mod shell_words;
mod size;
mod table;
mod terminal;
mod truth;
mod upgrade;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use foveal_datasets::harmless::{harmless, is_harmful};
use foveal_index::kernel::check_variable;
use tracing_subscriber::EnvFilter;

use exit_code::{Failure, Outcome};
use terminal::{ColorChoice, Terminal};

/// Vector search in two looks: a proximity graph over compressed vectors in memory proposes,
/// the full vectors on SSD decide.
#[derive(Parser)]
#[command(name = "foveal", version, arg_required_else_help = true, after_help = EXIT_CODES)]
#[command(max_term_width = 100)]
pub(crate) struct Cli {
    /// When to use colour; `auto` means on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_enum, default_value = "auto", display_order = 1000)]
    #[arg(value_name = "auto|always|never", hide_possible_values = true)]
    color: ColorChoice,
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "\
Start here:
  foveal demo                 Index and search real data that the program brings along

Exit codes:
  0 success   1 a failed check   2 usage   65 bad data   66 no input
  73 cannot create   74 input/output   130 interrupted";

#[derive(Subcommand)]
enum Verb {
    Demo(demo::DemoArgs),
    Build(build::BuildArgs),
    Search(Box<search::SearchArgs>),
    Decode(Box<decode::DecodeArgs>),
    Truth(truth::TruthArgs),
    Convert(convert::ConvertArgs),
    Get(get::GetArgs),
    Inspect(inspect::InspectArgs),
    Check(check::CheckArgs),
    Upgrade(upgrade::UpgradeArgs),
    Serve(Box<serve::ServeArgs>),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// The program: reads the arguments, runs the verb, turns a failure into one line on stderr and
/// an exit code.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = Cli::command().color(terminal::help_color(&arguments));
    let cli = match command
        .try_get_matches_from(&arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => cli,
        Err(error) => {
            if is_usage_error(&error) {
                // Usage errors start like all others; nobody is left to be told of a failure.
                let _ = write!(std::io::stderr(), "foveal: ");
            }
            let plain = error.render().to_string();
            if plain.lines().any(|line| line.contains(is_harmful)) {
                let clean: Vec<_> = plain.lines().map(harmless).collect();
                let _ = writeln!(std::io::stderr(), "{}", clean.join("\n"));
                return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
            }
            error.exit()
        }
    };
    start_log(&cli.verb);
    keep_panics_of_parquet_quiet();
    let terminal = Terminal::of_stdout(cli.color);
    let ready = interrupt::size_limit_is_an_error()
        .and_then(|()| check_variable().map_err(|message| Failure::usage(message).into()));
    match ready.and_then(|()| run(cli.verb, &terminal)) {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            let line = exit_code::one_line(&error);
            // Nobody is left to be told when stderr is closed as well.
            let _ = writeln!(std::io::stderr(), "foveal: error: {line}");
            ExitCode::from(exit_code::of(&error))
        }
    }
}

/// Whether the arguments are wrong, as opposed to a help text that was requested or is due.
fn is_usage_error(error: &clap::Error) -> bool {
    let help = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    error.use_stderr() && error.kind() != help
}

fn run(verb: Verb, terminal: &Terminal) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Demo(args) => demo::run(&args, terminal),
        Verb::Build(args) => build::run(&args, terminal),
        Verb::Search(args) => search::run(&args, terminal),
        Verb::Decode(args) => decode::run(&args, terminal),
        Verb::Truth(args) => truth::run(&args),
        Verb::Convert(args) => convert::run(&args),
        Verb::Get(args) => get::run(&args, terminal),
        Verb::Inspect(args) => inspect::run(&args, terminal),
        Verb::Check(args) => check::run(&args, terminal),
        Verb::Upgrade(args) => upgrade::run(&args, terminal),
        Verb::Serve(args) => serve::run(*args).map(|()| Outcome::Done),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    }
}

/// A damaged Parquet file at which its reader panics is an error like others.
fn keep_panics_of_parquet_quiet() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !foveal_datasets::is_reading_parquet() {
            print(panic);
        }
    }));
}

/// Log lines go to stderr; `FOVEAL_LOG` chooses them (`debug`, `foveal_server=trace`, ...).
fn start_log(verb: &Verb) {
    // A server tells what it does; other verbs speak on stdout.
    let default = if matches!(verb, Verb::Serve(_)) { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("FOVEAL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let colored = std::io::stderr().is_terminal() && !terminal::no_color();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colored)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_declared_once() {
        Cli::command().debug_assert();
    }

    #[test]
    fn unknown_flag_is_a_usage_error() {
        for line in [
            &["foveal", "build", "--no-such-flag"][..],
            &["foveal", "no-such-verb"],
            &["foveal", "search", "--index", "x", "--queries", "y"],
            &["foveal", "search", "--index=x", "--queries=y", "--k=1", "--min-recall=0.9"],
            &["foveal", "build", "--base=a", "--metric=l2", "--out=b", "--bits=3"],
            &["foveal", "build", "--base=a", "--metric=l3", "--out=b"],
        ] {
            let error = Cli::try_parse_from(line).err().expect("the line has a mistake");
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn every_verb_says_what_it_does() {
        for verb in Cli::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{} has no help text", verb.get_name());
            for argument in verb.get_arguments() {
                let named = argument.get_help().is_some();
                assert!(named, "{} {} has no help text", verb.get_name(), argument.get_id());
            }
        }
    }
}
