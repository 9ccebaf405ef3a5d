//! Whether what the handlers give their events to is there. Nothing is delivered; beside a file that is not there yet,
//! an empty one is made for a moment, to see whether it could be.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use aws_sdk_kinesis::operation::describe_stream_summary::DescribeStreamSummaryError;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::finding::Finding;
use super::judge;
use super::look::explained;
use crate::aws::{AwsFailure, classify, observe};
use crate::cli::ServiceTrouble;
use crate::cli::connect::Connection;
use crate::config::{HandlerConfig, HttpReceiver, HttpUrl, JsonlTarget, Receiver};
use crate::secret::Secret;
use crate::shell::{aws_options, quote};

/// How long an HTTP receiver may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Looks at a handler's receiver.
pub(super) async fn look(handler: &HandlerConfig, connection: &Connection) -> Vec<Finding> {
    let check = format!("handler `{}`", handler.name);
    match &handler.receiver {
        Receiver::Kinesis(receiver) => vec![kinesis(&check, &receiver.stream, connection).await],
        Receiver::Http(receiver) => {
            let mut findings: Vec<Finding> = headers(&check, receiver).collect();
            findings.push(http(&check, &receiver.url).await);
            findings
        }
        Receiver::Jsonl(receiver) => vec![match &receiver.target {
            JsonlTarget::Stdout => Finding::ok(&check, "writes to standard output"),
            JsonlTarget::File(path) => jsonl(&check, path),
        }],
        // That the program brings it was checked with the configuration.
        Receiver::InProcess => vec![Finding::ok(&check, "is Rust code of this program")],
    }
}

async fn kinesis(check: &str, stream: &str, connection: &Connection) -> Finding {
    let service = &connection.kinesis;
    let options = aws_options(&service.region, service.endpoint.as_deref());
    let request = connection.clients.kinesis.describe_stream_summary().stream_name(stream);
    match observe("DescribeStreamSummary", request.send()).await {
        Ok(answer) => {
            let status = answer.stream_description_summary.map(|summary| summary.stream_status);
            judge::kinesis_stream(check, stream, status.as_ref(), &options)
        }
        Err(error) => match error.as_service_error() {
            Some(DescribeStreamSummaryError::ResourceNotFoundException(_)) => {
                judge::kinesis_stream(check, stream, None, &options)
            }
            _ if classify(&*error) == AwsFailure::Denied => Finding::note(
                check,
                format!(
                    "the Kinesis stream `{stream}` was not looked at: kinesis:DescribeStreamSummary is not allowed"
                ),
            ),
            _ => Finding::wrong(check, explained(ServiceTrouble::of_call(service, "DescribeStreamSummary", error))),
        },
    }
}

async fn http(check: &str, url: &HttpUrl) -> Finding {
    let Some((host, port)) = host_and_port(url) else {
        return Finding::wrong(check, "the URL names no host that could be connected to");
    };
    let reason = match timeout(CONNECT_MAX, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => return Finding::ok(check, format!("{host}:{port} accepts connections; nothing was sent")),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", CONNECT_MAX.as_secs()),
    };
    Finding::wrong(
        check,
        format!("cannot connect to {host}:{port}: {reason}; check that it runs, and handlers.http.url"),
    )
}

/// What to connect to; never the rest of the URL, which may hold a secret.
fn host_and_port(url: &HttpUrl) -> Option<(String, u16)> {
    let uri: http::Uri = url.as_str().parse().ok()?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    Some((uri.host()?.trim_matches(['[', ']']).to_owned(), port))
}

/// The headers whose values cannot be had.
fn headers(check: &str, receiver: &HttpReceiver) -> impl Iterator<Item = Finding> {
    receiver.headers.iter().filter_map(move |(name, source)| {
        unreadable(source).map(|why| Finding::wrong(check, format!("header {name}: {why}")))
    })
}

/// Why a secret cannot be had.
pub(super) fn unreadable(secret: &Secret) -> Option<String> {
    match secret {
        Secret::Literal(_) => None,
        Secret::Env(variable) if std::env::var_os(variable).is_some() => None,
        Secret::Env(variable) => Some(format!("the environment variable {variable} is not set")),
        Secret::File(path) => match fs::File::open(path).and_then(|file| file.metadata()) {
            Ok(found) if found.is_file() => None,
            Ok(_) => Some(format!("{} is no file", path.display())),
            Err(error) => Some(format!("cannot read {}: {error}", path.display())),
        },
    }
}

fn jsonl(check: &str, path: &Path) -> Finding {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match writable(path, folder) {
        Ok(()) => Finding::ok(check, format!("{} can be written", path.display())),
        Err(error) if !folder.exists() => {
            let missing = Finding::wrong(check, format!("the folder of {} does not exist: {error}", path.display()));
            missing.mend(format!("mkdir -p {}", quote(&folder.to_string_lossy())))
        }
        Err(error) => Finding::wrong(check, format!("{} cannot be written: {error}", path.display())),
    }
}

/// Whether a file can be appended to, or made.
fn writable(path: &Path, folder: &Path) -> io::Result<()> {
    match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let probe = folder.join(format!(".angzarr-relay-doctor-{}", std::process::id()));
            OpenOptions::new().write(true).create_new(true).open(&probe)?;
            fs::remove_file(&probe)
        }
        opened => opened.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_connected_to_by_host_and_port() {
        for (url, host, port) in [
            ("http://orders/events", "orders", 80),
            ("https://orders.example/events?key=hidden", "orders.example", 443),
            ("http://[::1]:8090/", "::1", 8090),
        ] {
            let url = HttpUrl::parse(url).unwrap();
            assert_eq!(host_and_port(&url), Some((host.to_owned(), port)));
        }
    }

    #[test]
    fn looking_at_a_file_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.jsonl");
        assert_eq!(jsonl("h", &path).verdict, super::super::finding::Verdict::Ok);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(&path, "{}\n").unwrap();
        assert_eq!(jsonl("h", &path).verdict, super::super::finding::Verdict::Ok);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n");
        let missing = jsonl("h", &folder.path().join("no folder/orders.jsonl"));
        assert_eq!(missing.mend, Some(format!("mkdir -p '{}/no folder'", folder.path().display())));
        assert!(jsonl("h", folder.path()).text.contains("cannot be written"));
    }
}
