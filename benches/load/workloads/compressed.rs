//! Answers that are asked for compressed, beside the same ones plain.

use crate::{
    Result,
    client::Client,
    exchange::{Asked, Exchange, Numbers},
    measure::{Target, in_turn},
    queries,
    report::{Report, Throughput, Verdict, share},
    workloads::{Bench, CONNECTIONS},
};

/// How much of our own plain figure is to be reached.
const GOAL: f64 = 0.9;

type Request = fn(&str, Option<&str>) -> Vec<u8>;
type Data = fn(&str) -> serde_json::Value;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let both: [(&str, Request, Data); 2] = [
        ("hot, one id", queries::mobile, queries::mobile_data),
        ("20 ids × all fields, hot", queries::full, queries::full_data),
    ];
    for (what, request, data) in both {
        let gateway = bench.gateway(1, &[])?;
        let mut client = Client::open(gateway.address())?;
        let mut learn = |encoding| {
            let asked = Asked { request: &|id| request(id, encoding), data: &data };
            Exchange::learn(&mut client, &asked, Numbers::cycle(1))
        };
        let (plain, brotli, gzip) = (learn(None)?, learn(Some("br"))?, learn(Some("gzip"))?);
        if brotli.encoding.is_none() || gzip.encoding.is_none() {
            report.add_fact(&format!("compressed: {what}"), "answered plain".to_owned());
            continue;
        }
        let (plain_size, sizes) = (plain.answer.len(), [brotli.answer.len(), gzip.answer.len()]);
        let limits = [bench.limit(1, sizes[0])?, bench.limit(1, sizes[1])?];
        let targets = [
            Target::new("plain", &gateway, plain),
            Target::new("br, limit", &limits[0], brotli.to_limit()),
            Target::new("br", &gateway, brotli),
            Target::new("gzip, limit", &limits[1], gzip.to_limit()),
            Target::new("gzip", &gateway, gzip),
        ];
        let [plain, brotli_limit, brotli, gzip_limit, gzip] = in_turn(targets, CONNECTIONS, bench.plan)?;
        let pairs = [("br", brotli, brotli_limit), ("gzip", gzip, gzip_limit)];
        for ((encoding, own, limit), size) in pairs.iter().zip(sizes) {
            let workload = format!("{what}, {encoding}");
            println!("  {workload}: {size} bytes instead of {plain_size}");
            report.add_throughput(Throughput::new(&workload, own, limit));
            let share = share(own, &plain);
            let text = format!("≥ {GOAL} of our own plain figure");
            report.add_goal(&workload, &text, format!("{share:.2}"), Verdict::of_share(share, GOAL, &plain));
        }
    }
    Ok(())
}
