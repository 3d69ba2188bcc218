//! `documents`: manual pages and completions of shells, from the definitions of the command lines of
//! `sysbox` and `sysbox-mgr`: they cannot say anything else than the programs do.
//!
//! Hidden: it is for whoever packages the programs. What it writes lies where it is to be installed
//! below `/usr`, so that a package only copies the directory.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use sysbox_mgr::Options;

/// Where a shell looks for the completions of a program below `/usr`: before and after its name.
const COMPLETIONS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions/", ""),
    (Shell::Zsh, "share/zsh/vendor-completions/_", ""),
    (Shell::Fish, "share/fish/vendor_completions.d/", ".fish"),
];

/// Writes them; `directory` stands for `/usr`.
pub fn run(directory: &Path) -> anyhow::Result<()> {
    for program in [visible(&super::Arguments::command()), visible(&Options::command())] {
        let name = program.get_name().to_owned();
        for (shell, before, after) in COMPLETIONS {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut program.clone(), &name, &mut text);
            write(directory, &format!("{before}{name}{after}"), &text)?;
        }
        for command in program.get_subcommands() {
            let name = format!("{name}-{}", command.get_name());
            let page = command.clone().name(name.clone()).display_name(name.clone());
            let mut text = Vec::new();
            let manual = Man::new(page).section("8").source("sysbox").manual("System containers");
            manual.render(&mut text).with_context(|| name.clone())?;
            write(directory, &format!("share/man/man8/{name}.8"), &text)?;
        }
    }
    Ok(())
}

/// A program's definition without what is not for users.
fn visible(all: &Command) -> Command {
    let commands = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let about = all.get_about().cloned().unwrap_or_default();
    Command::new(all.get_name().to_owned())
        .about(about)
        .args(all.get_arguments().cloned())
        .subcommands(commands)
}

fn write(directory: &Path, path: &str, text: &[u8]) -> anyhow::Result<()> {
    let path = directory.join(path);
    let parent = path.parent().unwrap_or(directory);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path()).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        let page = read("share/man/man8/sysbox-gc.8");
        assert!(page.contains("dry") && page.contains("SH OPTIONS"), "{page}");
        assert!(!dir.path().join("share/man/man8/sysbox-documents.8").exists());
        for (_, before, after) in COMPLETIONS {
            let text = read(&format!("{before}sysbox{after}"));
            assert!(text.contains("log-level") && !text.contains("documents"), "{before}");
            assert!(read(&format!("{before}sysbox-mgr{after}")).contains("data-root"), "{before}");
        }
    }
}
