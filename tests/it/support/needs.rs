//! What the tests need of the machine, looked for by name and version; each message says what to install.
//!
//! Invariant: a need that is not met fails the test; nothing here lets a test pass without its component.

use std::path::PathBuf;
use std::process::Command;

const JAVA_MAJOR_MIN: u32 = 17;
const NODE_MAJOR_MIN: u32 = 18;
/// Names the library when it is not where Debian puts it.
const FAKETIME_VARIABLE: &str = "ANGZARR_TEST_FAKETIME";
const FAKETIME_LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The Java command; DynamoDB Local needs 17 or newer.
pub(crate) fn java() -> &'static str {
    let advice =
        "DynamoDB Local needs Java 17 or newer: install openjdk-17-jre-headless, so that `java` is on the PATH";
    // `openjdk version "17.0.15" 2025-04-15`, on stderr; Java 8 calls itself "1.8".
    let printed = printed_by("java", "-version").unwrap_or_else(|| panic!("{advice}"));
    let major = printed.split('"').nth(1).and_then(major_of);
    assert!(major.is_some_and(|major| major >= JAVA_MAJOR_MIN), "{advice}; it says: {printed}");
    "java"
}

/// The Node command; kinesis-mock needs 18 or newer.
pub(crate) fn node() -> &'static str {
    let advice = "kinesis-mock needs Node 18 or newer: install nodejs, so that `node` is on the PATH";
    let printed = printed_by("node", "--version").unwrap_or_else(|| panic!("{advice}"));
    let major = printed.trim().strip_prefix('v').and_then(major_of);
    assert!(major.is_some_and(|major| major >= NODE_MAJOR_MIN), "{advice}; it says: {printed}");
    "node"
}

/// The npm command, by which the emulators are fetched.
pub(crate) fn npm() -> &'static str {
    let advice = "the emulators are npm packages: install npm, so that `npm` is on the PATH";
    printed_by("npm", "--version").unwrap_or_else(|| panic!("{advice}"));
    "npm"
}

/// The command that changes the limits of a running process.
pub(crate) fn prlimit() -> &'static str {
    let advice = "a disk that becomes full is played with `prlimit`: install util-linux, so that it is on the PATH";
    printed_by("prlimit", "--version").unwrap_or_else(|| panic!("{advice}"));
    "prlimit"
}

/// The library that makes a process's clock run at another speed.
pub(crate) fn libfaketime() -> PathBuf {
    if let Some(named) = std::env::var_os(FAKETIME_VARIABLE) {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "{FAKETIME_VARIABLE} names {}, which is no file", named.display());
        return named;
    }
    // Debian's multiarch folders: /usr/lib/x86_64-linux-gnu/faketime and its like.
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let found = folders.chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")]);
    found.map(|folder| folder.join(FAKETIME_LIBRARY)).find(|library| library.is_file()).unwrap_or_else(|| {
        panic!("this test needs libfaketimeMT.so.1: install faketime, or name the library in {FAKETIME_VARIABLE}")
    })
}

fn major_of(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// Everything a command prints, or nothing when there is no such command.
fn printed_by(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn versions_are_compared_by_their_major_number() {
    assert_eq!(major_of("17.0.15"), Some(17));
    assert_eq!(major_of("1.8.0_392"), Some(1));
    assert_eq!(major_of("21"), Some(21));
    assert_eq!(major_of("ea"), None);
}
