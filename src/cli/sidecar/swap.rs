//! Files that change all at once, as the kubelet's volumes do: `<name>` → `..data/<name>`, `..data` → a directory of
//! one round, swapped by one rename.
//!
//! Invariant: at every moment `..data` leads to the whole of one round; what a crash left behind goes with the next.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

const DATA: &str = "..data";
const NEXT: &str = "..data_next";

/// Replaces what is in the directory by these files.
pub(super) fn put(directory: &Path, files: &BTreeMap<String, String>, mode: u32) -> io::Result<()> {
    if let Some(name) = files.keys().find(|n| !is_file_name(n)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name:?} is no file's name")));
    }
    fs::create_dir_all(directory)?;
    let round = format!("..{}", jiff::Timestamp::now().as_nanosecond());
    let path = directory.join(&round);
    fs::create_dir(&path)?;
    for (name, content) in files {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path.join(name))?;
        file.write_all(content.as_bytes())?;
    }
    let next = directory.join(NEXT);
    match fs::remove_file(&next) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    symlink(&round, &next)?;
    fs::rename(&next, directory.join(DATA))?;
    for name in files.keys() {
        let link = directory.join(name);
        let target = Path::new(DATA).join(name);
        if fs::read_link(&link).is_ok_and(|t| t == target) {
            continue;
        }
        // Somebody's own file of that name is not ours to remove.
        match symlink(&target, &link) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(io::Error::new(e.kind(), format!("{} is in the way", link.display())));
            }
            other => other?,
        }
    }
    sweep(directory, files, &round)
}

/// Removes links to files that are no more, and the directories of earlier rounds.
fn sweep(directory: &Path, files: &BTreeMap<String, String>, round: &str) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        let old = name.strip_prefix("..").is_some_and(|n| n.bytes().all(|c| c.is_ascii_digit()));
        if kind.is_dir() && old && name != round {
            fs::remove_dir_all(entry.path())?;
        } else if kind.is_symlink() && !files.contains_key(&name) && !name.starts_with("..") {
            let ours = fs::read_link(entry.path()).is_ok_and(|t| t.starts_with(DATA));
            if ours {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// A plain name that leads nowhere else.
fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && !name.starts_with('.')
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(n, c)| ((*n).to_owned(), (*c).to_owned())).collect()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut all: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|n| !n.starts_with(".."))
            .collect();
        all.sort_unstable();
        all
    }

    struct Dir(std::path::PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("agentid-swap-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn rounds_replace_each_other_whole() {
        let dir = Dir::new("rounds");
        put(&dir.0, &files(&[("a.jwt", "1"), ("b.jwt", "1")]), 0o440).unwrap();
        // What a crash leaves behind.
        fs::create_dir(dir.0.join("..123")).unwrap();
        symlink("..123", dir.0.join(NEXT)).unwrap();
        put(&dir.0, &files(&[("a.jwt", "2"), ("agent.json", "2")]), 0o440).unwrap();
        assert_eq!(names(&dir.0), ["a.jwt", "agent.json"]);
        assert_eq!(fs::read_to_string(dir.0.join("a.jwt")).unwrap(), "2");
        let rounds =
            fs::read_dir(&dir.0).unwrap().filter(|e| e.as_ref().unwrap().file_type().unwrap().is_dir());
        assert_eq!(rounds.count(), 1);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(dir.0.join("a.jwt")).unwrap().permissions().mode() & 0o777, 0o440);
    }

    #[test]
    fn a_reader_never_sees_two_rounds_mixed() {
        let dir = Dir::new("reader");
        put(&dir.0, &files(&[("a", "0"), ("b", "0")]), 0o400).unwrap();
        let path = dir.0.clone();
        let writer = std::thread::spawn(move || {
            for i in 1..200 {
                put(&path, &files(&[("a", &i.to_string()), ("b", &i.to_string())]), 0o400).unwrap();
            }
        });
        while !writer.is_finished() {
            // As a careful reader does: the round first, then its files.
            let Ok(round) = fs::canonicalize(dir.0.join(DATA)) else { continue };
            let both = ["a", "b"].map(|n| fs::read_to_string(round.join(n)));
            if let [Ok(a), Ok(b)] = both {
                assert_eq!(a, b);
            }
        }
        writer.join().unwrap();
    }

    #[test]
    fn names_lead_nowhere_else_and_others_files_stay() {
        let dir = Dir::new("names");
        for bad in ["../x", "a/b", "", ".hidden", "..data"] {
            assert!(put(&dir.0, &files(&[(bad, "x")]), 0o440).is_err(), "{bad}");
        }
        fs::create_dir_all(&dir.0).unwrap();
        fs::write(dir.0.join("mine"), "x").unwrap();
        put(&dir.0, &files(&[("a", "1")]), 0o440).unwrap();
        assert_eq!(names(&dir.0), ["a", "mine"]);
        assert!(put(&dir.0, &files(&[("mine", "1")]), 0o440).is_err());
    }
}
