//! The admin endpoint of a running relay: the status that the command prints, and the log filter, changed for a while.

use std::path::Path;

use angzarr_relay::local::EmbeddedDynamo;
use serde_json::Value;

use crate::outage::dynamo_with_tables;
use crate::support::{RelayHome, RelayProcess, free_port, http, until};

const TOKEN: &str = "let-me-in";

const SILENT: &str = r#"
    [relay]
    poll_interval_max = "250ms"
    [[handlers]]
    name = "audit"
    subscribe = [{ domain = "*" }]
    jsonl = { path = "HOME/audit.jsonl" }
"#;

/// A relay whose admin endpoint listens on this port.
async fn relay(dynamo: &EmbeddedDynamo, port: u16) -> (RelayHome, RelayProcess) {
    let home = RelayHome::new();
    home.configure(dynamo.endpoint(), SILENT);
    let token = home.path("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let relay = spawn(&home, port, &token).await;
    (home, relay)
}

async fn spawn(home: &RelayHome, port: u16, token: &Path) -> RelayProcess {
    let listen = format!("127.0.0.1:{port}");
    let mut relay = home.spawn_with(&[
        ("ANGZARR_RELAY__TELEMETRY__ADMIN_LISTEN", &listen),
        ("ANGZARR_RELAY__TELEMETRY__ADMIN_TOKEN__FILE", token.to_str().unwrap()),
    ]);
    relay.wait_ready().await;
    relay
}

async fn ask(port: u16, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    http::ask(port, method, path, token, body).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_relay_tells_the_status_and_changes_its_log_filter() {
    let (dynamo, port) = (dynamo_with_tables().await, free_port());
    let (home, mut relay) = relay(&dynamo, port).await;

    let (status, told) = ask(port, "GET", "/status", None, "").await;
    assert_eq!(status, 200, "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    let (worked, printed, complaint) = home.command(&["status", "--json"]);
    assert!(worked, "{complaint}");
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&told), keys(&printed));
    assert_eq!(
        (&told["members"][0]["member"], &told["handlers"][0]["handler"]),
        (&printed["members"][0]["member"], &printed["handlers"][0]["handler"])
    );

    // Which lines are logged is changed by whoever has the token, and by nobody else.
    assert_eq!(ask(port, "PUT", "/log-level", None, "debug").await.0, 401);
    assert_eq!(ask(port, "PUT", "/log-level", Some("guess"), "debug").await.0, 401);
    assert_eq!(ask(port, "GET", "/log-level", None, "").await, (200, "info\n".to_owned()));
    assert!(!relay.output().contains("DEBUG"), "{}", relay.output());
    assert_eq!(ask(port, "PUT", "/log-level", Some(TOKEN), "loud").await.0, 400);
    let (status, told) = ask(port, "PUT", "/log-level", Some(TOKEN), "info,angzarr_relay=debug").await;
    assert_eq!((status, told.as_str()), (200, "info,angzarr_relay=debug\n"));
    // Something happens that only such a line tells of.
    ask(port, "NO METHOD", "/status", None, "").await;
    until("a line of that level", async || relay.output().contains("DEBUG").then_some(())).await;
    assert_eq!(ask(port, "PUT", "/log-level", Some(TOKEN), "").await, (200, "info\n".to_owned()));
    assert!(!relay.output().contains(TOKEN), "{}", relay.output());

    // A token that is replaced holds at once; without one nobody is let in.
    std::fs::write(home.path("token"), "another").unwrap();
    assert_eq!(ask(port, "PUT", "/log-level", Some(TOKEN), "debug").await.0, 401);
    std::fs::remove_file(home.path("token")).unwrap();
    assert_eq!(ask(port, "PUT", "/log-level", Some(TOKEN), "debug").await.0, 503);
    assert_eq!(ask(port, "GET", "/status", None, "").await.0, 200);
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

#[tokio::test]
async fn an_endpoint_for_others_needs_a_token() {
    let home = RelayHome::new();
    home.configure("http://127.0.0.1:9", SILENT);
    let mut relay = home.spawn_with(&[("ANGZARR_RELAY__TELEMETRY__ADMIN_LISTEN", "0.0.0.0:0")]);
    assert_eq!(relay.exit().await.code(), Some(64));
    let output = relay.output();
    assert!(output.contains("telemetry.admin_listen") && output.contains("while admin_token is not set"), "{output}");
}
