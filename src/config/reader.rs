//! Reads one section of the file, key by key, with a type and bounds for each; collects problems instead of stopping at
//! the first.
//!
//! Every read answers a usable value (the default) even when the found one is wrong, so that reading goes on. A key
//! that nobody asked for is reported by [`Section::finish`]. What a key means is its section's business.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use toml::{Table, Value};

use super::error::{Fault, Problem};

/// How much of a wrong text a problem shows.
const SHOWN_CHARS_MAX: usize = 60;

/// The problems found so far, and which values came from the environment.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    /// From a key's path to the variable that set it.
    variables: BTreeMap<String, String>,
}

impl Report {
    pub(super) fn new(variables: BTreeMap<String, String>, problems: Vec<Problem>) -> Self {
        Self { problems: RefCell::new(problems), variables }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    pub(super) fn add(&self, key: &str, fault: Fault) {
        let problem = Problem { key: key.to_owned(), variable: self.variable_of(key).cloned(), fault };
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn wrong(&self, key: &str, found: impl Into<String>, expected: impl Into<String>) {
        self.add(key, Fault::Wrong { found: found.into(), expected: expected.into() });
    }

    fn variable_of(&self, key: &str) -> Option<&String> {
        let below = |path: &str| path.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
        self.variables.get(key).or_else(|| self.variables.iter().find(|(path, _)| below(path)).map(|(_, name)| name))
    }
}

/// One table of the file, being read.
#[derive(Debug)]
#[must_use = "call finish, or unknown keys go unnoticed"]
pub(super) struct Section<'r> {
    report: &'r Report,
    path: String,
    table: Table,
    asked: Vec<String>,
}

impl<'r> Section<'r> {
    /// The whole file.
    pub(super) fn root(report: &'r Report, table: Table) -> Self {
        Self { report, path: String::new(), table, asked: Vec::new() }
    }

    pub(super) fn report(&self) -> &'r Report {
        self.report
    }

    /// The dotted path of a key of this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The path of the section itself.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether the key is there; does not count as asking for it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The keys of a section whose keys are free.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// Reports a key's value as wrong.
    pub(super) fn wrong(&self, key: &str, found: impl Into<String>, expected: impl Into<String>) {
        self.report.wrong(&self.path_of(key), found, expected);
    }

    /// Reports a key as missing.
    pub(super) fn missing(&self, key: &str, expected: &str) {
        self.report.add(&self.path_of(key), Fault::Missing { expected: expected.to_owned() });
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.asked.push(key.to_owned());
        self.table.remove(key)
    }

    fn set_by_variable(&self, key: &str) -> bool {
        self.report.variables.contains_key(&self.path_of(key))
    }

    /// A table of its own; an empty one when it is not there.
    pub(super) fn section(&mut self, key: &str) -> Section<'r> {
        self.optional_section(key).unwrap_or_else(|| self.child(key, Table::new()))
    }

    /// A table of its own, if it is there.
    pub(super) fn optional_section(&mut self, key: &str) -> Option<Section<'r>> {
        match self.take(key)? {
            Value::Table(table) => Some(self.child(key, table)),
            other => {
                self.wrong(key, shown(&other), "a table");
                None
            }
        }
    }

    fn child(&self, key: &str, table: Table) -> Section<'r> {
        Section { report: self.report, path: self.path_of(key), table, asked: Vec::new() }
    }

    /// A list of tables; `None` when the key is not there.
    pub(super) fn sections(&mut self, key: &str, count_max: usize) -> Option<Vec<Section<'r>>> {
        let values = match self.take(key)? {
            Value::Array(values) => values,
            other => {
                self.wrong(key, shown(&other), "a list of tables");
                return Some(Vec::new());
            }
        };
        if values.len() > count_max {
            self.wrong(key, format!("{} entries", values.len()), format!("at most {count_max}"));
        }
        let mut sections = Vec::with_capacity(values.len().min(count_max));
        for (index, value) in values.into_iter().take(count_max).enumerate() {
            let indexed = format!("{key}[{index}]");
            match value {
                Value::Table(table) => sections.push(self.child(&indexed, table)),
                other => self.wrong(&indexed, shown(&other), "a table"),
            }
        }
        Some(sections)
    }

    /// A text (or a TOML date-time) that `parse` understands. `None` when it is not there or is wrong, which is then
    /// reported.
    pub(super) fn parsed<T>(&mut self, key: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = match self.take(key)? {
            Value::String(text) => text,
            Value::Datetime(moment) => moment.to_string(),
            other => {
                self.wrong(key, shown(&other), expected);
                return None;
            }
        };
        let value = parse(&text);
        if value.is_none() {
            self.wrong(key, quoted(&text), expected);
        }
        value
    }

    /// Like [`Self::parsed`], and a missing key is reported too.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.asked.push(key.to_owned());
            self.missing(key, expected);
            return None;
        }
        self.parsed(key, expected, parse)
    }

    /// A text whose value must never be shown.
    pub(super) fn secret(&mut self, key: &str, expected: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(key, kind(&other), expected);
                None
            }
        }
    }

    /// Whether the key holds a table; anything else is a plain value.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(Value::is_table)
    }

    /// A duration with units, within bounds.
    pub(super) fn duration(&mut self, key: &str, default: Duration, bounds: &RangeInclusive<Duration>) -> Duration {
        let show = |duration: &Duration| humantime::format_duration(*duration).to_string();
        let expected = format!(
            "a duration with its unit, such as \"{}\", from {} to {}",
            show(&default),
            show(bounds.start()),
            show(bounds.end())
        );
        let parse = |text: &str| humantime::parse_duration(text.trim()).ok().filter(|found| bounds.contains(found));
        self.parsed(key, &expected, parse).unwrap_or(default)
    }

    /// A size with units, in bytes, within bounds.
    pub(super) fn bytes(&mut self, key: &str, default: usize, bounds: &RangeInclusive<usize>) -> usize {
        let show = |bytes: usize| ByteSize::b(bytes as u64).to_string().replace(' ', "");
        let expected = format!(
            "a size with its unit, such as \"{}\", from {} to {}",
            show(default),
            show(*bounds.start()),
            show(*bounds.end())
        );
        let parse = |text: &str| {
            let size: ByteSize = text.parse().ok()?;
            usize::try_from(size.as_u64()).ok().filter(|found| bounds.contains(found))
        };
        self.parsed(key, &expected, parse).unwrap_or(default)
    }

    /// A whole number within bounds.
    pub(super) fn count<T>(&mut self, key: &str, default: T, bounds: &RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + Copy + Display,
    {
        let textual = self.set_by_variable(key);
        let Some(value) = self.take(key) else { return default };
        let number = match &value {
            Value::Integer(number) => Some(*number),
            Value::String(text) if textual => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.and_then(|number| T::try_from(number).ok()).filter(|number| bounds.contains(number));
        number.unwrap_or_else(|| {
            let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
            self.wrong(key, shown(&value), expected);
            default
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        let textual = self.set_by_variable(key);
        let Some(value) = self.take(key) else { return default };
        let flag = match &value {
            Value::Boolean(flag) => Some(*flag),
            Value::String(text) if textual => text.trim().parse().ok(),
            _ => None,
        };
        flag.unwrap_or_else(|| {
            self.wrong(key, shown(&value), "true or false");
            default
        })
    }

    /// A list of texts, each accepted by `check`; from the environment one text with commas. An empty list is reported
    /// as wrong.
    pub(super) fn texts(&mut self, key: &str, expected: &str, check: impl Fn(&str) -> bool) -> Option<Vec<String>> {
        let textual = self.set_by_variable(key);
        let values = match self.take(key)? {
            Value::Array(values) => values,
            Value::String(text) if textual => text.split(',').map(|part| Value::from(part.trim())).collect(),
            other => {
                self.wrong(key, shown(&other), format!("a list, each {expected}"));
                return None;
            }
        };
        if values.is_empty() {
            self.wrong(key, "an empty list", format!("at least one entry, {expected}"));
        }
        let mut texts = Vec::with_capacity(values.len());
        for (index, value) in values.into_iter().enumerate() {
            match value {
                Value::String(text) if check(&text) => texts.push(text),
                other => self.wrong(&format!("{key}[{index}]"), shown(&other), expected),
            }
        }
        Some(texts)
    }

    /// Ends the section: what is left in it are keys nobody knows.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let nearest = (self.asked.iter())
                .max_by(|left, right| strsim::jaro_winkler(key, left).total_cmp(&strsim::jaro_winkler(key, right)))
                .map(|nearest| self.path_of(nearest));
            self.report.add(&self.path_of(key), Fault::Unknown { nearest });
        }
    }
}

/// A value as a problem shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(moment) => moment.to_string(),
        Value::Array(_) | Value::Table(_) => kind(value).to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "a truth value",
        Value::Datetime(_) => "a time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// A text as a problem shows it: quoted, its control characters escaped, shortened.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{dots}")
}
