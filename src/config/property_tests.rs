//! The repository's own file, changed in any place, by hand or from the environment.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

const FILE: &str = include_str!("../../config/relay.toml");

/// A line of the file that sets a key.
#[derive(Debug, Clone)]
struct Setting {
    /// Its place in the file.
    line: usize,
    /// The path of the table it stands in, as problems name it: `handlers[1].http`.
    table: String,
    key: String,
    value: String,
}

impl Setting {
    /// Its path, as problems name it.
    fn path(&self) -> String {
        if self.table.is_empty() { self.key.clone() } else { format!("{}.{}", self.table, self.key) }
    }

    /// The variable that sets it: `ANGZARR_RELAY__HANDLERS__1__HTTP__URL`.
    fn variable(&self) -> String {
        let path = self.path().to_uppercase().replace(']', "");
        format!("ANGZARR_RELAY__{}", path.replace(['.', '['], "__"))
    }

    /// The value as a variable gives it; none where no variable can.
    fn as_variable(&self) -> Option<&str> {
        let text = self.value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        text.or_else(|| Some(self.value.as_str()).filter(|value| !value.starts_with(['[', '{'])))
    }
}

/// The file's lines, the defaults in comments uncommented unless something else must be set with them.
fn lines() -> Vec<String> {
    let is_key = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let uncommented = |line: &str| {
        let setting = line.strip_prefix("# ").filter(|setting| !setting.contains("left out"))?;
        setting.split_once(" = ").is_some_and(|(key, _)| is_key(key)).then(|| setting.to_owned())
    };
    FILE.lines().map(|line| uncommented(line).unwrap_or_else(|| line.to_owned())).collect()
}

fn settings() -> Vec<Setting> {
    let (mut table, mut handlers, mut settings) = (String::new(), 0, Vec::new());
    for (line, text) in lines().into_iter().enumerate() {
        let text = text.split(" #").next().unwrap_or_default().trim().to_owned();
        if text == "[[handlers]]" {
            table = format!("handlers[{handlers}]");
            handlers += 1;
        } else if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = name.replacen("handlers.", &format!("handlers[{}].", handlers - 1), 1);
        } else if let Some((key, value)) = text.split_once(" = ").filter(|_| !text.starts_with('#')) {
            settings.push(Setting { line, table: table.clone(), key: key.to_owned(), value: value.to_owned() });
        }
    }
    settings
}

/// The file with other lines in the place of some.
fn file(changes: &[(usize, String)]) -> String {
    let mut lines = lines();
    for (line, text) in changes {
        lines[*line].clone_from(text);
    }
    lines.join("\n")
}

fn parse(text: &str, environment: &Environment) -> Result<Config, Vec<Problem>> {
    match Config::parse(text, "relay.toml", environment) {
        Ok(config) => Ok(config),
        Err(ConfigError::Settings { problems, .. }) => Err(problems),
        Err(other) => panic!("the file can be read: {other}"),
    }
}

/// Whether a problem names this key, or one inside of it.
fn names(problem: &Problem, path: &str) -> bool {
    problem.key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[test]
fn the_settings_of_the_file_are_found() {
    let settings = settings();
    let paths: Vec<String> = settings.iter().map(Setting::path).collect();
    assert!(paths.len() > 50, "{paths:?}");
    for path in ["storage.dynamo.region", "relay.memory_limit", "handlers[0].kinesis", "handlers[1].http.timeout"] {
        assert!(paths.iter().any(|found| found == path), "{path}: {paths:?}");
    }
    assert_eq!(parse(&file(&[]), &Environment::default()), parse(FILE, &Environment::default()));
}

proptest! {
    /// A value that no key takes is a problem of just this key, wherever it stands.
    #[test]
    fn a_wrong_value_is_named_by_its_key(
        setting in select(settings()),
        value in select(&["1.5", "inf", "[1.5]", "[[]]", "{ nonsense = 1.5 }", "{}", "\"\\u0000\"", "-7"][..]),
    ) {
        let text = file(&[(setting.line, format!("{} = {value}", setting.key))]);
        // A table without keys has all its defaults.
        let allowed = value == "{}" && ["retry", "headers"].contains(&setting.key.as_str());
        match parse(&text, &Environment::default()) {
            Ok(_) => prop_assert!(allowed, "{} takes {}", setting.path(), value),
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    prop_assert!(names(&problem, &setting.path()), "{}: {}", setting.path(), problem);
                }
            }
        }
    }

    /// A misspelt key is unknown by its path, whatever else is missing then.
    #[test]
    fn a_misspelt_key_is_named(setting in select(settings()), letter in "[a-z_]", at: Index) {
        let mut key = setting.key.clone();
        key.insert_str(at.index(key.len() + 1), &letter);
        let free = setting.table.ends_with(".headers");
        prop_assume!(!free && !lines().iter().any(|line| line.starts_with(&format!("{key} = "))));
        let text = file(&[(setting.line, format!("{key} = {}", setting.value))]);
        let problems = parse(&text, &Environment::default()).expect_err("an unknown key");
        let path = Setting { key, ..setting }.path();
        let unknown = |problem: &Problem| problem.key == path && matches!(problem.fault, Fault::Unknown { .. });
        prop_assert!(problems.iter().any(unknown), "{}: {:?}", path, problems);
    }

    /// A value means the same in the file and in a variable, which goes before it.
    #[test]
    fn any_key_can_be_set_from_the_environment(
        moved in proptest::sample::subsequence(settings(), 0..=8),
        stay in any::<bool>(),
    ) {
        let moved: Vec<_> = moved.iter().filter_map(|setting| Some((setting, setting.as_variable()?))).collect();
        let environment = Environment::new(moved.iter().map(|(setting, value)| (setting.variable(), *value)));
        let nonsense = |setting: &Setting| format!("{} = {{ nonsense = 1.5 }}", setting.key);
        let line = |setting: &Setting| if stay { nonsense(setting) } else { String::new() };
        let text = file(&moved.iter().map(|(setting, _)| (setting.line, line(setting))).collect::<Vec<_>>());
        prop_assert_eq!(parse(&text, &environment), parse(FILE, &Environment::default()));
    }

    /// What is wrong with a variable is told with its name.
    #[test]
    fn a_wrong_variable_is_named(setting in select(settings()), value in "[\\x01\\x02]{1,3}") {
        prop_assume!(setting.as_variable().is_some());
        let environment = Environment::new([(setting.variable(), value)]);
        let problems = parse(&file(&[]), &environment).expect_err("a wrong value");
        for problem in problems {
            prop_assert_eq!(problem.variable, Some(setting.variable()), "{}", problem.key);
            prop_assert_eq!(problem.key, setting.path());
        }
    }

    /// The file with any text anywhere is a configuration, or it is said where it is wrong; nobody panics.
    #[test]
    fn no_change_of_the_file_panics(
        changes in proptest::collection::vec((any::<Index>(), 0_usize..12, ".{0,6}|[\"\\[\\]{}=.#\n]{0,3}"), 1..6),
    ) {
        let mut text = lines().join("\n");
        for (at, cut, put) in changes {
            let place = |wanted: usize| (0..=wanted.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let at = place(at.index(text.len() + 1));
            let end = place(at + cut).max(at);
            text.replace_range(at..end, &put);
        }
        match Config::parse(&text, "relay.toml", &Environment::default()) {
            Ok(_) => {}
            Err(ConfigError::Syntax { line, .. }) => prop_assert!((1..=text.lines().count() + 1).contains(&line)),
            Err(ConfigError::Settings { problems, .. }) => prop_assert!(!problems.is_empty()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
