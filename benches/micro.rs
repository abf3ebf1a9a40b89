//! Microbenchmarks of the stages of a request: `cargo bench --bench micro`.
//!
//! They measure decoding, the caller's cache scope, the document cache, execution and response assembly, on one thread and
//! with the built-in sandbox as the upstream. HTTP is not included.

use std::{future::pending, hint::black_box, time::Duration};

use appointments_gateway::{
    appointments::{operation::Appointments, shared::Shared},
    caller::{Caller, ScopeKey},
    config::{Config, sandbox::FaultConfig},
    fleet::Fleet,
    graphql::{
        api::{Api, GraphqlRequest, Operation},
        execute::response::GraphqlResponse,
    },
    response_memory::ResponseMemory,
    sandbox,
    upstream::{client::UpstreamClient, wire::appointment as decoded},
};
use async_graphql::Variables;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::json;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    time::Instant,
};
use url::Url;
use uuid::Uuid;

const MOBILE: &str = include_str!("load/data/mobile.graphql");
const FULL: &str = include_str!("load/data/full.graphql");

const LIST: &str = "{ appointments(first: 20) { nodes { id } } }";

/// The allocator of the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A TTL and a deadline that no benchmark reaches.
const FAR_FUTURE: Duration = Duration::from_secs(3600);

criterion_group!(benches, decode, scope, document, execute, assemble);
criterion_main!(benches);

fn decode(criterion: &mut Criterion) {
    criterion.bench_function("decode: an appointment", |bencher| {
        bencher.iter(|| decoded(black_box(sandbox::SAMPLE.as_bytes())).is_ok());
    });
}

fn scope(criterion: &mut Criterion) {
    let key = ScopeKey::random();
    let jwt = format!("e30.eyJleHAiOjQxMDI0NDQ4MDAsInN1YiI6Im1hZGUtdXAifQ.{}", "s".repeat(342));
    for (name, token) in [("of 40 bytes", "t".repeat(40)), ("a JWT of 400 bytes", jwt)] {
        criterion.bench_function(&format!("key: a token, {name}"), |bencher| {
            bencher.iter(|| Caller::with_token(black_box(&token), &key));
        });
    }
}

fn document(criterion: &mut Criterion) {
    let runtime = runtime();
    let ids = vec![Uuid::nil(); 20];
    let api = api();
    let mut texts = 0;
    for (name, query) in [("8 fields", MOBILE), ("all fields", FULL)] {
        for (state, is_new) in [("cached", false), ("new", true)] {
            criterion.bench_function(&format!("document: {name}, {state}"), |bencher| {
                let request = || {
                    let mut request = request(query, &ids);
                    if is_new {
                        texts += 1;
                        request.document = format!("{query}# {texts}").into();
                    }
                    request
                };
                let prepare = |request| runtime.block_on(prepare(&api, black_box(request)));
                bencher.iter_batched(request, prepare, BatchSize::SmallInput);
            });
        }
    }
}

fn execute(criterion: &mut Criterion) {
    let runtime = runtime();
    let gateway = runtime.block_on(WarmGateway::start());
    for (name, query) in [("8 fields", MOBILE), ("20 × all fields", FULL)] {
        criterion.bench_function(&format!("document and execution: {name}"), |bencher| {
            let execute = |request| runtime.block_on(gateway.execute(black_box(request)));
            bencher.iter_batched(|| request(query, &gateway.ids), execute, BatchSize::SmallInput);
        });
    }
}

fn assemble(criterion: &mut Criterion) {
    let runtime = runtime();
    let gateway = runtime.block_on(WarmGateway::start());
    for (name, query) in [("8 fields", MOBILE), ("20 × all fields", FULL)] {
        criterion.bench_function(&format!("assembly: {name}"), |bencher| {
            let execute = || runtime.block_on(gateway.execute(request(query, &gateway.ids)));
            bencher.iter_batched(execute, |response| gateway.encode(response), BatchSize::SmallInput);
        });
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn api() -> Api {
    let config = Config::default();
    let memory = ResponseMemory::new(config.http.max_response_memory, 100);
    Api::new(config.limits, &config.graphql, config.cache.caller_share, memory)
}

/// A gateway without HTTP, with all requested appointments in its cache.
struct WarmGateway {
    api: Api,
    shared: Shared,
    key: ScopeKey,
    ids: Vec<Uuid>,
}

impl WarmGateway {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let sandbox = tokio::spawn(sandbox::serve(listener, FaultConfig::default(), pending()));
        let mut config = Config::default();
        (config.cache.ttl, config.cache.list_ttl) = (FAR_FUTURE, FAR_FUTURE);
        let url = Url::parse(&format!("http://{address}")).expect("an address");
        let upstream = UpstreamClient::new(&config.upstream, &url, None).expect("a client");
        let shared = Shared::new(&config.cache, &config.changes, config.live, upstream, Fleet::alone());
        let mut gateway = Self { api: api(), shared, key: ScopeKey::random(), ids: Vec::new() };
        // The appointments of a list are cached individually.
        let list = gateway.encode(gateway.execute(request(LIST, &[])).await);
        let list: serde_json::Value = serde_json::from_slice(list.as_ref()).expect("JSON");
        let nodes = list["data"]["appointments"]["nodes"].as_array().expect("a list");
        gateway.ids = nodes.iter().filter_map(|node| node["id"].as_str()?.parse().ok()).collect();
        assert_eq!(gateway.ids.len(), 20);
        sandbox.abort();
        gateway
    }

    async fn execute(&self, request: GraphqlRequest) -> GraphqlResponse {
        let caller = Caller::with_token(sandbox::access::TOKEN_ALL, &self.key);
        let appointments = Appointments::new(self.shared.clone(), caller, Instant::now() + FAR_FUTURE);
        let operation = prepare(&self.api, request).await;
        let response = self.api.execute(operation, Ok(appointments)).await;
        assert!(response.errors.is_empty(), "{:?}", response.errors);
        response
    }

    fn encode(&self, response: GraphqlResponse) -> impl AsRef<[u8]> + use<> {
        self.api.encode(response).expect("memory for one response").body
    }
}

fn request(query: &str, ids: &[Uuid]) -> GraphqlRequest {
    let variables = match query {
        MOBILE => json!({ "id": ids[0] }),
        FULL => json!({ "ids": ids }),
        _ => json!({}),
    };
    GraphqlRequest {
        document: query.to_owned().into(),
        operation_name: None,
        variables: Variables::from_json(variables),
    }
}

async fn prepare(api: &Api, request: GraphqlRequest) -> Operation {
    let parsed = api.parse(request, None).await.unwrap_or_else(|response| panic!("{:?}", response.errors));
    api.prepare(parsed).await.unwrap_or_else(|response| panic!("{:?}", response.errors))
}
