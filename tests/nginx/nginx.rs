//! A real nginx.

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

/// A running nginx in front of a gateway.
pub struct Nginx {
    /// `http://127.0.0.1:PORT`
    pub base: String,
    process: Child,
    directory: PathBuf,
}

impl Nginx {
    /// Starts nginx with the default settings of a proxy and these `directives`.
    pub async fn before(gateway: &Gateway, directives: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = std::env::temp_dir().join(format!("nginx-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {kind};"))
            .join(" ");
        let configuration = directory.join("nginx.conf");
        let text = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr warn;
             events {{ }}
             http {{
                 access_log off; {temporary}
                 {directives}
                 server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {}; }} }}
             }}",
            gateway.base()
        );
        fs::write(&configuration, text).unwrap();
        let program = ["/usr/sbin/nginx", "nginx"].into_iter().find(|it| Path::new(it).exists());
        let process = Command::new(program.unwrap_or("nginx"))
            .args(["-e", "stderr", "-p"])
            .arg(&directory)
            .arg("-c")
            .arg(configuration)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("nginx is missing ({error}). tests/run installs it where it can.")
            });
        let mut nginx = Self { base: format!("http://127.0.0.1:{port}"), process, directory };
        timeout(TIMEOUT, nginx.until_listening(port)).await.expect("nginx listens in time");
        nginx
    }

    async fn until_listening(&mut self, port: u16) {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let exited = self.process.try_wait().unwrap();
            assert!(exited.is_none(), "nginx exited with {exited:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
