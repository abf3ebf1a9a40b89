//! The machine: its cores, their assignment to processes, and the limit of open files.

use crate::Result;

/// The cores, and their assignment to processes.
pub struct Cores {
    /// The cores that this process may use, in order.
    available: Vec<usize>,
}

impl Cores {
    pub fn find() -> Self {
        Self { available: available() }
    }

    pub fn count(&self) -> usize {
        self.available.len()
    }

    /// The cores of the measured server: the first `count`.
    pub fn of_server(&self, count: usize) -> &[usize] {
        &self.available[..count.min(self.available.len())]
    }

    /// The core of the load generator and the upstream stub: the last one.
    pub fn of_load(&self) -> &[usize] {
        &self.available[self.available.len().saturating_sub(1)..]
    }

    /// Describes the assignment for the report.
    pub fn describe(&self) -> String {
        match self.available.as_slice() {
            [] => "no process is pinned to a core".to_owned(),
            [core] => format!("all processes on core {core}, the only one"),
            all => format!(
                "the measured server alone on core {}, load generator and upstream on core {}",
                all[0],
                all[all.len() - 1]
            ),
        }
    }
}

/// Returns the name of the processor.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Pins this thread and its future children to `cores`.
#[cfg(target_os = "linux")]
pub fn pin(cores: &[usize]) -> Result<()> {
    use nix::{
        sched::{CpuSet, sched_setaffinity},
        unistd::Pid,
    };

    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    if !cores.is_empty() {
        sched_setaffinity(Pid::from_raw(0), &set)?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn available() -> Vec<usize> {
    use nix::{
        sched::{CpuSet, sched_getaffinity},
        unistd::Pid,
    };

    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or_default()).collect()
}

/// Makes the system kill this process when its parent ends for any reason.
#[cfg(target_os = "linux")]
pub fn end_with_parent() -> Result<()> {
    use nix::sys::{prctl::set_pdeathsig, signal::Signal};

    Ok(set_pdeathsig(Signal::SIGKILL)?)
}

#[cfg(not(target_os = "linux"))]
pub fn pin(_cores: &[usize]) -> Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn available() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
pub fn end_with_parent() -> Result<()> {
    Ok(())
}

/// Raises the limit of open files to the maximum, for this process and its children. Returns the maximum.
pub fn raise_open_files() -> Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let (_, maximum) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, maximum, maximum)?;
    Ok(maximum)
}
