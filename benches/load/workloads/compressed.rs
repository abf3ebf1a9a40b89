//! Compressed responses in comparison with uncompressed ones.

use crate::{
    Result,
    bench::{Bench, CONNECTIONS},
    client::Client,
    exchange::{Call, Exchange, IdSequence},
    measure::{Target, measure_interleaved},
    queries,
    report::{Report, Throughput, Verdict, share},
};

/// The goal as a share of the uncompressed throughput.
const GOAL: f64 = 0.9;

type Request = fn(&str, Option<&str>) -> Vec<u8>;
type Data = fn(&str) -> serde_json::Value;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let both: [(&str, Request, Data); 2] = [
        ("hot, one id", queries::mobile, queries::mobile_data),
        ("20 ids × all fields, hot", queries::full, queries::full_data),
    ];
    for (query, request, data) in both {
        // A response that is not cached is sent uncompressed if it is short.
        let gateway = bench.gateway(1, &[("CACHE_TTL", "1h")])?;
        let mut client = Client::open(gateway.address())?;
        let mut record = |encoding| {
            let call = Call { request: &|id| request(id, encoding), expected: &data };
            Exchange::record(&mut client, &call, IdSequence::cycle(1))
        };
        let (plain, brotli, gzip) = (record(None)?, record(Some("br"))?, record(Some("gzip"))?);
        if brotli.encoding.is_none() || gzip.encoding.is_none() {
            report.add_fact(&format!("compressed: {query}"), "response not compressed".to_owned());
            continue;
        }
        let (plain_size, sizes) = (plain.response.len(), [brotli.response.len(), gzip.response.len()]);
        let limits = [bench.limit(1, sizes[0])?, bench.limit(1, sizes[1])?];
        let targets = [
            Target::new("plain", &gateway, plain),
            Target::new("br, limit", &limits[0], brotli.with_constant_response()),
            Target::new("br", &gateway, brotli),
            Target::new("gzip, limit", &limits[1], gzip.with_constant_response()),
            Target::new("gzip", &gateway, gzip),
        ];
        let [plain, brotli_limit, brotli, gzip_limit, gzip] =
            measure_interleaved(targets, CONNECTIONS, bench.plan)?;
        let pairs = [("br", brotli, brotli_limit), ("gzip", gzip, gzip_limit)];
        for ((encoding, own, limit), size) in pairs.iter().zip(sizes) {
            let workload = format!("{query}, {encoding}");
            println!("  {workload}: {size} bytes instead of {plain_size}");
            report.add_throughput(Throughput::new(&workload, own, limit));
            let share = share(own, &plain);
            let text = format!("≥ {GOAL} of the uncompressed throughput");
            report.add_goal(&workload, &text, format!("{share:.2}"), Verdict::of_share(share, GOAL, &plain));
        }
    }
    Ok(())
}
