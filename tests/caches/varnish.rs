//! A real Varnish.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Duration, sleep, timeout},
};

use crate::support::{Gateway, TIMEOUT};

/// A running Varnish in front of a gateway.
pub struct Varnish {
    /// `http://127.0.0.1:PORT`
    pub base: String,
    process: Child,
    directory: PathBuf,
}

impl Varnish {
    /// Starts Varnish with these `rules` before its built-in ones. `X-Cache` of a response is HIT or MISS.
    pub async fn before(gateway: &Gateway, rules: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = std::env::temp_dir().join(format!("varnish-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (host, gateway_port) = gateway.address().split_once(':').unwrap();
        let configuration = directory.join("default.vcl");
        let text = format!(
            r#"vcl 4.1;
            backend default {{ .host = "{host}"; .port = "{gateway_port}"; }}
            {rules}
            sub vcl_deliver {{
                if (obj.hits > 0) {{ set resp.http.X-Cache = "HIT"; }} else {{ set resp.http.X-Cache = "MISS"; }}
            }}"#
        );
        fs::write(&configuration, text).unwrap();
        let program = ["/usr/sbin/varnishd", "varnishd"].into_iter().find(|it| Path::new(it).exists());
        let process = Command::new(program.unwrap_or("varnishd"))
            .args(["-F", "-j", "none", "-s", "malloc,16m", "-a"])
            .arg(format!("127.0.0.1:{port}"))
            .args(["-p", "vsl_space=1m", "-p", "thread_pools=1", "-p", "thread_pool_min=10", "-n"])
            .arg(&directory)
            .arg("-f")
            .arg(configuration)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("Varnish is missing ({error}). tests/run installs it where it can.")
            });
        let mut varnish = Self { base: format!("http://127.0.0.1:{port}"), process, directory };
        timeout(TIMEOUT, varnish.until_listening(port)).await.expect("Varnish listens in time");
        varnish
    }

    async fn until_listening(&mut self, port: u16) {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let exited = self.process.try_wait().unwrap();
            assert!(exited.is_none(), "Varnish exited with {exited:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Varnish {
    fn drop(&mut self) {
        // Its worker process ends with it.
        let _ = self.process.start_kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
