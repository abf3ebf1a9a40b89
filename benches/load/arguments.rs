//! The command line of the benchmark.

use std::{net::SocketAddr, path::PathBuf};

use crate::Result;

/// The work of this process. The benchmark starts itself again for each of its servers.
pub enum Task {
    Bench(Arguments),
    List,
    Limit {
        size: usize,
    },
    Relay {
        upstream: SocketAddr,
        size: usize,
    },
    Plain {
        upstream: SocketAddr,
    },
    Upstream,
    /// Pin this process to cores and replace it with a program.
    Exec {
        cores: String,
        program: String,
        arguments: Vec<String>,
    },
}

pub struct Arguments {
    /// The names of the selected workloads; empty for all.
    only: Vec<String>,
    pub is_quick: bool,
    pub compares: bool,
    save: bool,
    /// The gateway's binary, by default the one of this package.
    pub gateway: PathBuf,
}

impl Arguments {
    pub fn is_selected(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|it| it == workload)
    }

    /// Whether the run writes its results: with `--save`, and after a full run without `--quick` and `--compare`.
    pub fn writes_results(&self) -> bool {
        self.save || (self.only.is_empty() && !self.is_quick && !self.compares)
    }
}

/// Parses the command line. `workloads` are the names that `--only` accepts.
pub fn parse(workloads: &[&str]) -> Result<Task> {
    let all = std::env::args().skip(1).collect::<Vec<_>>();
    match all.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["limit", size] => return Ok(Task::Limit { size: size.parse()? }),
        ["relay", upstream, size] => {
            return Ok(Task::Relay { upstream: upstream.parse()?, size: size.parse()? });
        }
        ["plain", upstream] => return Ok(Task::Plain { upstream: upstream.parse()? }),
        ["upstream"] => return Ok(Task::Upstream),
        ["exec", cores, program, ..] => {
            let (cores, program) = ((*cores).to_owned(), (*program).to_owned());
            return Ok(Task::Exec { cores, program, arguments: all[3..].to_vec() });
        }
        _ => {}
    }
    let mut arguments = Arguments {
        only: Vec::new(),
        is_quick: false,
        compares: false,
        save: false,
        gateway: env!("CARGO_BIN_EXE_appointments-gateway").into(),
    };
    let mut rest = all.into_iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            // Cargo passes it to every benchmark.
            "--bench" => {}
            "--list" => return Ok(Task::List),
            "--quick" => arguments.is_quick = true,
            "--compare" => arguments.compares = true,
            "--save" => arguments.save = true,
            "--gateway" => arguments.gateway = value()?.into(),
            "--only" => {
                let name = value()?;
                if !workloads.contains(&name.as_str()) {
                    return Err(format!("unknown workload {name}; --list prints the workloads").into());
                }
                arguments.only.push(name);
            }
            _ => {
                return Err(format!(
                    "unknown argument {argument}; the arguments are --list, --only NAME, --quick, --compare, --save, \
                     --gateway PATH"
                )
                .into());
            }
        }
    }
    if arguments.save && !arguments.only.is_empty() {
        return Err("--save needs a full run: remove --only".into());
    }
    Ok(Task::Bench(arguments))
}
