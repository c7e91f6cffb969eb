//! What a result must say about where it was measured.

use serde::Serialize;
use std::process::Command;

#[derive(Serialize, Clone, Debug)]
pub struct Machine {
    pub date: String,
    pub cpu: String,
    pub cpus: usize,
    pub memory_gib: u64,
    pub kernel: String,
    pub load_before: String,
    pub commit: String,
}

impl Machine {
    /// Reads /proc; the date and the commit come from `date` and `git`, and are empty without them.
    pub fn read() -> Machine {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_string()).unwrap_or_default()
        };
        let output = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string()).unwrap_or_default()
        };
        let memory_kib: u64 = field(&file("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        Machine {
            date: output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            cpu: field(&file("/proc/cpuinfo"), "model name"),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_kib.div_ceil(1 << 20),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_string(),
            load_before: file("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            commit: output("git", &["rev-parse", "--short", "HEAD"]),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Machine { date, cpu, cpus, memory_gib, kernel, load_before, commit } = self;
        write!(f, "{date}  {cpus} x {cpu}, {memory_gib} GiB, Linux {kernel}, commit {commit}, load {load_before}")
    }
}
