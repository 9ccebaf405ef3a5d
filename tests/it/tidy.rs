//! The house rules, held by tests: module docs, sizes, names, direction of imports, purity, the metrics table of the
//! README.
//!
//! Sources are read as text, a line at a time: enough for rules this plain. Test modules at the end of a file are left
//! out.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use angzarr_relay::telemetry::{METRICS, MetricKind};

/// Code and comments of one file, its test module left out. Aim at 300 lines of code.
const FILE_LINES_MAX: usize = 500;
/// Files that may be longer, each with the reason.
const LONGER_FILES: &[(&str, &str)] = &[];

/// Words that say nothing about what is in a file.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "types", "manager", "helper"];

/// Left over from work in progress. Spelled in halves, so that this file does not hold them.
const LEFTOVERS: [&str; 4] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("db", "g!(")];

/// (module, modules it never imports): imports follow the way of the data.
const NEVER_IMPORTS: [(&str, &[&str]); 5] = [
    ("event", &["storage", "relay_table", "stream", "lane", "handler", "relay", "config", "cli", "aws", "local"]),
    ("stream", &["lane", "handler", "relay", "config", "cli"]),
    ("handler", &["stream", "lane", "relay", "cli"]),
    ("lane", &["relay", "fleet", "cli"]),
    ("fleet", &["lane", "relay", "config", "cli", "aws"]),
];

/// Files that decide and do no I/O.
const PURE_FILES: [&str; 28] = [
    "sequencer.rs",
    "unsaved.rs",
    "watermark.rs",
    "lineage.rs",
    "retry.rs",
    "outage.rs",
    "subscription.rs",
    "glob.rs",
    "page.rs",
    "window.rs",
    "shard.rs",
    "timing.rs",
    "watch.rs",
    "assignment.rs",
    "lease.rs",
    "plan.rs",
    "layout.rs",
    "log.rs",
    "cursor.rs",
    "range.rs",
    "rates.rs",
    "operation.rs",
    "mischief.rs",
    "misbehaviour.rs",
    "unread.rs",
    "problems.rs",
    "shown.rs",
    "grouping.rs",
];
const IMPURE: [&str; 3] = ["async ", "tokio::spawn", ".await"];

/// The only file that uses the crate `backoff`, which nobody maintains any more (RUSTSEC-2025-0012).
const BACKOFF_FILE: &str = "src/time/backoff.rs";

/// One source file.
struct Source {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The module under `src/` it belongs to: `stream` for `src/stream/page.rs` and for `src/stream.rs`.
    fn module(&self) -> &str {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        path.split('/').next().unwrap_or_default()
    }

    /// The lines before the test module.
    fn lines(&self) -> impl Iterator<Item = &str> {
        let is_test = self.name() == "tests.rs" || self.name().ends_with("_tests.rs");
        let tests = if is_test { 0 } else { test_module_of(&self.text) };
        self.text[..tests].lines()
    }

    /// The lines before the test module, comments cut off.
    fn code(&self) -> String {
        self.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
    }
}

/// Where the test module begins; the end of the text when there is none.
fn test_module_of(text: &str) -> usize {
    let module = text.find("\n#[cfg(test)]\nmod tests");
    module.or_else(|| text.find("\n#[cfg(test)]\npub(crate) mod test")).unwrap_or(text.len())
}

/// All Rust files under a folder of the repository, in order of their paths.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut sources) = (vec![root.join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path: PathBuf = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source is readable text");
                let path = path.strip_prefix(root).expect("a source lies in the repository");
                sources.push(Source { path: path.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// The sources of the crate; there must be some, or every rule would hold.
fn crate_sources() -> Vec<Source> {
    let sources = sources("src");
    assert!(sources.len() > 20, "only {} sources found", sources.len());
    sources
}

#[track_caller]
fn assert_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// The modules of this crate that a piece of code names: `crate::stream::Page`, `use crate::{event, stream::Page}`.
fn modules_named(code: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let word = |text: &str| text.trim_start().chars().take_while(|c| is_word(*c)).collect::<String>();
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            named.push(word(rest));
            continue;
        };
        let (mut depth, mut first) = (0_u32, true);
        for (at, character) in group.char_indices() {
            if depth == 0 && first {
                named.push(word(&group[at..]));
                first = false;
            }
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => first = true,
                _ => {}
            }
        }
    }
    named
}

#[test]
fn every_file_says_what_it_is_for() {
    let folders = ["src", "tests", "benches", "examples"].into_iter().flat_map(sources);
    let broken: Vec<_> = folders.filter(|source| !source.text.starts_with("//! ")).map(|source| source.path).collect();
    assert_none("these files do not open with `//!`", &broken);
}

#[test]
fn no_file_is_too_long() {
    let mut broken = Vec::new();
    for source in crate_sources() {
        let lines = source.lines().count();
        let excepted = LONGER_FILES.iter().any(|(path, _)| *path == source.path);
        if lines > FILE_LINES_MAX && !excepted {
            broken.push(format!("{}: {lines}", source.path));
        }
        if lines <= FILE_LINES_MAX && excepted {
            broken.push(format!("{}: {lines}, and needs no exception any more", source.path));
        }
    }
    assert_none(&format!("these files are longer than {FILE_LINES_MAX} lines without their tests"), &broken);
}

#[test]
fn names_say_what_is_inside() {
    let is_empty = |path: &str| path.trim_end_matches(".rs").split(['/', '_']).any(|word| EMPTY_NAMES.contains(&word));
    let broken: Vec<_> = crate_sources().into_iter().map(|source| source.path).filter(|path| is_empty(path)).collect();
    assert_none("these names say nothing", &broken);
}

#[test]
fn nothing_is_left_over() {
    let mut broken = Vec::new();
    for source in ["src", "tests", "benches", "examples"].into_iter().flat_map(sources) {
        for (number, line) in source.text.lines().enumerate() {
            if LEFTOVERS.iter().any(|leftover| line.contains(leftover)) {
                broken.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert_none("these lines are left over from work in progress", &broken);
}

#[test]
fn imports_follow_the_way_of_the_data() {
    let mut broken = Vec::new();
    for source in crate_sources() {
        let Some((_, never)) = NEVER_IMPORTS.iter().find(|(module, _)| *module == source.module()) else { continue };
        for named in modules_named(&source.code()) {
            if never.contains(&named.as_str()) {
                broken.push(format!("{} imports {named}", source.path));
            }
        }
    }
    assert_none("these imports go against the way of the data", &broken);
}

#[test]
fn pure_files_do_no_io() {
    let mut broken = Vec::new();
    for source in crate_sources().iter().filter(|source| PURE_FILES.contains(&source.name())) {
        let code = source.code();
        broken
            .extend(IMPURE.iter().filter(|word| code.contains(**word)).map(|word| format!("{}: {word}", source.path)));
    }
    assert_none("these files are to decide only, without waiting for anything", &broken);
}

#[test]
fn one_file_uses_the_unmaintained_crate() {
    let mut broken = Vec::new();
    for source in crate_sources().iter().filter(|source| source.path != BACKOFF_FILE) {
        for line in source.code().lines().map(str::trim) {
            // `crate::time::backoff` and `pub use backoff::` in its folder's root are our own module.
            let ours = line.contains("time::backoff::") || source.path == "src/time/mod.rs";
            let used = line.contains("backoff::") || line.contains("ExponentialBackoff");
            if used && !ours {
                broken.push(format!("{}: {line}", source.path));
            }
        }
    }
    assert_none("only src/time/backoff.rs may use the crate `backoff`", &broken);
}

/// The README's table as it ought to be.
fn metrics_table() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for (name, kind, _, labels, meaning) in METRICS {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{name}` | {kind} | {} | {meaning} |", labels.join(", ")).expect("a string takes any text");
    }
    table
}

#[test]
fn the_readme_lists_the_metrics_as_they_are() {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("there is a README");
    let section = readme.split_once("\n## Metrics\n").map(|(_, rest)| rest.split("\n## ").next().unwrap_or_default());
    let section = section.expect("the README has a section `## Metrics`");
    let written: Vec<_> = section.lines().filter(|line| line.starts_with('|')).collect();
    let table = metrics_table();
    assert!(
        written == table.lines().collect::<Vec<_>>(),
        "the README's table of metrics is not that of the code; this one is:\n{table}"
    );
}

#[test]
fn metric_names_and_labels_follow_the_scheme() {
    let mut broken = Vec::new();
    for (name, kind, _, labels, _) in METRICS {
        if !name.starts_with("angzarr_relay_") || name.ends_with("_total") != (*kind == MetricKind::Counter) {
            broken.push((*name).to_owned());
        }
        let ids = ["root", "shard", "correlation_id", "sequence"];
        broken.extend(labels.iter().filter(|label| ids.contains(label)).map(|label| format!("{name}: {label}")));
    }
    assert_none("these metrics break `angzarr_relay_<noun>_<unit|total>`, or have an id for a label", &broken);
}

#[test]
fn imports_are_found_in_every_form() {
    let code =
        "use crate::stream::Page;\nfn f(_: crate::lane::Lane) {}\nuse crate::{event, relay::{A, B}, config as c};\n";
    assert_eq!(modules_named(code), ["stream", "lane", "event", "relay", "config"]);
}

#[test]
fn test_modules_do_not_count() {
    let source = Source { path: "src/a/b.rs".into(), text: "//! a\nfn a() {}\n#[cfg(test)]\nmod tests {\n}\n".into() };
    assert_eq!(source.lines().count(), 2);
    assert_eq!(source.module(), "a");
}
