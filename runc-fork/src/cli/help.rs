//! The definitions with help texts in the form of runc's, which scripts and its own tests look at.

use clap::{Command, CommandFactory};

use super::Arguments;

/// What follows the name.
const TEMPLATE: &str = " - {about}

USAGE:
   {usage}

{all-args}{after-help}";

/// All commands and options.
pub(super) fn command() -> Command {
    let mut command = Arguments::command().help_template(template("sysbox-runc"));
    // As in Go, an option that is given twice counts as it was given last.
    command = command.args_override_self(true);
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(&name, |subcommand| {
            subcommand
                .help_template(template(&format!("sysbox-runc {name}")))
                .args_override_self(true)
        });
    }
    command
}

fn template(name: &str) -> String {
    format!("NAME:\n   {name}{TEMPLATE}")
}
