//! A measurement in a process of its own, and what the system knows of one: CPU time and the most memory it had.

use std::fs;
use std::process::{Command, Stdio};

use super::measured::{Figures, Job};

/// Linux counts processor time in hundredths of a second.
const TICKS_PER_SEC: f64 = 100.0;

/// Runs a job in a new process of this program.
pub(crate) fn measure(job: &Job) -> Figures {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(job.arguments()).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|()| panic!("the measurement {job:?} ended with {}: {text}", output.status))
}

/// Processor time of this process so far, user and system, in milliseconds.
pub(crate) fn cpu_millis() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The second field, the program's name, may hold spaces; utime and stime are the 12th and 13th behind it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() * 1000.0 / TICKS_PER_SEC
}

/// The most memory this process has had, in MiB.
pub(crate) fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}
