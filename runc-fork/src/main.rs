//! `sysbox-runc`: see the crate's library.

fn main() -> std::process::ExitCode {
    sysbox_runc::cli::main()
}
