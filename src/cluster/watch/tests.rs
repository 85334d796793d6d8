use std::sync::{Arc, Mutex};

use futures::StreamExt;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

#[derive(Deserialize, Debug, PartialEq)]
struct Thing {
    n: u32,
}

/// Answers one request after the other from a script; the last answer is repeated. The body `hold` never
/// comes and never ends.
async fn server(script: Vec<(u16, String)>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    tokio::spawn(async move {
        let (mut at, mut held) = (0, Vec::new());
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if socket.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            let text = String::from_utf8(request).unwrap();
            log.lock().unwrap().push(text.split(' ').nth(1).unwrap().to_owned());
            let (code, body) = &script[at.min(script.len() - 1)];
            at += 1;
            // No length: the end of the connection is the end of the body.
            let head = format!("HTTP/1.1 {code} X\r\nconnection: close\r\n\r\n");
            if body == "hold" {
                socket.write_all(head.as_bytes()).await.unwrap();
                held.push(socket);
                continue;
            }
            socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    });
    let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    (Client::try_from(config).unwrap(), seen)
}

fn list(revision: u32, token: &str, items: &str) -> (u16, String) {
    let metadata = format!(r#"{{"resourceVersion":"{revision}","continue":"{token}"}}"#);
    (200, format!(r#"{{"metadata":{metadata},"items":[{items}]}}"#))
}

fn status(code: u16, reason: &str) -> String {
    format!(r#"{{"kind":"Status","code":{code},"reason":"{reason}","message":"m"}}"#)
}

fn event(kind: &str, n: &str, revision: u32) -> String {
    format!(
        r#"{{"type":"{kind}","object":{{"n":{n},"metadata":{{"name":"o","resourceVersion":"{revision}"}}}}}}{}"#,
        '\n'
    )
}

/// Signals as short words, to be compared as one line.
fn word(signal: &Signal<Thing>) -> String {
    match signal {
        Signal::Listing => "listing".into(),
        Signal::Page(items) => format!("page{:?}", items.iter().map(|t| t.n).collect::<Vec<_>>()),
        Signal::Listed(_) => "listed".into(),
        Signal::Apply(t) => format!("apply{}", t.n),
        Signal::Delete(t) => format!("delete{}", t.n),
        Signal::Heard(_) => "heard".into(),
        Signal::Unreadable(u) => format!("unreadable({},{})", u.name, u.deleted),
        Signal::Lost(e) => format!("lost({})", e.class()),
        Signal::Rewound(r) => format!("rewound({},{})", r.known, r.now),
    }
}

async fn told(script: Vec<(u16, String)>, count: usize) -> (String, Vec<String>) {
    let (client, seen) = server(script).await;
    let signals: Vec<_> = watch::<Thing>(client, WatchSpec::new("/t")).take(count).collect().await;
    let words = signals.iter().map(word).collect::<Vec<_>>().join(" ");
    let requests = seen.lock().unwrap().clone();
    (words, requests)
}

#[tokio::test]
async fn a_list_in_pages_then_a_watch_and_the_next_from_its_last_revision() {
    let lines = [
        event("ADDED", "4", 8),
        event("MODIFIED", "\"x\"", 9),
        event("BOOKMARK", "0", 11),
        event("DELETED", "4", 12),
    ]
    .concat();
    let script = vec![
        list(7, "c1", r#"{"n":1},{"n":-2,"metadata":{"name":"bad"}}"#),
        list(7, "", r#"{"n":3}"#),
        (200, lines.clone()),
        list(12, "", ""),
        (200, lines),
    ];
    let (words, requests) = told(script, 10).await;
    assert_eq!(
        words,
        "listing unreadable(bad,false) page[1] page[3] listed apply4 unreadable(o,false) heard delete4 apply4"
    );
    assert_eq!(requests[0], "/t?limit=500");
    assert_eq!(requests[1], "/t?limit=500&continue=c1");
    assert!(requests[2].contains("resourceVersion=7&"), "{}", requests[2]);
    // It ended before its time: the server is asked where it is.
    assert_eq!(requests[3], "/t?limit=1");
    assert!(requests[4].contains("resourceVersion=12&"), "{}", requests[4]);
}

#[tokio::test]
async fn an_expired_continuation_starts_the_list_over() {
    let gone = (410, status(410, "Expired"));
    let script = vec![list(7, "c1", r#"{"n":1}"#), gone, list(9, "", r#"{"n":2}"#), (200, String::new())];
    let (words, requests) = told(script, 5).await;
    assert_eq!(words, "listing page[1] listing page[2] listed");
    assert_eq!(requests[2], "/t?limit=500");
}

#[tokio::test]
async fn an_expired_watch_lists_again_at_once_and_pauses_when_it_recurs() {
    let gone = format!("{}\n", event("ERROR", "0", 0).replace(r#"{"n":0,"metadata""#, r#"{"code":410,"m""#));
    let script = vec![list(7, "", ""), (200, gone.clone()), list(8, "", ""), (200, gone), list(9, "", "")];
    let (words, _) = told(script, 7).await;
    assert_eq!(words, "listing listed listing listed lost(expired) listing listed");
}

#[tokio::test]
async fn failures_are_classed_and_followed_by_another_try() {
    let script = vec![
        (403, status(403, "Forbidden")),
        (500, "<html>".into()),
        list(7, "", ""),
        (200, "torn".into()),
        (500, "it can't say, and is not waited for".into()),
        (200, event("ADDED", "1", 8)),
    ];
    let (words, requests) = told(script, 6).await;
    assert_eq!(words, "lost(forbidden) lost(server) listing listed lost(unreachable) apply1");
    assert_eq!(requests[4], "/t?limit=1");
    assert!(requests[5].contains("resourceVersion=7&"), "{}", requests[5]);
}

#[tokio::test]
async fn a_watch_refused_three_times_is_listed_anew() {
    let no = (504, status(504, "Timeout"));
    let script = vec![list(7, "", ""), no.clone(), no.clone(), no.clone(), no.clone(), no, list(8, "", "")];
    let (words, _) = told(script, 7).await;
    assert_eq!(words, "listing listed lost(timeout) lost(timeout) lost(timeout) listing listed");
}

#[tokio::test]
async fn a_server_that_was_set_back_is_found_out() {
    // The watch of a revision that is yet to come is taken up and says nothing: it is not even opened.
    let script = vec![
        list(7, "", r#"{"n":1}"#),
        (200, event("ADDED", "2", 90)),
        list(20, "c1", ""),
        list(21, "", r#"{"n":3}"#),
        (200, event("ADDED", "4", 22)),
    ];
    let (words, requests) = told(script, 9).await;
    assert_eq!(words, "listing page[1] listed apply2 rewound(90,20) listing page[3] listed apply4");
    assert_eq!(requests[2..4], ["/t?limit=1", "/t?limit=500"]);
    // A watch that expires leads to a list, which says as much.
    let gone = (410, status(410, "Expired"));
    let script = vec![list(7, "", ""), gone, list(6, "", "")];
    let (words, _) = told(script, 5).await;
    assert_eq!(words, "listing listed rewound(7,6) listing listed");
}

#[tokio::test]
async fn a_kind_that_ceases_to_be_served_is_listed_for() {
    let script = vec![list(7, "", ""), (404, "404 page not found\n".into())];
    let (client, seen) = server(script).await;
    let mut stream = watch::<Thing>(client, WatchSpec::new("/t"));
    let mut words = Vec::new();
    for _ in 0..3 {
        words.push(word(&stream.next().await.unwrap()));
    }
    assert_eq!(words.join(" "), "listing listed lost(not-found)");
    let before = Instant::now();
    assert_eq!(word(&stream.next().await.unwrap()), "lost(not-found)");
    assert!(before.elapsed() > Duration::from_secs(3));
    assert_eq!(seen.lock().unwrap().last().unwrap(), "/t?limit=500");
}

#[tokio::test]
async fn a_watch_that_stays_open_is_heard_and_given_up_when_it_falls_silent() {
    let hold = || (200, "hold".into());
    let (client, _) = server(vec![list(7, "", ""), hold(), list(7, "", ""), hold()]).await;
    let spec = WatchSpec { timeout_seconds: 1, ..WatchSpec::new("/t") };
    let before = Instant::now();
    let signals: Vec<_> = watch::<Thing>(client, spec).take(5).collect().await;
    let words = signals.iter().map(word).collect::<Vec<_>>().join(" ");
    assert_eq!(words, "listing listed heard lost(timeout) heard");
    assert!((6..9).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
}
