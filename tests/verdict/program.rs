//! A judge of what a relay has done: reads the events table, the positions table, Kinesis streams and files of lines,
//! and says whether the delivery contract holds. `cargo test` builds it as an example; nobody ships it.
//!
//! It knows the relay by its documents alone, the tables and the CloudEvents, and uses nothing of its library: what the
//! relay gets wrong, this cannot get wrong in the same way. The relays are to have stopped, after they had everything.
//! It leaves to `sources.rs` what is read, to `judge.rs` what is right.
//!
//! It ends with 0 when all is well, with 1 when something is not or cannot be read, with 2 when it is called in a wrong
//! way. A violation is one line.

mod judge;
mod sources;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::judge::Verdict;

const USAGE: &str = "\
usage: verdict --dynamodb URL --prefix PREFIX --output HANDLER=kinesis:STREAM|HANDLER=jsonl:PATH.. [--kinesis URL] [--strikes FILE]
  each handler subscribes to everything, from the beginning; --strikes names what was durable when something was struck";

/// What is not named one by one, when there is very much of it.
const SHOWN_MAX: usize = 200;

/// Where a handler's events went.
#[derive(Debug)]
enum Receiver {
    Kinesis(String),
    Jsonl(PathBuf),
}

#[derive(Debug, Default)]
struct Arguments {
    dynamodb: String,
    kinesis: Option<String>,
    prefix: String,
    strikes: Option<PathBuf>,
    outputs: BTreeMap<String, Receiver>,
}

impl Arguments {
    /// What is wrong with them, otherwise.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self::default();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} has no value"))?;
            match name.as_str() {
                "--dynamodb" => parsed.dynamodb = value,
                "--kinesis" => parsed.kinesis = Some(value),
                "--prefix" => parsed.prefix = value,
                "--strikes" => parsed.strikes = Some(value.into()),
                "--output" => {
                    let (handler, receiver) = output(&value).ok_or_else(|| format!("--output {value} is no output"))?;
                    if parsed.outputs.insert(handler.clone(), receiver).is_some() {
                        return Err(format!("{handler} has two outputs"));
                    }
                }
                _ => return Err(format!("{name} is unknown")),
            }
        }
        let reads_kinesis = parsed.outputs.values().any(|receiver| matches!(receiver, Receiver::Kinesis(_)));
        if parsed.dynamodb.is_empty() || parsed.prefix.is_empty() || parsed.outputs.is_empty() {
            return Err("--dynamodb, --prefix and --output are needed".to_owned());
        }
        if reads_kinesis && parsed.kinesis.is_none() {
            return Err("--kinesis is needed for an output in Kinesis".to_owned());
        }
        Ok(parsed)
    }
}

fn output(value: &str) -> Option<(String, Receiver)> {
    let (handler, receiver) = value.split_once('=')?;
    let (kind, place) = receiver.split_once(':')?;
    let receiver = match kind {
        "kinesis" => Receiver::Kinesis(place.to_owned()),
        "jsonl" => Receiver::Jsonl(place.into()),
        _ => return None,
    };
    Some((handler.to_owned(), receiver))
}

async fn verdict(arguments: &Arguments) -> Result<(Verdict, String)> {
    let strikes = arguments.strikes.as_deref().map(sources::strikes).transpose()?.unwrap_or_default();
    let dynamodb = aws_sdk_dynamodb::Client::new(&sources::sdk_config(&arguments.dynamodb));
    let table = sources::events(&dynamodb, &arguments.prefix).await?;
    let positions = sources::positions(&dynamodb, &arguments.prefix).await?;
    let mut outputs = BTreeMap::new();
    for (handler, receiver) in &arguments.outputs {
        let output = match receiver {
            Receiver::Jsonl(path) => sources::file(path)?,
            Receiver::Kinesis(stream) => {
                let endpoint = arguments.kinesis.as_deref().unwrap_or_default();
                let kinesis = aws_sdk_kinesis::Client::new(&sources::sdk_config(endpoint));
                sources::stream(&kinesis, stream).await?
            }
        };
        outputs.insert(handler.clone(), output);
    }
    let verdict = judge::judge(&table, &positions, &outputs, &strikes);
    let events: usize = table.values().map(BTreeMap::len).sum();
    let came = outputs.iter().map(|(handler, output)| {
        let repeats = verdict.repeats.get(handler).copied().unwrap_or_default();
        format!("{handler} was given {}, {repeats} of them again", output.arrivals.len())
    });
    let came = came.collect::<Vec<_>>().join("; ");
    let said = format!("{events} events of {} roots, {} strikes; {came}", table.len(), strikes.len());
    Ok((verdict, said))
}

fn show(verdict: &Verdict, said: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let violations = &verdict.violations;
    for violation in violations.iter().take(SHOWN_MAX) {
        writeln!(out, "{violation}")?;
    }
    if violations.len() > SHOWN_MAX {
        writeln!(out, "and {} more", violations.len() - SHOWN_MAX)?;
    }
    writeln!(out, "{said}")?;
    let holds = if violations.is_empty() { "the contract holds" } else { "the contract is broken" };
    writeln!(out, "{holds}: {} violations", violations.len())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            // Where stderr is closed there is nobody left to tell.
            writeln!(io::stderr(), "{wrong}\n{USAGE}").ok();
            return ExitCode::from(2);
        }
    };
    match verdict(&arguments).await {
        Ok((verdict, said)) if show(&verdict, &said).is_ok() && verdict.violations.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            writeln!(io::stderr(), "no verdict: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}
