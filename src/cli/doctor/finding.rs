//! What a check has found, and the report of all findings. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use crate::shell::shown;

/// How wide a verdict is printed.
const VERDICT_WIDTH: usize = 7;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it must be.
    Ok,
    /// To know; nothing has to be done.
    Note,
    /// The relay would not work, or not wholly.
    Wrong,
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// What was looked at, such as ``table `angzarr-events` ``.
    pub(super) check: String,
    /// What was found.
    pub(super) text: String,
    /// The command that mends it, if one does.
    pub(super) mend: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, check: check.to_owned(), text: text.into(), mend: None }
    }

    pub(super) fn note(check: &str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, ..Self::ok(check, text) }
    }

    pub(super) fn wrong(check: &str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Wrong, ..Self::ok(check, text) }
    }

    /// With the command that mends it.
    pub(super) fn mend(self, command: impl Into<String>) -> Self {
        Self { mend: Some(command.into()), ..self }
    }
}

/// All findings, in the order of the checks.
#[derive(Debug, Default)]
pub(super) struct Report(pub(super) Vec<Finding>);

impl Report {
    pub(super) fn wrong(&self) -> usize {
        self.0.iter().filter(|finding| finding.verdict == Verdict::Wrong).count()
    }

    /// A line for each finding, and one for the command that mends it.
    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        for Finding { verdict, check, text, mend } in &self.0 {
            let verdict = match verdict {
                Verdict::Ok => "ok",
                Verdict::Note => "note",
                Verdict::Wrong => "WRONG",
            };
            lines.push(format!("{verdict:VERDICT_WIDTH$}{}: {}", shown(check), shown(text)));
            lines.extend(mend.iter().map(|mend| format!("{:VERDICT_WIDTH$}mend it with: {mend}", "")));
        }
        lines.join("\n")
    }

    pub(super) fn json(&self) -> Value {
        json!({ "ok": self.wrong() == 0, "findings": self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_each_finding_and_what_mends_it() {
        let report = Report(vec![
            Finding::ok("configuration", "3 handlers"),
            Finding::note("handler `b`", "a\nb"),
            Finding::wrong("table `t`", "it is missing").mend("angzarr-relay tables create"),
        ]);
        let expected = "ok     configuration: 3 handlers\n\
             note   handler `b`: a\\nb\n\
             WRONG  table `t`: it is missing\n       mend it with: angzarr-relay tables create";
        assert_eq!(report.text(), expected);
        assert_eq!(report.wrong(), 1);
        let json = report.json();
        assert_eq!(json["ok"], json!(false));
        let last = json!({
            "verdict": "wrong",
            "check": "table `t`",
            "text": "it is missing",
            "mend": "angzarr-relay tables create",
        });
        assert_eq!(json["findings"][2], last);
        assert_eq!(Report::default().json()["ok"], json!(true));
    }
}
