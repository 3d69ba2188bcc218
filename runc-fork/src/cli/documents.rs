//! `documents`: manual pages and shell completions, from the definitions of the command line.
//!
//! Hidden: it is for whoever packages the program. What it writes lies where it is to be installed
//! below `/usr`, so that a package only copies the directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;

use super::help;

const PROGRAM: &str = "sysbox-runc";

/// Where completions are looked for below `/usr`, by shell.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions/sysbox-runc"),
    (Shell::Zsh, "share/zsh/vendor-completions/_sysbox-runc"),
    (Shell::Fish, "share/fish/vendor_completions.d/sysbox-runc.fish"),
];

/// write the manual pages and shell completions
#[derive(Args, Debug)]
pub struct DocumentsArgs {
    /// directory that stands for /usr
    pub directory: PathBuf,
}

/// Runs the command.
pub fn run(args: &DocumentsArgs) -> Result<()> {
    for (shell, path) in COMPLETIONS {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut visible(), PROGRAM, &mut text);
        write(&args.directory, path, &text)?;
    }
    let root = visible();
    for command in root.get_subcommands() {
        let name = format!("{PROGRAM}-{}", command.get_name());
        let page = command.clone().name(name.clone()).display_name(name.clone());
        let mut text = Vec::new();
        let manual = clap_mangen::Man::new(page).section("8").source("sysbox");
        manual.manual("System containers").render(&mut text).with_context(|| name.clone())?;
        write(&args.directory, &format!("share/man/man8/{name}.8"), &text)?;
    }
    Ok(())
}

/// The definitions without what is not for users.
fn visible() -> Command {
    let all = help::command();
    let hidden = |command: &&Command| !command.is_hide_set();
    let subcommands: Vec<Command> = all.get_subcommands().filter(hidden).cloned().collect();
    let arguments: Vec<_> = all.get_arguments().cloned().collect();
    let about = all.get_about().cloned().unwrap_or_default();
    Command::new(PROGRAM).about(about).args(arguments).subcommands(subcommands)
}

fn write(directory: &Path, path: &str, text: &[u8]) -> Result<()> {
    let path = directory.join(path);
    let parent = path.parent().unwrap_or(directory);
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let dir = tempfile::tempdir().unwrap();
        run(&DocumentsArgs { directory: dir.path().into() }).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        let page = read("share/man/man8/sysbox-runc-exec.8");
        assert!(page.contains("SH OPTIONS") && page.contains("ignore"), "{page}");
        for (_, path) in COMPLETIONS {
            let text = read(path);
            assert!(text.contains("pidfd") && !text.contains("documents"), "{path}");
        }
        let pages = fs::read_dir(dir.path().join("share/man/man8")).unwrap().count();
        assert_eq!(pages, visible().get_subcommands().count());
    }
}
