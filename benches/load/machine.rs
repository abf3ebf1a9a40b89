//! The machine: which cores there are, who gets which, and how many connections a process may hold.

use crate::Result;

/// Who runs where.
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

    /// The cores of the server that is measured, where it is to have so many: the first ones.
    pub fn of_server(&self, count: usize) -> &[usize] {
        &self.available[..count.min(self.available.len())]
    }

    /// The core of the load and the stub of the upstream: the last.
    pub fn of_load(&self) -> &[usize] {
        &self.available[self.available.len().saturating_sub(1)..]
    }

    /// Who runs where, for people.
    pub fn describe(&self) -> String {
        match self.available.as_slice() {
            [] => "nothing is pinned to a core here".to_owned(),
            [core] => format!("all on core {core}, the only one"),
            all => format!(
                "the server that is measured alone on core {}, load and upstream on core {}",
                all[0],
                all[all.len() - 1]
            ),
        }
    }
}

/// What the processor is called.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Keeps this thread, and what it starts from now on, to `cores`.
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

/// Has this process killed when the one that started it ends, however it ends.
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

/// Lets this process, and what it starts, hold as many connections as the system allows. How many that is.
pub fn allow_connections() -> Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}
