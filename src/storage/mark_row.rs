//! Marks, and passed holes, as attributes of a position row, and how they are changed there.
//!
//! What is changed, and under which conditions, is for the callers; a condition is always on the mark as it was read.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};

use super::call::{Item, number, sequence_of, text, text_of};
use super::position_store::{PK, SEQUENCE};
use super::{Ending, Mark, MarkState, Passed, Standing};
use crate::event::{Sequence, Timestamp};
use crate::stream::{Branch, ShardId};

/// S: `parked` or `deferred`.
pub(super) const MARK: &str = "mark";
/// N: the event the root stands before.
pub(super) const MARK_SEQUENCE: &str = "mark_sequence";
/// N: how often the handler was given it.
const MARK_ATTEMPTS: &str = "mark_attempts";
/// S: why.
const MARK_REASON: &str = "mark_reason";
/// S: since when.
pub(super) const MARKED_AT: &str = "marked_at";
/// BOOL: events before the position are given again.
const MARK_REWOUND: &str = "mark_rewound";
/// S: the branch that the root was met on; absent where there is none.
pub(super) const MARK_BRANCH: &str = "mark_branch";
/// What `mark` says, in the relay's table alone, of a mark that was taken away.
pub(super) const ENDING: &str = "ending";
/// The attributes of a mark.
pub(super) const MARK_COLUMNS: [&str; 7] =
    [MARK, MARK_SEQUENCE, MARK_ATTEMPTS, MARK_REASON, MARKED_AT, MARK_REWOUND, MARK_BRANCH];

/// S: the holes that were passed. It stays when a mark goes.
pub(super) const PASSED: &str = "passed_holes";

/// The mark in a row; none when it carries none.
pub(super) fn mark_of(item: &Item) -> Result<Option<Mark>, &'static str> {
    let Some(state) = item.get(MARK) else { return Ok(None) };
    let state =
        state.as_s().ok().and_then(|text| MarkState::parse(text)).ok_or("`mark` is neither parked nor deferred (S)")?;
    let sequence = sequence_of(item, MARK_SEQUENCE).ok_or("`mark_sequence` is no whole number (N) from 0")?;
    let attempts = sequence_of(item, MARK_ATTEMPTS).and_then(|count| u32::try_from(count.0).ok()).unwrap_or(0);
    let marked_at = text_of(item, MARKED_AT)
        .and_then(|moment| Timestamp::parse(moment).ok())
        .ok_or("`marked_at` is no ISO 8601 time (S)")?;
    let rewound = item.get(MARK_REWOUND).and_then(|value| value.as_bool().ok()) == Some(&true);
    let mark = Mark::new(state, sequence, attempts, text_of(item, MARK_REASON).unwrap_or_default(), marked_at);
    Ok(Some(Mark { rewound, branch: branch_of(item), ..mark }))
}

/// What is left of a mark in a row of the relay's table; none when the row is a mark.
pub(super) fn ending_of(item: &Item) -> Option<Ending> {
    text_of(item, MARK).filter(|state| *state == ENDING)?;
    let sequence = sequence_of(item, MARK_SEQUENCE)?;
    let marked_at = text_of(item, MARKED_AT).and_then(|moment| Timestamp::parse(moment).ok())?;
    Some(Ending { sequence, marked_at, branch: branch_of(item) })
}

/// The branch in a row; none where it names none.
pub(super) fn branch_of(item: &Item) -> Option<Branch> {
    text_of(item, MARK_BRANCH).map(|shard| Branch(ShardId::new(shard)))
}

/// The passed holes in a row; none when it has none.
pub(super) fn passed_of(item: &Item) -> Result<Option<Box<Passed>>, &'static str> {
    let Some(passed) = item.get(PASSED) else { return Ok(None) };
    let passed = passed.as_s().ok().and_then(|text| Passed::parse(text));
    let passed = passed.ok_or("`passed_holes` is no list of sequences such as 2,5-9 (S)")?;
    Ok(Some(passed).filter(|passed| !passed.is_empty()).map(Box::new))
}

pub(super) fn columns_of(mark: &Mark) -> Vec<(&'static str, AttributeValue)> {
    let mut columns = vec![
        (MARK, text(mark.state.as_str())),
        (MARK_SEQUENCE, number(mark.sequence)),
        (MARK_ATTEMPTS, number(Sequence(mark.attempts.into()))),
        (MARK_REASON, text(mark.reason.as_str())),
        (MARKED_AT, text(mark.marked_at.to_string())),
        (MARK_REWOUND, AttributeValue::Bool(mark.rewound)),
    ];
    columns.extend(mark.branch.as_ref().map(|branch| (MARK_BRANCH, text(branch.to_string()))));
    columns
}

/// An update of a position row, before it is complete.
pub(super) struct Change<'a> {
    table: &'a str,
    key: String,
    set: Vec<String>,
    remove: Vec<&'static str>,
    values: HashMap<String, AttributeValue>,
    conditions: Vec<&'static str>,
}

impl<'a> Change<'a> {
    /// Nothing yet, under no condition.
    pub(super) fn of(table: &'a str, key: String) -> Self {
        let (set, remove, conditions) = (Vec::new(), Vec::new(), Vec::new());
        Self { table, key, set, remove, values: HashMap::new(), conditions }
    }

    /// Gives an attribute a value; conditions may use its placeholder, too.
    pub(super) fn set(&mut self, column: &str, placeholder: &str, value: AttributeValue) {
        self.set.push(format!("{column} = {placeholder}"));
        self.values.insert(placeholder.to_owned(), value);
    }

    /// Sets a mark.
    pub(super) fn mark(&mut self, mark: &Mark) {
        for (column, value) in columns_of(mark) {
            self.set(column, &format!(":{column}"), value);
        }
        if mark.branch.is_none() {
            self.remove.push(MARK_BRANCH);
        }
    }

    /// Takes the mark away.
    pub(super) fn unmark(&mut self) {
        self.remove.extend(MARK_COLUMNS);
    }

    /// Under this condition, too.
    pub(super) fn only(&mut self, condition: &'static str) {
        self.conditions.push(condition);
    }

    /// Under a condition with this value.
    pub(super) fn only_with(&mut self, condition: &'static str, placeholder: &str, value: AttributeValue) {
        self.only(condition);
        self.values.insert(placeholder.to_owned(), value);
    }

    /// Under the condition that the row carries this mark.
    pub(super) fn only_marked(&mut self, mark: &Mark) {
        self.only("mark = :from_mark AND mark_sequence = :from_sequence AND marked_at = :from_at");
        self.values.extend([
            (":from_mark".into(), text(mark.state.as_str())),
            (":from_sequence".into(), number(mark.sequence)),
            (":from_at".into(), text(mark.marked_at.to_string())),
        ]);
    }

    /// Sets the position to `covered`, if it is not past that and the mark is that of `standing` still.
    pub(super) fn only_standing(&mut self, standing: &Standing, covered: Option<Sequence>) {
        self.only(match covered {
            Some(_) => "(attribute_not_exists(#sequence) OR #sequence <= :covered)",
            None => "attribute_not_exists(#sequence)",
        });
        if let Some(covered) = covered {
            self.set("#sequence", ":covered", number(covered));
        }
        match &standing.mark {
            Some(from) => self.only_marked(from),
            None => self.only("attribute_not_exists(mark)"),
        }
    }

    pub(super) fn build(self) -> TransactWriteItem {
        let part =
            |word: &str, columns: String| if columns.is_empty() { columns } else { format!("{word} {columns} ") };
        let expression = part("SET", self.set.join(", ")) + &part("REMOVE", self.remove.join(", "));
        let condition = self.conditions.join(" AND ");
        let sequence = (expression.contains("#sequence") || condition.contains("#sequence"))
            .then(|| HashMap::from([("#sequence".to_owned(), SEQUENCE.to_owned())]));
        let update = Update::builder()
            .table_name(self.table)
            .key(PK, text(self.key))
            .update_expression(expression)
            .condition_expression(condition)
            .set_expression_attribute_names(sequence)
            .set_expression_attribute_values(Some(self.values));
        TransactWriteItem::builder().update(update.build().expect("key and expression are set")).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::testing::any_item;
    use proptest::prelude::*;

    const COLUMNS: [&str; 8] =
        [MARK, MARK_SEQUENCE, MARK_ATTEMPTS, MARK_REASON, MARKED_AT, MARK_REWOUND, MARK_BRANCH, PASSED];

    proptest! {
        /// A row never has a mark, or holes, that it does not say in full.
        #[test]
        fn any_row_has_a_mark_or_none_or_says_what_is_wrong(item in any_item(&COLUMNS)) {
            match mark_of(&item) {
                Ok(Some(mark)) => prop_assert!(
                    MarkState::parse(text_of(&item, MARK).unwrap()) == Some(mark.state)
                        && sequence_of(&item, MARK_SEQUENCE) == Some(mark.sequence)
                        && item.contains_key(MARKED_AT)
                ),
                Ok(None) => prop_assert!(!item.contains_key(MARK)),
                Err(reason) => prop_assert!(item.contains_key(MARK) && reason.starts_with("`mark")),
            }
            let passed = passed_of(&item);
            // A list without holes is none, however it is written: "" and "," are such.
            let lists_none = |text: &str| text.bytes().all(|byte| byte == b',');
            let has_none = item.get(PASSED).is_none_or(|passed| passed.as_s().is_ok_and(|text| lists_none(text)));
            prop_assert_eq!(matches!(passed, Ok(None)), has_none);
        }
    }
}
