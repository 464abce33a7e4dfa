//! `foveal completions`: what a shell needs to complete verbs and flags.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::exit_code::Outcome;
use super::output::Output;

/// Print shell completions.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell to print them for.
    #[arg(value_enum)]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  foveal completions bash > ~/.local/share/bash-completion/completions/foveal
  foveal completions fish > ~/.config/fish/completions/foveal.fish";

/// Prints the script.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<Outcome> {
    Output::stdout().print(&script(args.shell))?;
    Ok(Outcome::Done)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "foveal", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_learns_verbs_and_flags() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(script.contains("rerank-size"), "{shell} does not know --rerank-size");
        }
        assert!(script(Shell::Bash).contains("l2 ip cosine"));
    }
}
