//! A server in a process of its own, pinned to cores and observed through `/proc`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use crate::{Result, machine};

/// A running server. It is killed on drop, and when the benchmark is killed.
pub struct Process {
    child: Child,
    address: SocketAddr,
    /// The number of its cores.
    cores: usize,
    /// Kept open, since a write to a closed pipe fails.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `program` on `cores` and waits until it prints its address. This program pins the process first, then
    /// replaces itself with `program`.
    pub fn start(program: &Command, cores: &[usize]) -> Result<Self> {
        let list = cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["exec", &list]).arg(program.get_program()).args(program.get_args());
        command.env_clear();
        command.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut line = String::new();
        while stdout.read_line(&mut line)? > 0 {
            let address =
                line.split_once("http://").and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
            if let Some(address) = address {
                return Ok(Self { child, address, cores: cores.len().max(1), _stdout: stdout });
            }
            line.clear();
        }
        let status = child.wait()?;
        Err(format!("{} ended ({status}) before it printed its address", program.get_program().display())
            .into())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Returns its user and system CPU time. (`schedstat` is more precise, but not updated while a thread runs.)
    pub fn cpu(&self) -> Result<Duration> {
        /// The unit of `/proc`, `USER_HZ`: the same on all platforms of Linux.
        const TICK: Duration = Duration::from_millis(10);
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // `utime` and `stime` are fields 14 and 15; the name in parentheses is field 2.
        let (_, after_name) = text.rsplit_once(')').ok_or("no stat")?;
        let mut ticks = 0;
        for figure in after_name.split_whitespace().skip(11).take(2) {
            ticks += figure.parse::<u32>()?;
        }
        Ok(TICK * ticks)
    }

    /// Returns its current and its peak resident memory, in bytes.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let figure = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no memory")?;
            Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
        };
        Ok((figure("VmRSS:")?, figure("VmHWM:")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pins this process to `cores`, ties its life to its parent's, and replaces it with `program`. Returns only on failure.
pub fn exec(cores: &str, program: &str, arguments: &[String]) -> Result<()> {
    machine::end_with_parent()?;
    let cores =
        cores.split(',').filter(|core| !core.is_empty()).map(str::parse).collect::<Result<Vec<_>, _>>()?;
    machine::pin(&cores)?;
    Err(Command::new(program).args(arguments).exec().into())
}
