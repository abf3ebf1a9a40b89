//! The report of a run: on standard output during the run, and as Markdown.

use std::fmt::{self, Write as _};

use crate::{
    baseline::Figure,
    chart::Bar,
    measure::{Measurement, Series},
    spread::Spread,
};

/// The utilisation, in percent, above which a server was saturated and had its cores to itself.
const SATURATED: f64 = 90.0;

/// The results of a run.
#[derive(Default)]
pub struct Report {
    /// The machine, the placement of the processes, and the measurement plan.
    pub environment: Vec<String>,
    pub goals: Vec<Goal>,
    pub throughput: Vec<Throughput>,
    pub comparisons: Vec<Comparison>,
    pub facts: Vec<Fact>,
    pub bars: Vec<Bar>,
    pub figures: Vec<Figure>,
}

/// A goal with its measured figure.
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
    /// The reference server had this utilisation, in percent. It was not saturated, so its true figure is higher.
    Inconclusive(f64),
}

/// The throughput of a gateway and its limit server.
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

/// A measured figure without a goal.
pub struct Fact {
    pub name: String,
    pub figure: String,
}

/// A gateway and its reference servers in one workload.
pub struct Comparison {
    workload: String,
    gateway: Cost,
    limit: Cost,
    relay: Cost,
    plain: Cost,
    /// The ratios of the gateway to the relay and the plain server, by requests per CPU time.
    of_relay: Spread,
    of_plain: Spread,
}

/// The throughput and the cost of one server.
struct Cost {
    rate: f64,
    cpu: f64,
    busy: f64,
}

/// The measurements of a gateway and its reference servers in one workload.
pub struct ServerSeries {
    pub gateway: Series,
    pub limit: Series,
    pub relay: Series,
    pub plain: Series,
}

impl Comparison {
    pub fn new(workload: &str, series: &ServerSeries) -> Self {
        let ServerSeries { gateway, limit, relay, plain } = series;
        Self {
            workload: workload.to_owned(),
            gateway: Cost::of(gateway),
            limit: Cost::of(limit),
            relay: Cost::of(relay),
            plain: Cost::of(plain),
            of_relay: gateway.against(relay, by_cpu),
            of_plain: gateway.against(plain, by_cpu),
        }
    }
}

impl Cost {
    fn of(series: &Series) -> Self {
        Self {
            rate: series.spread(|it| it.rate).median,
            cpu: series.spread(|it| it.cpu).median,
            busy: series.spread(|it| it.busy).median,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s, {:.2} µs, {:.0} %", self.rate, self.cpu, self.busy)
    }
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

/// Returns the smaller of the shares by requests and by CPU time. They are equal if the server has its core to itself and
/// the load generator is never late.
pub fn share(own: &Series, other: &Series) -> Spread {
    let (rate, cpu) = (own.against(other, by_rate), own.against(other, by_cpu));
    if rate.median < cpu.median { rate } else { cpu }
}

/// The ratio of the request rates.
fn by_rate(own: &Measurement, other: &Measurement) -> f64 {
    own.rate / other.rate
}

/// The ratio of the requests per CPU time.
fn by_cpu(own: &Measurement, other: &Measurement) -> f64 {
    other.cpu / own.cpu
}

impl Verdict {
    /// Returns the verdict on a goal that is a `share` of the throughput of `other`.
    pub fn of_share(share: Spread, goal: f64, other: &Series) -> Self {
        let busy = other.spread(|it| it.busy).median;
        if share.median >= goal && busy < SATURATED {
            Self::Inconclusive(busy)
        } else {
            (share.median >= goal).into()
        }
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
            Self::Inconclusive(busy) => {
                write!(f, "inconclusive: the reference server was busy {busy:.0} % of the time")
            }
        }
    }
}

impl Report {
    /// Adds the throughput of a gateway and its limit server.
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
        let name = |unit: &str| format!("{}: of the limit, by {unit}", it.workload);
        self.figures.push(Figure::higher_is_better(name("CPU"), it.of_limit_by_cpu));
        // Otherwise the ratio shows other work on the machine.
        if it.busy.least.min(it.limit_busy.least) > SATURATED {
            self.figures.push(Figure::higher_is_better(name("requests"), it.of_limit_by_rate));
        }
        self.throughput.push(throughput);
    }

    /// Adds a comparison of a gateway with the relay and the plain server.
    pub fn add_comparison(&mut self, comparison: Comparison) {
        let Comparison { workload, relay, plain, of_relay, of_plain, .. } = &comparison;
        println!(
            "    relay {relay}; plain server {plain}\n    of the relay by CPU: {of_relay:.3}; \
             of the plain server by CPU: {of_plain:.3}"
        );
        for (server, ratio) in [("relay", of_relay), ("plain server", of_plain)] {
            self.figures
                .push(Figure::higher_is_better(format!("{workload}: of the {server}, by CPU"), *ratio));
        }
        self.comparisons.push(comparison);
    }

    pub fn add_goal(&mut self, workload: &str, goal: &str, figure: String, verdict: impl Into<Verdict>) {
        let (workload, goal, verdict) = (workload.to_owned(), goal.to_owned(), verdict.into());
        println!("  {workload}: {figure}; goal {goal}: {verdict}");
        self.goals.push(Goal { workload, goal, figure, verdict });
    }

    pub fn add_fact(&mut self, name: &str, figure: String) {
        println!("  {name}: {figure}");
        self.facts.push(Fact { name: name.to_owned(), figure });
    }

    pub fn markdown(&self) -> String {
        let mut text =
            String::from("# Benchmark results\n\n`cargo bench --bench load` writes this file.\n\n");
        for line in &self.environment {
            let _ = writeln!(text, "- {line}");
        }
        text.push_str("\n## Goals\n\n| Workload | Goal | Figure | Met |\n| --- | --- | --: | --- |\n");
        for Goal { workload, goal, figure, verdict } in &self.goals {
            let _ = writeln!(text, "| {workload} | {goal} | {figure} | {verdict} |");
        }
        text.push_str(
            "\n## Throughput\n\nMedians, with minimum and maximum in parentheses. CPU is the server's CPU time per request, \
             in µs. Shares are relative to the limit server in the same run. Busy is the utilisation of the server's \
             cores. A low utilisation means other work on the cores or a late load generator: then trust the shares by \
             CPU. Goals compare with the smaller share. A met goal is inconclusive if the limit server was not \
             saturated.\n\n\
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
        self.write_comparisons(&mut text);
        text.push_str("\n## Other figures\n\n| Figure | Value |\n| --- | --: |\n");
        for Fact { name, figure } in &self.facts {
            let _ = writeln!(text, "| {name} | {figure} |");
        }
        text
    }
    fn write_comparisons(&self, text: &mut String) {
        if self.comparisons.is_empty() {
            return;
        }
        text.push_str(
            "\n## Reference servers\n\nRequests/s, CPU time per request and utilisation of each server, as medians. The \
             ratios compare requests per CPU time: 2 means that the gateway needs half the CPU time. The limit server \
             responds without an upstream, the relay sends one upstream GET per request, and the plain server is \
             async-graphql, axum, reqwest and moka without the gateway's code.\n\n\
             | Workload | Gateway | Limit server | Relay | Plain server | Of the relay | Of the plain server |\n\
             | --- | --: | --: | --: | --: | --: | --: |\n",
        );
        for it in &self.comparisons {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {:.2} | {:.2} |",
                it.workload, it.gateway, it.limit, it.relay, it.plain, it.of_relay, it.of_plain
            );
        }
    }
}
