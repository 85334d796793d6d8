//! The page's words for nginx, in a real nginx: who gets through, and what the service behind is told.
//!
//! Invariant: the configuration is the one of docs/verify.md, but for the addresses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agentid::serve::AGENT_HEADERS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{Process, eventually, tail, target_dir, unique};
use crate::kit::{SOON, Test};
use crate::service::free_port;

const PAGE: &str = include_str!("../../docs/verify.md");
const VERIFY: &str = "http://agentid-verify.agentid-system.svc:8080/verify/tickets?scope=tickets.read";
const BEHIND: &str = "http://tickets:8080";

/// nginx with the page's words before a service.
struct Nginx {
    address: String,
    dir: PathBuf,
    process: Option<Process>,
}

impl Nginx {
    async fn start(program: &Path, verify: &str, behind: &str) -> Self {
        let dir = target_dir().join("test-logs").join(format!("nginx-{}", unique()));
        std::fs::create_dir_all(&dir).unwrap();
        let block = PAGE.split("```nginx\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        assert!(block.contains(VERIFY) && block.contains(BEHIND), "{block}");
        let block = block.replace(VERIFY, verify).replace(BEHIND, behind);
        let address = format!("127.0.0.1:{}", free_port());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|of| format!("{of}_temp_path {of};\n"))
            .concat();
        let configuration = format!(
            "daemon off; master_process off; pid pid; error_log error.log;\nevents {{}}\nhttp {{\naccess_log off;\n\
             {temporary}server {{\nlisten {address};\n{block}}}\n}}\n"
        );
        let file = dir.join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let prefix = format!("{}/", text(&dir));
        let words = [text(program), "-p".into(), prefix, "-c".into(), text(&file)];
        let process = Process::spawn(dir.join("log"), &words, &[]);
        let nginx = Self { address, dir, process: Some(process) };
        eventually("nginx listens", SOON, || async {
            let connected = TcpStream::connect(&nginx.address).await.map(drop);
            connected.map_err(|e| format!("{e}: {}", tail(&nginx.dir.join("log"))))
        })
        .await;
        nginx
    }

    /// The answer to a request with forged headers: status, head and body.
    async fn get(&self, token: Option<&str>) -> (u16, String, String) {
        let mut forged: String = AGENT_HEADERS.map(|name| format!("{name}: forged\r\n")).concat();
        forged.push_str("X_Agent_Id: forged\r\n");
        let header = token.map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
        let request =
            format!("GET /list?of=mine HTTP/1.1\r\nHost: x\r\n{forged}{header}Connection: close\r\n\r\n");
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.process.take());
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A service that answers with the head of what it was asked; and how often it was.
async fn behind() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
            count.fetch_add(1, Ordering::SeqCst);
            let answer =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", head.len());
            stream.write_all(&[answer.as_bytes(), &head].concat()).await.unwrap();
        }
    });
    (address, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_lets_through_whom_the_page_says() {
    let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"].map(Path::new);
    let Some(program) = program.into_iter().find(|p| p.exists()) else {
        eprintln!("\n!!! SKIPPED: the words for nginx were not tried: apt-get install nginx-light\n");
        return;
    };
    let t = Test::new("nginx").await;
    let token = t.token(&[]).await;
    let (service, asked) = behind().await;
    let verify = format!("http://{}{}?scope=", t.service().proxies, t.fill("/verify/$NS"));
    let nginx = Nginx::start(program, &format!("{verify}tickets.read"), &service).await;

    let (status, head, told) = nginx.get(Some(&token)).await;
    assert_eq!((status, asked.load(Ordering::SeqCst)), (200, 1), "{head}");
    let told = told.to_lowercase();
    assert!(told.starts_with("get /list?of=mine http/1."), "{told}");
    assert!(!told.contains("forged"), "a client's own header got through: {told}");
    let header = |name: &str| {
        let line = told.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_default().to_owned()
    };
    assert_eq!(header("x-agent-id"), t.agent_id("a").await);
    let said =
        ["x-agent-namespace", "x-agent-name", "x-agent-scope", "x-agent-roles", "x-agent-mode"].map(header);
    assert_eq!(said, [&*t.name, "a", "tickets.read", "triager", "autonomous"]);

    for (token, challenge) in
        [(None, "www-authenticate: bearer realm=\"https://"), (Some("x.y.z"), "error=\"invalid_token\"")]
    {
        let (status, head, _) = nginx.get(token).await;
        assert!(status == 401 && head.contains(challenge), "{status} {head}");
    }
    let more = Nginx::start(program, &format!("{verify}tickets.write"), &service).await;
    assert_eq!(more.get(Some(&token)).await.0, 403, "the token does not hold that scope");
    let away = Nginx::start(program, &format!("http://127.0.0.1:{}/verify/x", free_port()), &service).await;
    assert_eq!(away.get(Some(&token)).await.0, 500, "nothing gets through while agentid is away");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the service was asked for those who were refused");
}
