//! Writing positions: BatchExecuteStatement, 25 statements a call, which costs a tenth of the client CPU of single
//! updates.
//!
//! A statement cannot both insert and update. So each advance begins with the one that its caller's belief suggests,
//! goes on with the other when that finds the row missing or there, and ends with a single UpdateItem, which can do
//! both. Invariant: every step carries the condition of the port, so none can take a position back, whatever is lost or
//! repeated.

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    BatchStatementError, BatchStatementErrorCodeEnum, BatchStatementRequest, ReturnConsumedCapacity,
    ReturnValuesOnConditionCheckFailure,
};
use futures_util::{StreamExt as _, stream};

use super::call::{Item, number, sequence_of, text};
use super::position_store::{DynamoPositions, PK, SEQUENCE, UPDATED_AT, position_key};
use super::{Advance, Advanced, StorageError};
use crate::aws::{AwsFailure, classify_code, observe};
use crate::handler::HandlerName;

/// Statements of one BatchExecuteStatement: the service's limit.
const STATEMENTS_MAX: usize = 25;
/// Calls under way at once.
const CALLS_MAX: usize = 4;

/// One way of writing a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A statement for a row that has a `sequence`.
    Update,
    /// A statement for a row that does not exist.
    Insert,
    /// A single UpdateItem for whatever is there.
    Upsert,
}

/// What a step came to.
#[derive(Debug)]
enum Outcome {
    Done(Result<Advanced, StorageError>),
    Next(Step),
}

type Answer = Result<Advanced, StorageError>;

impl DynamoPositions {
    /// Writes every advance; answers in their order.
    pub(super) async fn advance_all(&self, handler: &HandlerName, advances: &[Advance]) -> Vec<Answer> {
        let writer = Writer {
            positions: self,
            handler,
            now: self.clock.now().to_string(),
            update: format!(
                r#"UPDATE "{}" SET "{SEQUENCE}"=? SET "{UPDATED_AT}"=? WHERE "{PK}"=? AND "{SEQUENCE}"<?"#,
                self.table
            ),
            insert: format!(r#"INSERT INTO "{}" VALUE {{'{PK}':?,'{SEQUENCE}':?,'{UPDATED_AT}':?}}"#, self.table),
        };
        let first = |advance: &Advance| if advance.from.is_some() { Step::Update } else { Step::Insert };
        let mut open: Vec<(usize, Step)> = advances.iter().map(first).enumerate().collect();
        let mut answers: Vec<Option<Answer>> = advances.iter().map(|_| None).collect();

        // Two rounds of statements at most: the first step of each, then the other; what is left is single.
        for last_statement in [false, true] {
            let settled = writer.statements(advances, &open, last_statement).await;
            open.clear();
            for (at, outcome) in settled {
                match outcome {
                    Outcome::Done(answer) => answers[at] = Some(answer),
                    Outcome::Next(step) => open.push((at, step)),
                }
            }
        }
        let singles = open.into_iter().map(|(at, _)| writer.upsert(at, &advances[at]));
        let singles: Vec<(usize, Answer)> =
            stream::iter(singles.collect::<Vec<_>>()).buffered(CALLS_MAX).collect().await;
        for (at, answer) in singles {
            answers[at] = Some(answer);
        }
        (answers.into_iter().zip(advances))
            .map(|(answer, advance)| {
                answer.unwrap_or_else(|| Err(self.unreadable(&position_key(handler, &advance.root))))
            })
            .collect()
    }
}

struct Writer<'a> {
    positions: &'a DynamoPositions,
    handler: &'a HandlerName,
    now: String,
    update: String,
    insert: String,
}

impl Writer<'_> {
    /// Runs the statements among `open`; steps that are none pass through.
    async fn statements(
        &self,
        advances: &[Advance],
        open: &[(usize, Step)],
        last_statement: bool,
    ) -> Vec<(usize, Outcome)> {
        let (single, batched): (Vec<_>, Vec<_>) = open.iter().copied().partition(|(_, step)| *step == Step::Upsert);
        let calls: Vec<_> =
            batched.chunks(STATEMENTS_MAX).map(|chunk| self.execute(advances, chunk, last_statement)).collect();
        let mut outcomes: Vec<_> = stream::iter(calls).buffered(CALLS_MAX).concat().await;
        outcomes.extend(single.into_iter().map(|(at, step)| (at, Outcome::Next(step))));
        outcomes
    }

    async fn execute(
        &self,
        advances: &[Advance],
        chunk: &[(usize, Step)],
        last_statement: bool,
    ) -> Vec<(usize, Outcome)> {
        let positions = self.positions;
        let call = positions.call("BatchExecuteStatement", "dynamodb:PartiQLUpdate and dynamodb:PartiQLInsert");
        let statements = chunk.iter().map(|(at, step)| self.statement(&advances[*at], *step)).collect();
        let request = (positions.client.batch_execute_statement())
            .set_statements(Some(statements))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = match call.make(request.send()).await {
            Ok(answer) => answer,
            Err(error) => {
                let errors = error.for_each(chunk.len()).into_iter().map(|error| Outcome::Done(Err(error)));
                return chunk.iter().map(|(at, _)| *at).zip(errors).collect();
            }
        };
        call.consumed(answer.consumed_capacity());
        let mut responses = answer.responses.unwrap_or_default().into_iter();
        let settle = |(at, step): &(usize, Step)| {
            let outcome = match responses.next() {
                // A row that cannot be accounted for is written again by itself.
                None => Outcome::Next(Step::Upsert),
                Some(response) => match response.error {
                    None => Outcome::Done(Ok(Advanced::Written)),
                    Some(error) => match refused(*step, &error, last_statement) {
                        Some(outcome) => outcome,
                        None => Outcome::Done(Err(call.part_failed(code(&error), error.message()))),
                    },
                },
            };
            (*at, outcome)
        };
        chunk.iter().map(settle).collect()
    }

    fn statement(&self, advance: &Advance, step: Step) -> BatchStatementRequest {
        let (pk, to, now) =
            (text(position_key(self.handler, &advance.root)), number(advance.to), text(self.now.as_str()));
        let (statement, parameters) = match step {
            Step::Insert => (&self.insert, vec![pk, to, now]),
            Step::Update | Step::Upsert => (&self.update, vec![to.clone(), now, pk, to]),
        };
        BatchStatementRequest::builder()
            .statement(statement)
            .set_parameters(Some(parameters))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .expect("the statement is set")
    }

    /// The condition of the port in full, for rows no statement could settle.
    async fn upsert(&self, at: usize, advance: &Advance) -> (usize, Answer) {
        let positions = self.positions;
        let call = positions.call("UpdateItem", "dynamodb:UpdateItem");
        let key = position_key(self.handler, &advance.root);
        let request = (positions.client.update_item())
            .table_name(&positions.table)
            .key(PK, text(key.as_str()))
            .update_expression("SET #sequence = :new, #updated_at = :now")
            .condition_expression("attribute_not_exists(#sequence) OR #sequence < :new")
            .expression_attribute_names("#sequence", SEQUENCE)
            .expression_attribute_names("#updated_at", UPDATED_AT)
            .expression_attribute_values(":new", number(advance.to))
            .expression_attribute_values(":now", text(self.now.as_str()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = match observe(call.operation, request.send()).await {
            Ok(answer) => {
                call.consumed(answer.consumed_capacity());
                Ok(Advanced::Written)
            }
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refusal)) => {
                    let durable = refusal.item().and_then(|item| sequence_of(item, SEQUENCE));
                    durable.map(|durable| Advanced::Refused { durable }).ok_or_else(|| positions.unreadable(&key))
                }
                _ => Err(call.failed(error)),
            },
        };
        (at, answer)
    }
}

fn code(error: &BatchStatementError) -> &str {
    error.code().map_or("", BatchStatementErrorCodeEnum::as_str)
}

/// What a refused statement means; none when it was not the condition that failed.
fn refused(step: Step, error: &BatchStatementError, last_statement: bool) -> Option<Outcome> {
    if classify_code(code(error), error.message()) != AwsFailure::ConditionFailed {
        return None;
    }
    let durable = error.item().filter(|item| !item.is_empty()).map(|item: &Item| sequence_of(item, SEQUENCE));
    Some(match (step, durable) {
        // The row stands at or past the new position.
        (Step::Update, Some(Some(durable))) => Outcome::Done(Ok(Advanced::Refused { durable })),
        // The row has no position yet, only marks, or the statements disagree about whether it exists.
        (_, Some(None)) => Outcome::Next(Step::Upsert),
        _ if last_statement => Outcome::Next(Step::Upsert),
        (Step::Update, None) => Outcome::Next(Step::Insert),
        (Step::Insert, _) => Outcome::Next(Step::Update),
        (Step::Upsert, _) => Outcome::Next(Step::Upsert),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Sequence;

    fn error(code: BatchStatementErrorCodeEnum, item: Option<Item>) -> BatchStatementError {
        BatchStatementError::builder().code(code).set_item(item).build()
    }

    fn row(sequence: Option<u64>) -> Item {
        let mut item = Item::from([(PK.to_owned(), text("h#d##r"))]);
        item.extend(sequence.map(|sequence| (SEQUENCE.to_owned(), number(Sequence(sequence)))));
        item
    }

    fn shown(step: Step, error: &BatchStatementError, last_statement: bool) -> String {
        match refused(step, error, last_statement) {
            None => "failed".into(),
            Some(Outcome::Next(step)) => format!("{step:?}"),
            Some(Outcome::Done(answer)) => format!("{:?}", answer.unwrap()),
        }
    }

    #[test]
    fn a_refused_statement_goes_on_with_what_can_settle_it() {
        use BatchStatementErrorCodeEnum::{ConditionalCheckFailed, DuplicateItem, ThrottlingError};
        for (step, code, item, last, expected) in [
            (Step::Update, ConditionalCheckFailed, Some(row(Some(9))), false, "Refused { durable: Sequence(9) }"),
            (Step::Update, ConditionalCheckFailed, Some(row(Some(9))), true, "Refused { durable: Sequence(9) }"),
            (Step::Update, ConditionalCheckFailed, None, false, "Insert"),
            (Step::Update, ConditionalCheckFailed, None, true, "Upsert"),
            (Step::Update, ConditionalCheckFailed, Some(row(None)), false, "Upsert"),
            (Step::Insert, DuplicateItem, None, false, "Update"),
            (Step::Insert, DuplicateItem, Some(row(Some(3))), false, "Update"),
            (Step::Insert, DuplicateItem, Some(row(None)), false, "Upsert"),
            (Step::Insert, DuplicateItem, None, true, "Upsert"),
            (Step::Update, ThrottlingError, None, false, "failed"),
        ] {
            assert_eq!(shown(step, &error(code.clone(), item), last), expected, "{step:?} {code:?} {last}");
        }
    }
}
