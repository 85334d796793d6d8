//! The rooms of `src/` and the arrows between them: every path into another room is held against the table.
//! Beside it, that the domain is pure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each room, and the rooms that it may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("crypto", &[]),
    ("net", &["crypto"]),
    ("domain", &["api"]),
    ("issue", &["domain", "crypto", "api"]),
    ("metrics", &["domain", "api"]),
    ("cluster", &["api", "domain", "crypto"]),
    ("operator", &["issue", "cluster", "domain", "api", "crypto", "net", "metrics"]),
    ("serve", &["issue", "cluster", "domain", "api", "crypto", "net", "metrics"]),
    ("cli", &["api", "crypto", "net", "domain", "issue", "cluster", "operator", "serve"]),
];

/// The rooms whose answers depend on their arguments alone.
const PURE: &[&str] = &["api", "domain"];
/// What a pure room can't name: a client, a clock, randomness, the environment.
const IMPURE: &[&[&str]] = &[
    &["tokio"],
    &["SystemTime"],
    &["Instant"],
    &["Timestamp", "::", "now"],
    &["Zoned", "::", "now"],
    &["kube", "::", "Client"],
    &["kube", "::", "Api"],
    &["std", "::", "env"],
    &["std", "::", "fs"],
    &["aws_lc_rs", "::", "rand"],
];

/// The words and signs of Rust source, without comments, texts and characters.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_text(rest) {
            length
        } else if c == '"' || rest.starts_with("b\"") {
            text(rest)
        } else if c == '\'' {
            character(rest)
        } else if c.is_alphanumeric() || c == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// Block comments nest.
fn block_comment(source: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < source.len() {
        let here = &source.as_bytes()[at..];
        (depth, at) = match (here.starts_with(b"/*"), here.starts_with(b"*/")) {
            (true, _) => (depth + 1, at + 2),
            (_, true) => (depth - 1, at + 2),
            _ => (depth, at + 1),
        };
        if depth == 0 {
            return at;
        }
    }
    source.len()
}

fn raw_text(source: &str) -> Option<usize> {
    let body = source.strip_prefix("br").or_else(|| source.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let body = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(source.len() - body.len() + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

fn text(source: &str) -> usize {
    let mut escaped = false;
    let start = source.find('"').unwrap() + 1;
    for (at, c) in source[start..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return start + at + 1,
            _ => {}
        }
    }
    source.len()
}

/// A character, or the tick of a lifetime.
fn character(source: &str) -> usize {
    let mut chars = source.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => {
            let end = chars.find(|(_, c)| *c == '\'');
            end.map_or(source.len(), |(at, _)| at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// What of the crate's root a file reaches (by `crate::`, `agentid::` or enough `super::`), and what it may
/// not write because it would hide that.
fn reached(module: &[&str], tokens: &[String]) -> (BTreeSet<String>, Vec<String>) {
    let (mut rooms, mut faults) = (BTreeSet::new(), Vec::new());
    // For each open brace, whether it opened an inline module.
    let mut braces = Vec::new();
    let word = |at: usize| tokens.get(at).map_or("", String::as_str);
    for at in 0..tokens.len() {
        match word(at) {
            "{" => braces.push(at >= 2 && word(at - 2) == "mod"),
            "}" => _ = braces.pop(),
            "crate" | "agentid" if word(at + 1) == "::" => first_names(tokens, at + 2, &mut rooms),
            "crate" if word(at + 1) == "as" => faults.push("the crate has another name".to_owned()),
            "super" if at < 2 || word(at - 2) != "super" => {
                let depth = module.len() + braces.iter().filter(|b| **b).count();
                let mut ups = 1;
                while word(at + 2 * ups) == "super" && word(at + 2 * ups - 1) == "::" {
                    ups += 1;
                }
                // Without a path behind it, it is `pub(super)`.
                if ups >= depth && word(at + 2 * ups - 1) == "::" {
                    first_names(tokens, at + 2 * ups, &mut rooms);
                }
                if ups > depth {
                    faults.push(format!("{ups} times super"));
                }
            }
            _ => {}
        }
    }
    (rooms, faults)
}

/// The first names of the paths that begin at a token: one, or those of a group in braces.
fn first_names(tokens: &[String], start: usize, names: &mut BTreeSet<String>) {
    let word = |at: usize| tokens.get(at).map_or("", String::as_str);
    if word(start) != "{" {
        names.insert(word(start).to_owned());
        return;
    }
    let mut depth = 0;
    for at in start..tokens.len() {
        match word(at) {
            "{" => depth += 1,
            "}" => depth -= 1,
            name if depth == 1 && matches!(word(at - 1), "{" | ",") => _ = names.insert(name.to_owned()),
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// What a file of `src/` (its path below it) does that the table does not allow.
fn violations(path: &str, source: &str) -> Vec<String> {
    let mut module: Vec<_> = path.trim_end_matches(".rs").split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    let room = module[0];
    if module.len() == 1 && matches!(room, "lib" | "main") {
        return Vec::new();
    }
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{path}: {room} is no room")];
    };
    let tokens = tokens(source);
    let (reached, faults) = reached(&module, &tokens);
    let mut found: Vec<_> = faults.into_iter().map(|fault| format!("{path}: {fault}")).collect();
    for name in reached {
        if name != room && !allowed.contains(&name.as_str()) {
            found.push(format!("{path}: {room} may not use {name}"));
        }
    }
    // What tests of a pure room do is their own affair; they stand at the end of a file.
    let product = tokens.windows(4).position(|w| w == ["cfg", "(", "test", ")"]).unwrap_or(tokens.len());
    if PURE.contains(&room) {
        for name in IMPURE {
            if tokens[..product].windows(name.len()).any(|w| w == *name) {
                found.push(format!("{path}: {room} is pure: it may not use {}", name.concat()));
            }
        }
    }
    found
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

#[test]
fn rooms_use_what_the_table_allows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&src);
    assert!(files.len() > 10, "{files:?}");
    let found: Vec<_> = files
        .iter()
        .flat_map(|file| {
            let path = file.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
            violations(&path, &std::fs::read_to_string(file).unwrap())
        })
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_room_alone_opens_with_mod_rs() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let doors = sources(&src).into_iter().filter(|file| file.ends_with("mod.rs"));
    let rooms: BTreeSet<_> = doors.map(|file| file.parent().unwrap().to_owned()).collect();
    assert_eq!(rooms, ROOMS.iter().map(|(room, _)| src.join(room)).collect(), "elsewhere it is <module>.rs");
}

#[test]
fn every_way_into_another_room_is_seen() {
    for (path, source) in [
        ("api/mod.rs", "use crate::domain::World;"),
        ("api/mod.rs", "use super::domain;"),
        ("api/agent.rs", "use super::super::domain;"),
        ("api/agent.rs", "use super :: super :: { crypto };"),
        ("api/agent.rs", "use super::super::super::x;"),
        ("api/mod.rs", "mod tests { use super::super::domain::World; }"),
        ("api/a/b.rs", "mod tests { fn f() { super::super::super::super::domain::g() } }"),
        ("domain/mod.rs", "use crate::{api::X, cluster::{Y, Z}};"),
        ("domain/mod.rs", "use crate::{api::{A, B}, api as c, issue};"),
        ("domain/plan.rs", "fn f() -> crate :: issue :: Token { todo() }"),
        ("domain/plan.rs", "fn f<'a>(x: &'a str) { let c = '\"'; crate::issue::g(c) }"),
        ("domain/plan.rs", "const A: &str = r#\"\"\"#; use crate::operator::X;"),
        ("domain/plan.rs", "/* /* */ */ use crate::operator::X;"),
        ("domain/plan.rs", "use crate as root;"),
        ("domain/plan.rs", "use agentid::cli::X;"),
        ("domain/plan.rs", "macro_rules! m { () => { $crate::cluster::f() } }"),
        ("domain/plan.rs", "let now = jiff::Timestamp::now();"),
        ("domain/plan.rs", "use std::time::Instant;"),
        ("domain/plan.rs", "use std::time::Instant; #[cfg(test)] mod tests {}"),
        ("cluster/mod.rs", "use crate::issue::Issuer;"),
        ("cluster/mod.rs", "use crate::operator::Loop;"),
        ("crypto/jws.rs", "use crate::api::SigningAlgorithm;"),
        ("operator/mod.rs", "use crate::cli;"),
        ("cupboard/mod.rs", ""),
    ] {
        assert!(!violations(path, source).is_empty(), "{path}: {source}");
    }
}

#[test]
fn what_is_allowed_is_no_violation() {
    for (path, source) in [
        ("api/agent.rs", "use super::Reason; use crate::api::rules;"),
        ("api/agent.rs", "mod tests { use super::super::Reason; use super::*; }"),
        (
            "api/mod.rs",
            "// use crate::domain::World;\n/* crate::cluster */ const A: &str = \"crate::issue\";",
        ),
        ("api/mod.rs", "const A: &str = \"\\\"\"; const B: &str = r\"crate::issue\"; const C: char = '\\'';"),
        ("api/mod.rs", "pub(crate) fn f() {} pub(super) fn g() {}"),
        ("domain/decide.rs", "use super::world; use crate::api::{AgentGrant, Reason};"),
        (
            "domain/plan.rs",
            "fn f(now: jiff::Timestamp) {} #[cfg(test)] mod tests { use std::time::Instant; }",
        ),
        ("issue/mod.rs", "use crate::{domain, crypto::{self, Key}, api};"),
        ("cli/why.rs", "use crate::operator::X; use agentid::domain::Y;"),
        ("main.rs", "use agentid::cli;"),
        ("lib.rs", "pub mod api;"),
    ] {
        assert_eq!(violations(path, source), Vec::<String>::new(), "{path}: {source}");
    }
}
