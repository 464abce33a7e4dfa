//! `foveal man`: the manual, as roff.

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;
use super::exit_code::{Failure, Outcome};
use super::output::Output;

/// Print a manual page (roff): of the program, or of one verb.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// The verb whose page to print.
    verb: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  foveal man | man -l -
  foveal man search > ~/.local/share/man/man1/foveal-search.1";

/// Prints the page.
///
/// # Errors
/// There is no such verb; standard output cannot be written.
pub(crate) fn run(args: &ManArgs) -> anyhow::Result<Outcome> {
    Output::stdout().print(&page(args.verb.as_deref())?)?;
    Ok(Outcome::Done)
}

fn page(verb: Option<&str>) -> anyhow::Result<String> {
    let mut program = Cli::command();
    program.build();
    let manual = match verb {
        None => Man::new(program),
        Some(verb) => {
            let names = program.get_subcommands().map(Command::get_name).collect::<Vec<_>>();
            let message = format!("verb {verb:?} is unknown; wanted one of {}", names.join(", "));
            let found = program.find_subcommand(verb).ok_or_else(|| Failure::usage(message))?;
            let name = format!("foveal-{verb}");
            Man::new(found.clone().display_name(&name)).title(name)
        }
    };
    let mut page = Vec::new();
    manual.render(&mut page).context("manual page")?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::exit_code;
    use super::*;

    #[test]
    fn the_program_and_each_verb_have_a_page() {
        let page_of_program = page(None).unwrap();
        assert!(page_of_program.contains(".TH foveal 1"), "{page_of_program}");
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name();
            let text = page(Some(name)).unwrap();
            assert!(text.contains(&format!(".TH foveal-{name} 1")), "{text}");
            assert!(page_of_program.contains(&format!("foveal\\-{name}(1)")), "{name}");
        }
    }

    #[test]
    fn unknown_verbs_are_usage_errors() {
        assert_eq!(exit_code::of(&page(Some("fly")).unwrap_err()), 2);
    }
}
