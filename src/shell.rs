//! Commands as they are shown to an operator, ready to be pasted into a shell. Pure.
//!
//! Invariant: whatever a name holds, the shell takes it as one word, and the terminal is sent no control character.

use std::fmt::Write as _;
use std::path::Path;

/// A command of this program under the same configuration, such as `angzarr-relay --config relay.toml tables create`.
pub(crate) fn own_command(words: &[&str], config: Option<&Path>) -> String {
    // The configuration comes first: behind a `--` it would be a word of the command.
    let config = config.map(Path::to_string_lossy);
    let config = config.iter().flat_map(|path| ["--config", path]);
    let words = config.chain(words.iter().copied()).map(quote);
    std::iter::once("angzarr-relay".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The options that point the AWS CLI at a service, with a space before each.
pub(crate) fn aws_options(region: &str, endpoint: Option<&str>) -> String {
    let endpoint = endpoint.map_or_else(String::new, |url| format!(" --endpoint-url {}", quote(url)));
    format!(" --region {}{endpoint}", quote(region))
}

/// The text as one word of a shell (bash's `$'..'` where it holds control characters).
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    if !text.chars().any(char::is_control) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut quoted = String::from("$'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => write!(quoted, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

/// The text with its control characters escaped, for a terminal.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_can_be_pasted() {
        let command = own_command(&["read", "orders", "it's 1"], Some(Path::new("my relay.toml")));
        assert_eq!(command, r"angzarr-relay --config 'my relay.toml' read orders 'it'\''s 1'");
        assert_eq!(
            aws_options("us-east-1", Some("http://localhost:8000")),
            " --region us-east-1 --endpoint-url http://localhost:8000"
        );
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a\n'b"), r"$'a\u000a\'b'");
    }

    proptest! {
        #[test]
        fn no_control_character_reaches_the_terminal(text: String) {
            prop_assert!(!quote(&text).chars().any(char::is_control));
            prop_assert!(!shown(&text).chars().any(char::is_control));
        }
    }
}
