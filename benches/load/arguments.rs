//! What the benchmark is asked to do.

use std::path::PathBuf;

use crate::{Result, workloads::WORKLOADS};

pub enum Task {
    Bench(Arguments),
    List,
    /// The roles in which it starts itself.
    Limit(usize),
    Upstream,
    Become {
        cores: String,
        program: String,
        arguments: Vec<String>,
    },
}

pub struct Arguments {
    /// The names of the workloads to run; none: all.
    only: Vec<String>,
    pub is_quick: bool,
    pub compares: bool,
    save: bool,
    /// Another build of the gateway than the one of this package.
    pub gateway: PathBuf,
}

impl Arguments {
    pub fn is_wanted(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|it| it == name)
    }

    /// Whether the results are written: those of a whole run, and where it is asked for.
    pub fn saves(&self) -> bool {
        self.save || (self.only.is_empty() && !self.is_quick && !self.compares)
    }
}

pub fn parse() -> Result<Task> {
    let all = std::env::args().skip(1).collect::<Vec<_>>();
    match all.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["limit", size] => return Ok(Task::Limit(size.parse()?)),
        ["upstream"] => return Ok(Task::Upstream),
        ["become", cores, program, ..] => {
            let (cores, program) = ((*cores).to_owned(), (*program).to_owned());
            return Ok(Task::Become { cores, program, arguments: all[3..].to_vec() });
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
            // What cargo says to every benchmark.
            "--bench" => {}
            "--list" => return Ok(Task::List),
            "--quick" => arguments.is_quick = true,
            "--compare" => arguments.compares = true,
            "--save" => arguments.save = true,
            "--gateway" => arguments.gateway = value()?.into(),
            "--only" => {
                let name = value()?;
                if !WORKLOADS.iter().any(|it| it.name == name) {
                    return Err(format!("there is no workload {name}; --list shows which there are").into());
                }
                arguments.only.push(name);
            }
            _ => {
                return Err(format!(
                    "{argument}: there are --list, --only NAME, --quick, --compare, --save, --gateway PATH"
                )
                .into());
            }
        }
    }
    if arguments.save && !arguments.only.is_empty() {
        return Err(
            "--save takes a whole run: what --only leaves out would be missing from the results".into()
        );
    }
    Ok(Task::Bench(arguments))
}
