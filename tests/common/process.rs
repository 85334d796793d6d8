//! A program that ends with the test process, however that ends.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Runs a program until it ends or standard input does; then ends it, first by SIGTERM. The test process
/// holds the other end of standard input. SIGCONT, since a program that is held still takes no SIGTERM.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null >>"$LOG" 2>&1 3<&- & child=$!
echo "$child"
(
  read -r _ <&3
  kill -TERM "$child"; kill -CONT "$child"
  i=0; while [ $i -lt 100 ] && kill -0 "$child"; do sleep 0.1; i=$((i + 1)); done
  kill -KILL "$child"
) 2>/dev/null >/dev/null & guard=$!
exec 3<&- 2>/dev/null
wait "$child"; status=$?
kill "$guard"
exit $status
"#;

/// A running program with its log. Dropped, it is ended by SIGTERM, and by SIGKILL 10 s later.
pub struct Process {
    /// What it wrote to standard output and standard error.
    pub log: PathBuf,
    /// Its PID.
    pub pid: u32,
    guard: Child,
    /// Closed, it ends the program.
    stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts a program, with its arguments and its environment beside the test's.
    pub fn spawn(log: PathBuf, words: &[String], environment: &[(String, String)]) -> Self {
        File::create(&log).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh"]).args(words).envs(environment.iter().map(|(k, v)| (k, v)));
        command.env("LOG", &log).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().unwrap_or_else(|_| panic!("no PID from the shell: {line:?}"));
        Self { log, pid, stdin: guard.stdin.take(), guard }
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        // Ended, it is a zombie until the shell has looked: that counts as ended.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    /// Sends a signal, such as `TERM`.
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&self, name: &str) {
        assert!(self.runs(), "SIG{name}: it has ended\n{}", tail(&self.log));
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.pid.to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name} {}: {status}", self.pid);
    }

    /// Sends a signal, if it still runs.
    pub fn signal_if_running(&self, name: &str) {
        if self.runs() {
            let pid = self.pid.to_string();
            let _ = Command::new("kill").args([&format!("-{name}"), &pid]).stderr(Stdio::null()).status();
        }
    }

    /// Waits for its end; gives its exit status (128 and the signal's number, if a signal ended it).
    ///
    /// # Panics
    /// After 30 s.
    pub fn wait(mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.guard.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "it does not end\n{}", tail(&self.log));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.guard.wait();
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
