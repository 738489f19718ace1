//! `lbd man`: the manual. lbd(8) and a page for each subcommand come from the grammar of the command
//! line, lb.toml(5) from the table of keys, so that neither can differ from what lbd does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};

use super::reach::FAILURE;
use super::{Exit, out, talk};
use crate::config::docs;
use crate::config::problem::CODES;
use crate::config::schema::{SECTIONS, Section, Support};

const EXAMPLES: &str = "\
Examples:
  lbd man | man -l -                 read lbd(8)
  lbd man --page lb.toml | man -l -  read lb.toml(5)
  lbd man /usr/local/share/man       write all pages, into man5 and man8 there";

/// Where to.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ManArgs {
    /// Write every page into this directory's man5 and man8 [default: print one]
    #[arg(value_name = "DIR", conflicts_with = "page")]
    directory: Option<PathBuf>,
    /// The page to print: lbd, lb.toml, or a subcommand such as lbd-check
    #[arg(long, value_name = "NAME", default_value = "lbd")]
    page: String,
}

/// A page of the manual.
struct Page {
    /// `lbd-check`.
    name: String,
    /// 5 or 8.
    section: u8,
    text: String,
}

/// Prints a page, or writes all.
pub(super) fn run(args: &ManArgs, grammar: &Command) -> u8 {
    let pages = pages(&visible(grammar));
    if let Some(directory) = &args.directory {
        return match write(&pages, directory) {
            Ok(()) => Exit::Success.code(),
            Err(error) => {
                talk(&format!(
                    "error: cannot write into {}: {error}",
                    directory.display()
                ));
                FAILURE
            }
        };
    }
    let Some(page) = pages.iter().find(|page| page.name == args.page) else {
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        talk(&format!(
            "error: no page of that name; there are {}",
            names.join(", ")
        ));
        return Exit::Usage.code();
    };
    match out(&page.text) {
        Ok(()) => Exit::Success.code(),
        Err(_closed) => FAILURE,
    }
}

/// The grammar without what only lbd itself uses.
pub(super) fn visible(grammar: &Command) -> Command {
    let kept: Vec<Command> = grammar
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .cloned()
        .collect();
    let mut rest = Command::new("lbd");
    for argument in grammar.get_arguments() {
        rest = rest.arg(argument.clone());
    }
    if let Some(about) = grammar.get_about() {
        rest = rest.about(about.clone());
    }
    if let Some(text) = grammar.get_after_help() {
        rest = rest.after_help(text.clone());
    }
    rest.version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .subcommands(kept)
}

fn pages(grammar: &Command) -> Vec<Page> {
    let mut all = vec![Page {
        name: "lb.toml".to_owned(),
        section: 5,
        text: lb_toml(),
    }];
    all.push(of_command("lbd", grammar.clone()));
    for command in grammar.get_subcommands() {
        let name = format!("lbd-{}", command.get_name());
        let bin = format!("lbd {}", command.get_name());
        let command = command
            .clone()
            .version(env!("CARGO_PKG_VERSION"))
            .bin_name(bin);
        all.push(of_command(&name, command));
    }
    all
}

fn of_command(name: &str, command: Command) -> Page {
    let title = name.to_ascii_uppercase();
    let page = clap_mangen::Man::new(command.display_name(name.to_owned()))
        .title(title)
        .section("8")
        .date("")
        .manual("lbd");
    let mut bytes = Vec::new();
    // Writing into memory cannot fail.
    let rendered = page.render(&mut bytes);
    debug_assert!(rendered.is_ok());
    Page {
        name: name.to_owned(),
        section: 8,
        text: ascii(&String::from_utf8_lossy(&bytes)),
    }
}

/// Letters beyond ASCII as roff names them: without that it takes each for two others.
fn ascii(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() {
            plain.push(letter);
        } else {
            plain.push_str(&format!("\\[u{:04X}]", u32::from(letter)));
        }
    }
    plain
}

fn write(pages: &[Page], directory: &Path) -> io::Result<()> {
    for page in pages {
        let folder = directory.join(format!("man{}", page.section));
        fs::create_dir_all(&folder)?;
        fs::write(
            folder.join(format!("{}.{}", page.name, page.section)),
            &page.text,
        )?;
    }
    Ok(())
}

/// lb.toml(5).
fn lb_toml() -> String {
    let mut text = String::from(HEAD);
    for section in SECTIONS {
        append(&mut text, section);
    }
    text.push_str(".SH CODES\nWhat \\fBlbd check\\fR says; \\fBlbd explain\\fR CODE says more.\n");
    for (code, meaning) in CODES {
        text.push_str(&format!(".TP\n\\fB{code}\\fR\n{}\n", roff(meaning)));
    }
    text.push_str(
        ".SH FILES\n.TP\n\\fI/etc/lbd/lb.toml\\fR\nThe configuration.\n\
         .SH SEE ALSO\n\\fBlbd\\fR(8), \\fBlbd-check\\fR(8), \\fBlbd-explain\\fR(8)\n",
    );
    text
}

const HEAD: &str = r#".TH LB.TOML 5 "" "lbd" "lbd"
.SH NAME
lb.toml \- configuration of lbd
.SH DESCRIPTION
The same file serves on every node.
It is TOML 1.0 with keys in kebab\-case.
Durations are strings with a unit: "250ms", "5s", "10m", "1h".
NAME stands for a name of your choice: letters, digits, '\-', '_' and '.'.
An unknown key refuses the file.
\fBlbd check\fR says every mistake at once.
.SH EXAMPLE
A whole working pair:
.PP
.nf
[vip.kube]
address = "172.16.0.10/24"
nodes   = ["172.16.0.2", "172.16.0.3"]

[proxy.kube\-apiserver]
listen   = ":6443"
backends = ["172.16.0.4:6443", "172.16.0.5:6443", "172.16.0.6:6443"]
check    = "kube\-apiserver"
.fi
"#;

fn append(text: &mut String, section: &Section) {
    let title = match section.path {
        "" => "THE TOP OF THE FILE".to_owned(),
        path => format!("[{path}]"),
    };
    text.push_str(&format!(
        ".SH \"{}\"\n{}\n",
        roff(&title),
        roff(section.doc)
    ));
    let supported = section
        .keys
        .iter()
        .filter(|key| key.support == Support::Supported);
    for key in supported {
        text.push_str(&format!(
            ".TP\n\\fB{}\\fR\n{}\n.br\nValues: {}.\n.br\nDefault: {}.\n",
            roff(key.name),
            roff(key.doc),
            roff(&docs::values(key.kind)),
            roff(&docs::default(key)),
        ));
        if !key.aliases.is_empty() {
            let words = roff(&key.aliases.join(", "));
            text.push_str(&format!(".br\nKnown elsewhere as: {words}.\n"));
        }
    }
}

/// Text in the language of man pages: no line may begin with a dot or an apostrophe by chance.
fn roff(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '`' => {}
            '\\' => safe.push_str("\\e"),
            '-' => safe.push_str("\\-"),
            '"' => safe.push_str("\\(dq"),
            '\'' => safe.push_str("\\(aq"),
            '\n' => safe.push(' '),
            letter => safe.push(letter),
        }
    }
    let safe = ascii(&safe);
    if safe.starts_with('.') {
        format!("\\&{safe}")
    } else {
        safe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_a_request_of_roff() {
        assert_eq!(roff(".so /etc/passwd"), "\\&.so /etc/passwd");
        assert_eq!(roff("it's `a-b` \\n"), "it\\(aqs a\\-b \\en");
        assert_eq!(roff("a … b"), "a \\[u2026] b");
        let page = lb_toml();
        let requests = [".TH", ".SH", ".TP", ".br", ".PP", ".nf", ".fi"];
        for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
            assert!(
                requests.iter().any(|known| line.starts_with(known)),
                "{line}"
            );
        }
    }

    #[test]
    fn the_page_of_the_file_names_every_supported_key_under_its_table() {
        let page = lb_toml();
        for section in SECTIONS {
            let title = match section.path {
                "" => "THE TOP OF THE FILE".to_owned(),
                path => format!("[{path}]"),
            };
            let (_, rest) = page
                .split_once(&format!(".SH \"{}\"\n", roff(&title)))
                .unwrap();
            let body = rest.split("\n.SH ").next().unwrap();
            for key in section.keys {
                let named = body.contains(&format!(".TP\n\\fB{}\\fR\n", roff(key.name)));
                assert_eq!(named, key.support == Support::Supported, "{}", key.name);
            }
        }
    }
}
