//! Child processes that cannot outlive the tests, their logs, and waiting for them by condition.
//!
//! Each child leads a process group and runs beside a guardian: a shell of that group which reads from a pipe this
//! process holds. When the pipe closes, on drop or because the test process died in whatever way, the guardian kills
//! the group. So no orphan remains, without unsafe code and on any Unix.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{http, needs, packages};

/// Starts the guardian, then becomes the program: the group's number is the program's own. A file that has reached the
/// limit of its size is a write's error to the program, as a full disk is, and not its end.
const GUARDED: &str = r#"
trap '' XFSZ
exec 3<&0 </dev/null
( exec 0<&3 3<&-; read -r _; kill -s KILL -- "-$$" ) >/dev/null 2>&1 &
exec 3<&- "$@"
"#;
/// Between two looks at a child.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of a log a failure shows.
const TAIL_LINES: usize = 40;

/// A child process; dropping it kills it and whatever it started.
#[derive(Debug)]
pub(crate) struct GuardedProcess {
    child: Child,
    /// The guardian's pipe; never written to.
    guardian: Option<ChildStdin>,
    log: PathBuf,
}

/// Why a child did not come to answer.
#[derive(Debug)]
pub(crate) enum NotAnswering {
    Exited(ExitStatus),
    TooLate,
}

impl GuardedProcess {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts `command` (program and arguments) in `folder`; its output goes to `target/emulators/logs/{name}-*.log`.
    pub(crate) fn spawn(name: &str, command: &[OsString], folder: &Path, environment: &[(&str, &OsStr)]) -> Self {
        let log = log_path(name);
        let output = File::create(&log).expect("the log can be made");
        let errors = output.try_clone().expect("a file handle can be cloned");
        let mut child = Command::new("sh")
            .args(["-c", GUARDED, "sh"])
            .args(command)
            .envs(environment.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {name}: {error}"));
        let guardian = child.stdin.take();
        Self { child, guardian, log }
    }

    /// Waits until the child answers GET `path` on `port` with a status that `fits`.
    pub(crate) async fn answers(
        &mut self,
        port: u16,
        path: &str,
        within: Duration,
        fits: fn(u16) -> bool,
    ) -> Result<(), NotAnswering> {
        let deadline = Instant::now() + within;
        loop {
            let answer = http::get(port, path).await;
            // A child that has ended is not the one that answers, whoever has its port now.
            if let Some(status) = self.ended() {
                return Err(NotAnswering::Exited(status));
            }
            if answer.is_ok_and(|(status, _)| fits(status)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(NotAnswering::TooLate);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for the child's end, and fails the test when it takes too long.
    pub(crate) async fn exit(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process still runs after {within:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Sends the signal called `name` (`TERM`, `STOP`, `CONT`, ...) to the child alone.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "failed to send {name} to process {pid}");
    }

    /// Lets no file that the child writes to grow beyond so many bytes; none: as large as they like.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let limit = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let pid = self.child.id().to_string();
        // The soft limit alone: it can be raised again without any right.
        let limited = Command::new(needs::prlimit()).args(["--pid", &pid, &format!("--fsize={limit}:")]).status();
        assert!(limited.is_ok_and(|status| status.success()), "failed to limit the files of process {pid}");
    }

    /// Kills the child as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.child.kill().expect("one's own child can be killed, even when it has ended");
        self.child.wait().expect("a child can be waited for")
    }

    /// Everything the child has printed.
    pub(crate) fn output(&self) -> String {
        let output = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&output).into_owned()
    }

    /// The end of what the child has printed, for a message.
    pub(crate) fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        format!("--- the end of {}:\n{tail}\n---", self.log.display())
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }
}

impl Drop for GuardedProcess {
    fn drop(&mut self) {
        drop(self.guardian.take());
        self.kill();
        if std::thread::panicking() {
            show(&self.tail());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what its components said; the harness captures it")]
fn show(tail: &str) {
    eprintln!("{tail}");
}

/// A port on loopback that was free a moment ago; whoever is started on it must be ready to find it taken.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

fn log_path(name: &str) -> PathBuf {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let logs = packages::folder().join("logs");
    fs::create_dir_all(&logs).expect("the folder of the logs can be made");
    logs.join(format!("{name}-{}-{}.log", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: Duration = Duration::from_mins(1);

    fn shell(script: &str) -> GuardedProcess {
        let command = ["sh", "-c", script].map(OsString::from);
        GuardedProcess::spawn("shell", &command, Path::new("/"), &[])
    }

    async fn printed(process: &GuardedProcess, text: &str) {
        let deadline = Instant::now() + ENOUGH;
        while !process.output().contains(text) {
            assert!(Instant::now() < deadline, "nobody printed {text}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// What the system does with the pipe when this process dies is what dropping it does here.
    #[tokio::test]
    async fn the_group_dies_with_the_guardians_pipe() {
        let mut process = shell("sleep 600 & echo grandchild $!; wait");
        printed(&process, "grandchild").await;
        let grandchild = process.output().split_whitespace().nth(1).map(str::to_owned).unwrap_or_default();
        drop(process.guardian.take());
        let status = process.exit(ENOUGH).await;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
        let deadline = Instant::now() + ENOUGH;
        while is_running(&grandchild) {
            assert!(Instant::now() < deadline, "the grandchild {grandchild} lives on");
            sleep(LOOK_EVERY).await;
        }
    }

    /// A process that has ended and waits for its parent to notice counts as gone.
    fn is_running(pid: &str) -> bool {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
    }

    #[tokio::test]
    async fn an_ended_child_is_told_from_a_late_one() {
        let mut process = shell("exit 7");
        let answered = process.answers(free_port(), "/", ENOUGH, |_| true).await;
        assert!(matches!(answered, Err(NotAnswering::Exited(status)) if status.code() == Some(7)), "{answered:?}");
        let mut process = shell("sleep 600");
        let answered = process.answers(free_port(), "/", Duration::ZERO, |_| true).await;
        assert!(matches!(answered, Err(NotAnswering::TooLate)), "{answered:?}");
    }

    #[tokio::test]
    async fn a_file_at_its_limit_is_an_error_and_grows_again() {
        let folder = tempfile::tempdir().unwrap();
        // An empty file is allowed at any limit.
        let script = "while sleep 0.01; do echo more 2>/dev/null || : >denied; done";
        let command = ["sh", "-c", script].map(OsString::from);
        let process = GuardedProcess::spawn("shell", &command, folder.path(), &[]);
        printed(&process, "more").await;
        process.limit_files(Some(0));
        let deadline = Instant::now() + ENOUGH;
        while !folder.path().join("denied").exists() {
            assert!(Instant::now() < deadline, "the file grows on");
            sleep(LOOK_EVERY).await;
        }
        let at_limit = process.output().len();
        process.limit_files(None);
        while process.output().len() <= at_limit {
            assert!(Instant::now() < deadline, "the file does not grow again");
            sleep(LOOK_EVERY).await;
        }
    }

    #[tokio::test]
    async fn output_and_errors_are_kept() {
        let mut process = shell("echo said; echo complained >&2");
        process.exit(ENOUGH).await;
        assert_eq!(process.output(), "said\ncomplained\n");
        assert!(process.tail().ends_with("said\ncomplained\n---"));
    }
}
