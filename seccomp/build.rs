//! Gives the crate a fingerprint of its own sources: compiled programs that an older build left in
//! the cache must not be used by a newer one.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src");
    let mut files = Vec::new();
    for entry in
        fs::read_dir(Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("src"))?
    {
        files.push(entry?.path());
    }
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        for byte in fs::read(file)? {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    println!("cargo::rustc-env=SECCOMP_SOURCES={hash:016x}");
    Ok(())
}
