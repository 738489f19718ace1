//! `lbd completions`: what a shell needs to complete lbd's words, from the grammar itself.

use clap::{Args, Command, ValueEnum};
use clap_complete::aot::{Shell as Known, generate};

use super::reach::FAILURE;
use super::{Exit, out};

const EXAMPLES: &str = "\
Examples:
  lbd completions bash > /etc/bash_completion.d/lbd
  lbd completions zsh > /usr/share/zsh/site-functions/_lbd
  lbd completions fish > ~/.config/fish/completions/lbd.fish";

/// For which shell.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints them.
pub(super) fn run(args: &CompletionsArgs, grammar: &Command) -> u8 {
    match out(&text(args.shell, grammar)) {
        Ok(()) => Exit::Success.code(),
        Err(_closed) => FAILURE,
    }
}

fn text(shell: Shell, grammar: &Command) -> String {
    let known = match shell {
        Shell::Bash => Known::Bash,
        Shell::Zsh => Known::Zsh,
        Shell::Fish => Known::Fish,
    };
    let mut bytes = Vec::new();
    generate(known, &mut super::man::visible(grammar), "lbd", &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
