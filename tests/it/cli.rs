//! The built binary: its help, its exit codes, and what it says about a wrong configuration.

use std::process::{Command, Output};

struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn relay(arguments: &[&str], environment: &[(&str, &str)]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_angzarr-relay"));
    for variable in ["STORAGE_BACKEND", "AWS_REGION", "DYNAMO_TABLE_PREFIX", "DYNAMO_ENDPOINT", "KINESIS_ENDPOINT"] {
        command.env_remove(variable);
    }
    let Output { status, stdout, stderr } =
        command.args(arguments).envs(environment.iter().copied()).output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
    Answer { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// The commands that a help text lists, `help` left out.
fn named_commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

#[test]
fn help_lists_every_command_and_each_has_help_with_an_example() {
    let help = relay(&["--help"], &[]);
    assert_eq!(help.code, Some(0));
    let commands = named_commands(&help.stdout);
    assert!(commands.len() >= 14, "{commands:?}");
    for command in commands {
        let own = relay(&[&command, "--help"], &[]);
        assert_eq!(own.code, Some(0), "{command}");
        let subcommands = named_commands(&own.stdout);
        assert!(!subcommands.is_empty() || own.stdout.contains("Example"), "{command}: {}", own.stdout);
        for subcommand in subcommands {
            let own = relay(&[&command, &subcommand, "--help"], &[]);
            assert!(own.stdout.contains("Example"), "{command} {subcommand}: {}", own.stdout);
        }
    }
    let version = relay(&["--version"], &[]);
    assert_eq!((version.code, version.stdout.trim()), (Some(0), concat!("angzarr-relay ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_usage_exits_64() {
    let wrong: [&[&str]; 9] = [
        &[],
        &["fly"],
        &["run", "--fast"],
        &["positions"],
        &["positions", "--handler", "a@0"],
        &["positions", "--root", "orders", "angzarr"],
        &["append", "orders", "1", "--type", "T"],
        &["append", "orders", "1", "--type", "T", "--expected", "0", "--next"],
        &["read", "orders", "1", "--limit", "0"],
    ];
    for arguments in wrong {
        let answer = relay(arguments, &[]);
        assert_eq!(answer.code, Some(64), "{arguments:?}: {}", answer.stderr);
        assert!(!answer.stderr.is_empty(), "{arguments:?}");
    }
    let answer = relay(&["read", "", "1"], &[]);
    assert_eq!(answer.code, Some(64));
    assert_eq!(answer.stderr, "angzarr-relay: wrong arguments: the domain of a root must not be empty\n");
}

#[test]
fn a_wrong_configuration_is_reported_as_a_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("relay.toml");
    let text = "[relay]\nmemory_limt = \"64MiB\"\nshutdown_grace = 20\n[[handlers]]\nname = \"h\"\nkind = \"sink\"\n";
    std::fs::write(&path, text).expect("the file is written");
    let path = path.to_str().expect("the path is UTF-8");
    let environment = [("STORAGE_BACKEND", "postgres"), ("ANGZARR_RELAY__TELEMETRY__LISTEN", "nowhere")];
    let answer = relay(&["run", "--config", path], &environment);
    assert_eq!(answer.code, Some(64));
    let expected = [
        format!("angzarr-relay: {path}: 5 problems"),
        "storage.backend (from STORAGE_BACKEND): found \"postgres\", expected \"dynamo\"".to_owned(),
        "relay.shutdown_grace: found 20, expected a duration".to_owned(),
        "relay.memory_limt: unknown key, the nearest known key is relay.memory_limit".to_owned(),
        "telemetry.listen (from ANGZARR_RELAY__TELEMETRY__LISTEN): found \"nowhere\", expected an address".to_owned(),
        "handlers[0].subscribe: missing".to_owned(),
    ];
    let lines: Vec<&str> = answer.stderr.lines().map(str::trim_start).collect();
    assert_eq!(lines.len(), expected.len(), "{}", answer.stderr);
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
}

#[test]
fn a_relay_without_handlers_a_missing_file_and_a_wrong_filter_exit_64() {
    let answer = relay(&["run"], &[]);
    assert_eq!(answer.code, Some(64));
    assert!(answer.stderr.contains("handlers: missing, expected at least one"), "{}", answer.stderr);

    let answer = relay(&["run", "--config", "no/such.toml"], &[]);
    assert_eq!(answer.code, Some(64));
    let expected = "angzarr-relay: cannot read the configuration file no/such.toml: ";
    assert!(answer.stderr.starts_with(expected), "{}", answer.stderr);

    let answer = relay(&["doctor"], &[("ANGZARR_RELAY_LOG", "loud")]);
    assert_eq!(answer.code, Some(64));
    assert!(answer.stderr.contains("`loud` is no log filter"), "{}", answer.stderr);
}
