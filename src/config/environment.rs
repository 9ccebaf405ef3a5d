//! Environment variables laid over the file: a few with names of their own, and `ANGZARR_RELAY__SECTION__KEY` for every
//! other key.
//!
//! A variable replaces the file's value. List entries are named by their number, as in
//! `ANGZARR_RELAY__HANDLERS__0__FLUSH_INTERVAL`; a variable adds keys but no list entries. Empty variables count as not
//! set. A variable that names no key becomes an unknown key.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::error::{Fault, Problem};

/// What every variable without a name of its own begins with.
const PREFIX: &str = "ANGZARR_RELAY__";

/// The variables with names of their own, and their keys.
const NAMED: [(&str, &[&str]); 5] = [
    ("STORAGE_BACKEND", &["storage", "backend"]),
    ("AWS_REGION", &["storage", "dynamo", "region"]),
    ("DYNAMO_TABLE_PREFIX", &["storage", "dynamo", "table_prefix"]),
    ("DYNAMO_ENDPOINT", &["storage", "dynamo", "endpoint"]),
    ("KINESIS_ENDPOINT", &["kinesis", "endpoint"]),
];

/// The variables a configuration may be overridden with.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// A file's table with the environment laid over it.
#[derive(Debug)]
pub(super) struct Overlay {
    /// From a key's path to the variable that set it.
    pub(super) variables: BTreeMap<String, String>,
    pub(super) problems: Vec<Problem>,
}

impl Environment {
    /// The variables of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Self::new(pairs)
    }

    /// These variables; those that mean nothing to the relay are left out.
    pub fn new<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let ours = |name: &str| name.starts_with(PREFIX) || NAMED.iter().any(|(named, _)| *named == name);
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(pairs.filter(|(name, value)| ours(name) && !value.trim().is_empty()).collect())
    }

    /// Writes every variable into the table. The general form goes before a name of its own.
    pub(super) fn lay_over(&self, table: &mut Table) -> Overlay {
        let mut overlay = Overlay { variables: BTreeMap::new(), problems: Vec::new() };
        for (name, keys) in NAMED {
            if let Some(value) = self.0.get(name) {
                let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
                overlay.set(table, name, &keys, value);
            }
        }
        for (name, value) in &self.0 {
            if let Some(rest) = name.strip_prefix(PREFIX) {
                let keys: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
                overlay.set(table, name, &keys, value);
            }
        }
        overlay
    }
}

impl Overlay {
    fn set(&mut self, table: &mut Table, name: &str, keys: &[String], value: &str) {
        match set_in_table(table, keys, "", value) {
            Ok(path) => {
                self.variables.insert(path, name.to_owned());
            }
            Err(expected) => self.problems.push(Problem {
                key: keys.join("."),
                variable: Some(name.to_owned()),
                fault: Fault::Wrong { found: "no such key".to_owned(), expected },
            }),
        }
    }
}

/// Answers the dotted path of the key, or what was expected instead.
fn set_in_table(table: &mut Table, keys: &[String], path: &str, value: &str) -> Result<String, String> {
    let Some((key, rest)) = keys.split_first().filter(|(key, _)| !key.is_empty()) else {
        return Err(format!("a name of the form {PREFIX}SECTION__KEY"));
    };
    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
    if rest.is_empty() {
        table.insert(key.clone(), Value::from(value));
        return Ok(path);
    }
    let next = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
    set_in_value(next, rest, &path, value)
}

fn set_in_value(place: &mut Value, keys: &[String], path: &str, value: &str) -> Result<String, String> {
    match place {
        Value::Table(table) => set_in_table(table, keys, path, value),
        Value::Array(entries) => {
            let count = entries.len();
            let entry = keys[0].parse::<usize>().ok().and_then(|index| Some((index, entries.get_mut(index)?)));
            let Some((index, entry)) = entry else {
                return Err(format!("a number below {count} after {path}: the file lists {count}"));
            };
            let path = format!("{path}[{index}]");
            if keys.len() == 1 {
                *entry = Value::from(value);
                return Ok(path);
            }
            set_in_value(entry, &keys[1..], &path, value)
        }
        _ => Err(format!("{path} to be a table")),
    }
}
