//! `list`: every container below `--root`, as a table or as JSON.

use anyhow::{Result, bail};
use clap::Args;

use super::Global;
use super::state::describe;
use crate::state::{self, Directory};

/// lists containers started with the given root
#[derive(Args, Debug)]
pub struct ListArgs {
    /// select one of: table or json
    #[arg(short, long, default_value = "table")]
    pub format: String,
    /// display only container IDs
    #[arg(short, long)]
    pub quiet: bool,
}

/// Runs the command.
pub fn run(global: &Global, args: &ListArgs) -> Result<()> {
    let mut containers = Vec::new();
    for id in state::list(&global.root)? {
        let directory = Directory::new(&global.root, &id)?;
        match directory.load() {
            Ok(state) => containers.push(describe(&directory, state)),
            // Deleted since it was listed, or damaged: the others are listed all the same.
            Err(e) => crate::log::warn(&format!("{id}: {e:#}")),
        }
    }
    if args.quiet {
        for container in &containers {
            super::say(&container.id)?;
        }
        return Ok(());
    }
    match args.format.as_str() {
        "json" if containers.is_empty() => super::say("null")?,
        "json" => super::say(serde_json::to_string(&containers)?)?,
        "table" => {
            let mut rows =
                vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
            rows.extend(containers.iter().map(|c| {
                [
                    c.id.clone(),
                    c.pid.to_string(),
                    c.status.to_owned(),
                    c.bundle.display().to_string(),
                    c.created.clone(),
                    c.owner.to_owned(),
                ]
            }));
            print_table(&rows)?;
        }
        other => bail!("invalid format option: {other:?}"),
    }
    Ok(())
}

/// Columns as Go's tabwriter sets them for runc: at least 12 wide, padded by three.
fn print_table<const N: usize>(rows: &[[String; N]]) -> Result<()> {
    let width =
        |column: usize| rows.iter().map(|row| row[column].len() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<_> = (0..N).map(width).collect();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        super::say(line.trim_end())?;
    }
    Ok(())
}
