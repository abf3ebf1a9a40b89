//! What came of a run, for people: on standard output while it goes on, and as Markdown.

use std::fmt::{self, Write as _};

use crate::{
    baseline::Figure,
    chart::Bar,
    measure::{Measurement, Series},
    spread::Spread,
};

/// A server that was busy for more than that, in percent of the time, had its cores to itself, and enough to do.
const BUSY: f64 = 90.0;

/// What is found out.
#[derive(Default)]
pub struct Report {
    /// The machine, what runs where, how often.
    pub circumstances: Vec<String>,
    pub goals: Vec<Goal>,
    pub throughput: Vec<Throughput>,
    pub facts: Vec<Fact>,
    pub bars: Vec<Bar>,
    pub figures: Vec<Figure>,
}

/// A goal with the figure that it is held against.
pub struct Goal {
    pub workload: String,
    pub goal: String,
    pub figure: String,
    pub verdict: Verdict,
}

/// Whether a goal is met.
#[derive(Clone, Copy)]
pub enum Verdict {
    Met,
    NotMet,
    /// It may be, or not: what it is a share of was busy only so much of the time, in percent, and could have done more.
    Open(f64),
}

/// A server under load beside the limit server.
pub struct Throughput {
    pub workload: String,
    pub rate: Spread,
    pub cpu: Spread,
    pub p50: Spread,
    pub p99: Spread,
    pub busy: Spread,
    pub limit_rate: Spread,
    pub limit_cpu: Spread,
    pub limit_busy: Spread,
    pub of_limit_by_rate: Spread,
    pub of_limit_by_cpu: Spread,
}

/// Something measured for which there is no goal.
pub struct Fact {
    pub what: String,
    pub figure: String,
}

impl Throughput {
    pub fn new(workload: &str, own: &Series, limit: &Series) -> Self {
        Self {
            workload: workload.to_owned(),
            rate: own.spread(|it| it.rate),
            cpu: own.spread(|it| it.cpu),
            p50: own.spread(|it| it.p50),
            p99: own.spread(|it| it.p99),
            busy: own.spread(|it| it.busy),
            limit_rate: limit.spread(|it| it.rate),
            limit_cpu: limit.spread(|it| it.cpu),
            limit_busy: limit.spread(|it| it.busy),
            of_limit_by_rate: own.against(limit, by_rate),
            of_limit_by_cpu: own.against(limit, by_cpu),
        }
    }
}

/// The smaller of the shares by requests and by processor time. They are the same where nothing but the server keeps its
/// core busy, and the load is never late.
pub fn share(own: &Series, other: &Series) -> Spread {
    let (rate, cpu) = (own.against(other, by_rate), own.against(other, by_cpu));
    if rate.median < cpu.median { rate } else { cpu }
}

/// How many requests one server answers where the other answers one, in the same time.
fn by_rate(own: &Measurement, other: &Measurement) -> f64 {
    own.rate / other.rate
}

/// The same, with the same processor time.
fn by_cpu(own: &Measurement, other: &Measurement) -> f64 {
    other.cpu / own.cpu
}

impl Verdict {
    /// Of a goal that is a `share` of what `other` does.
    pub fn of_share(share: Spread, goal: f64, other: &Series) -> Self {
        let busy = other.spread(|it| it.busy).median;
        if share.median >= goal && busy < BUSY { Self::Open(busy) } else { (share.median >= goal).into() }
    }
}

impl From<bool> for Verdict {
    fn from(is_met: bool) -> Self {
        if is_met { Self::Met } else { Self::NotMet }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Met => f.write_str("met"),
            Self::NotMet => f.write_str("not met"),
            Self::Open(busy) => write!(f, "inconclusive: the other server was busy {busy:.0} % of the time"),
        }
    }
}

impl Report {
    /// A server under load, held against the limit server.
    pub fn add_throughput(&mut self, throughput: Throughput) {
        let it = &throughput;
        println!(
            "  {}\n    {:.0}/s, {:.2} µs of CPU, busy {:.0} %, p50 {:.0} µs, p99 {:.0} µs; \
             limit {:.0}/s, {:.2} µs, busy {:.0} %\n    of the limit: {:.3} by requests, {:.3} by CPU",
            it.workload,
            it.rate,
            it.cpu,
            it.busy.median,
            it.p50.median,
            it.p99.median,
            it.limit_rate.median,
            it.limit_cpu.median,
            it.limit_busy.median,
            it.of_limit_by_rate,
            it.of_limit_by_cpu
        );
        let name = |what: &str| format!("{}: of the limit, by {what}", it.workload);
        self.figures.push(Figure::higher_is_better(name("CPU"), it.of_limit_by_cpu));
        // Else it says more of what else the machine did.
        if it.busy.least.min(it.limit_busy.least) > BUSY {
            self.figures.push(Figure::higher_is_better(name("requests"), it.of_limit_by_rate));
        }
        self.throughput.push(throughput);
    }

    pub fn add_goal(&mut self, workload: &str, goal: &str, figure: String, verdict: impl Into<Verdict>) {
        let (workload, goal, verdict) = (workload.to_owned(), goal.to_owned(), verdict.into());
        println!("  {workload}: {figure}; goal {goal}: {verdict}");
        self.goals.push(Goal { workload, goal, figure, verdict });
    }

    pub fn add_fact(&mut self, what: &str, figure: String) {
        println!("  {what}: {figure}");
        self.facts.push(Fact { what: what.to_owned(), figure });
    }

    pub fn markdown(&self) -> String {
        let mut text =
            String::from("# The benchmark's figures\n\n`cargo bench --bench load` makes this file.\n\n");
        for line in &self.circumstances {
            let _ = writeln!(text, "- {line}");
        }
        text.push_str("\n## Goals\n\n| Workload | Goal | Figure | Met |\n| --- | --- | --: | --- |\n");
        for Goal { workload, goal, figure, verdict } in &self.goals {
            let _ = writeln!(text, "| {workload} | {goal} | {figure} | {verdict} |");
        }
        text.push_str(
            "\n## Throughput\n\nMedians, with the least and the most in parentheses. CPU is the processor time of the \
             server for a request, in µs; a share of the limit is that of the limit server in the same run; busy is how \
             much of the time of its cores a server was. Where that was not nearly all, something else had its cores, or \
             the load was late: then the shares by CPU are those to trust. The goals are held against the smaller share; \
             one that would be met is inconclusive where the server that it is a share of could have done more.\n\n\
             | Workload | Requests/s | Limit server | Of the limit | CPU | Limit server | Of the limit by CPU | p50, µs \
             | p99, µs | Busy, % | Limit server |\n| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
        );
        for it in &self.throughput {
            let _ = writeln!(
                text,
                "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} |",
                it.workload,
                it.rate,
                it.limit_rate.median,
                it.of_limit_by_rate,
                it.cpu,
                it.limit_cpu.median,
                it.of_limit_by_cpu,
                it.p50.median,
                it.p99.median,
                it.busy.median,
                it.limit_busy.median
            );
        }
        text.push_str("\n## The rest\n\n| What | Figure |\n| --- | --: |\n");
        for Fact { what, figure } in &self.facts {
            let _ = writeln!(text, "| {what} | {figure} |");
        }
        text
    }
}
