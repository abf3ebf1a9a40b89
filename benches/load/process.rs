//! A server as a process of its own: started, pinned, looked at from outside, and killed when it is let go of.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use crate::{Result, machine};

/// A running server. Killed when dropped, and when the benchmark is killed.
pub struct Process {
    child: Child,
    address: SocketAddr,
    /// How many cores it has.
    cores: usize,
    /// Kept open: who writes to a closed one fails.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `program` on `cores` by way of this program, which becomes it; returns when it has said where it listens.
    pub fn start(program: &Command, cores: &[usize]) -> Result<Self> {
        let list = cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["become", &list]).arg(program.get_program()).args(program.get_args());
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
        Err(format!("{} ended ({status}) without saying where it listens", program.get_program().display())
            .into())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cores(&self) -> usize {
        self.cores
    }

    /// The processor time that it has taken so far, its own and the system's on its behalf. (What `schedstat` says of a
    /// thread that is running is as of when it last stood still, which a busy one does not do.)
    pub fn cpu(&self) -> Result<Duration> {
        /// What the system counts in, `USER_HZ`: the same on all that Linux runs on.
        const TICK: Duration = Duration::from_millis(10);
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name, which is in brackets: `utime` and `stime` are the fourteenth and fifteenth of all.
        let (_, behind_name) = text.rsplit_once(')').ok_or("no stat")?;
        let mut ticks = 0;
        for figure in behind_name.split_whitespace().skip(11).take(2) {
            ticks += figure.parse::<u32>()?;
        }
        Ok(TICK * ticks)
    }

    /// Its memory, now and at its peak, in bytes.
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

/// What `become` is asked to do: this process becomes `program`, on `cores`, and ends with who started it. It returns only
/// where that fails.
pub fn replace_this(cores: &str, program: &str, arguments: &[String]) -> Result<()> {
    machine::end_with_parent()?;
    let cores =
        cores.split(',').filter(|core| !core.is_empty()).map(str::parse).collect::<Result<Vec<_>, _>>()?;
    machine::pin(&cores)?;
    Err(Command::new(program).args(arguments).exec().into())
}
