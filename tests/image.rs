//! `make image`: that the archive is what the OCI image layout says, the same twice, and in step with the Dockerfile;
//! that the SPDX document has what SPDX 2.3 requires and names what is linked. The release build itself is not
//! made here: tests/node runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const TOP: &str = env!("CARGO_MANIFEST_DIR");

fn fresh(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A static ELF program, in all that its header says; its content is nothing that could run.
fn program(machine: u16, interpreter: Option<&str>) -> Vec<u8> {
    let mut elf = vec![0; 64 + 56];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18..20].copy_from_slice(&machine.to_le_bytes());
    elf[32..40].copy_from_slice(&64u64.to_le_bytes());
    elf[54..56].copy_from_slice(&56u16.to_le_bytes());
    elf[56..58].copy_from_slice(&1u16.to_le_bytes());
    let (kind, path) = interpreter.map_or((1u32, String::new()), |path| (3, format!("{path}\0")));
    elf[64..68].copy_from_slice(&kind.to_le_bytes());
    elf[72..80].copy_from_slice(&120u64.to_le_bytes());
    elf[96..104].copy_from_slice(&(path.len() as u64).to_le_bytes());
    elf.extend(path.bytes());
    elf
}

/// A directory as scripts/image/root.sh makes it.
fn root(at: &Path, program: &[u8]) -> PathBuf {
    let root = at.join("root");
    std::fs::create_dir_all(root.join("etc/ssl/certs")).unwrap();
    std::fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), "none").unwrap();
    std::fs::write(root.join("agentid"), program).unwrap();
    std::fs::set_permissions(root.join("agentid"), PermissionsExt::from_mode(0o700)).unwrap();
    symlink("agentid", root.join("link")).unwrap();
    root
}

fn pack(out: &Path, roots: &[&Path], epoch: &str) -> Output {
    let mut command = Command::new(Path::new(TOP).join("scripts/image/oci.py"));
    command.args(["--name", "localhost/agentid:1", "--entrypoint", "/agentid", "--env", "PATH=/", "--out"]);
    command.arg(out).arg("--root").args(roots).env("SOURCE_DATE_EPOCH", epoch);
    command.output().unwrap()
}

fn packed(out: &Path, roots: &[&Path], epoch: &str) -> String {
    let output = pack(out, roots, epoch);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The files of a tar, by the tar of the system: another reader than the writer.
fn untar(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let into = archive.with_extension("d");
    std::fs::create_dir_all(&into).unwrap();
    let done = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&into).status().unwrap();
    assert!(done.success());
    let mut files = BTreeMap::new();
    let mut waiting = vec![into.clone()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let name = path.strip_prefix(&into).unwrap().display().to_string();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// The blob that a descriptor points to, held to its digest and size.
fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, at: &Path, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let name = format!("blobs/sha256/{digest}");
    let content = &files[&name];
    assert_eq!(descriptor["size"], content.len());
    assert_eq!(sha256(&at.with_extension("d").join(name)), digest);
    content
}

#[test]
fn the_archive_is_an_oci_layout_with_the_dockerfiles_words() {
    let at = fresh("layout");
    let (amd, arm) = (at.join("amd"), at.join("arm"));
    let (amd, arm) = (root(&amd, &program(62, None)), root(&arm, &program(183, None)));
    let out = at.join("out.tar");
    let said = packed(&out, &[&amd, &arm], "1700000000");
    let files = untar(&out);
    assert_eq!(json(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
    let index = json(&files["index.json"]);
    let top = &index["manifests"][0];
    assert_eq!(top["annotations"]["io.containerd.image.name"], "localhost/agentid:1");
    assert_eq!(said.lines().last(), top["digest"].as_str());
    let platforms = json(blob(&files, &out, top));
    let mut seen = Vec::new();
    for described in platforms["manifests"].as_array().unwrap() {
        let manifest = json(blob(&files, &out, described));
        let config = json(blob(&files, &out, &manifest["config"]));
        assert_eq!(config["architecture"], described["platform"]["architecture"]);
        let layer = &manifest["layers"][0];
        blob(&files, &out, layer);
        let packed = out.with_extension("d").join(format!(
            "blobs/sha256/{}",
            layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap()
        ));
        let tar = at.join("layer.tar");
        let unpacked = Command::new("gzip").arg("-dc").arg(&packed).output().unwrap().stdout;
        std::fs::write(&tar, unpacked).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&tar)));
        let listed =
            Command::new("tar").args(["--numeric-owner", "--utc", "-tvf"]).arg(&tar).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let lines: Vec<_> = listed.lines().collect();
        // Readable by any user, of root, from the time that was said, sorted.
        assert_eq!(lines.len(), 6, "{listed}");
        assert!(lines[0].starts_with("-rwxr-xr-x 0/0 ") && lines[0].ends_with("2023-11-14 22:13 agentid"));
        assert!(lines[1].starts_with("drwxr-xr-x 0/0 ") && lines[1].ends_with(" etc/"), "{listed}");
        assert!(
            lines[4].starts_with("-rw-r--r-- 0/0 ") && lines[4].ends_with("ca-certificates.crt"),
            "{listed}"
        );
        assert!(lines[5].ends_with(" link -> agentid"), "{listed}");
        seen.push((config["architecture"].clone(), config["config"].clone()));
    }
    let names: Vec<_> = seen.iter().map(|s| s.0.as_str().unwrap()).collect();
    assert_eq!(names, ["amd64", "arm64"]);

    let dockerfile = std::fs::read_to_string(Path::new(TOP).join("Dockerfile")).unwrap();
    let last = dockerfile.rsplit_once("\nFROM scratch\n").expect("the last stage begins from nothing").1;
    for (_, config) in &seen {
        assert!(last.contains(&format!("USER {}\n", config["User"].as_str().unwrap())), "{config}");
        assert!(last.contains(&format!("ENTRYPOINT {}\n", config["Entrypoint"])), "{config}");
        assert!(last.contains(&format!("ENV {}\n", config["Env"][0].as_str().unwrap())), "{config}");
    }
    let toolchain = std::fs::read_to_string(Path::new(TOP).join("rust-toolchain.toml")).unwrap();
    let version = dockerfile.lines().find_map(|l| l.strip_prefix("ARG RUST=")).unwrap();
    assert!(toolchain.contains(&format!("channel = \"{version}\"")), "another Rust in the Dockerfile");
    let ours = std::fs::read_to_string(Path::new(TOP).join("scripts/image.sh")).unwrap();
    assert!(ours.contains("--entrypoint /agentid --env PATH=/"), "this test packs otherwise than make image");
    for label in last.split_whitespace().filter(|w| w.starts_with("org.opencontainers")) {
        assert!(ours.contains(label.split('=').next().unwrap()), "{label}");
    }
    std::fs::remove_dir_all(&at).unwrap();
}

#[test]
fn the_same_files_give_the_same_archive() {
    let at = fresh("twice");
    let bytes = program(62, None);
    let one = root(&at.join("one"), &bytes);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    // Made later, in another order, in another place.
    let two = at.join("two/root");
    std::fs::create_dir_all(&two).unwrap();
    symlink("agentid", two.join("link")).unwrap();
    root_rest(&two, &bytes);
    let (a, b, c) = (at.join("a.tar"), at.join("b.tar"), at.join("c.tar"));
    assert_eq!(packed(&a, &[&one], "1700000000"), packed(&b, &[&two], "1700000000"));
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    packed(&c, &[&two], "1700000001");
    assert_ne!(std::fs::read(&a).unwrap(), std::fs::read(&c).unwrap(), "the time is not in it");
    // The form of `docker load` points to the same blobs.
    let files = untar(&a);
    let docker = json(&files["manifest.json"]);
    assert_eq!(docker[0]["RepoTags"][0], "localhost/agentid:1");
    assert!(files.contains_key(docker[0]["Config"].as_str().unwrap()));
    assert!(files.contains_key(docker[0]["Layers"][0].as_str().unwrap()));
    std::fs::remove_dir_all(&at).unwrap();
}

fn root_rest(root: &Path, program: &[u8]) {
    std::fs::write(root.join("agentid"), program).unwrap();
    std::fs::set_permissions(root.join("agentid"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(root.join("etc/ssl/certs")).unwrap();
    std::fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), "none").unwrap();
}

#[test]
fn what_could_not_run_is_not_packed() {
    let at = fresh("refused");
    let out = at.join("out.tar");
    for (name, program, why) in [
        (
            "dynamic",
            program(62, Some("/lib64/ld-linux-x86-64.so.2")),
            "its loader /lib64/ld-linux-x86-64.so.2 is not",
        ),
        ("script", b"#!/bin/sh\n".to_vec(), "not a 64-bit little-endian ELF"),
        ("riscv", program(243, None), "machine 243"),
    ] {
        let output = pack(&out, &[&root(&at.join(name), &program)], "0");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{name}: {said}");
        assert!(!out.exists(), "{name}");
    }
    std::fs::remove_dir_all(&at).unwrap();
}

#[test]
fn the_spdx_document_names_what_is_linked() {
    let write = || {
        let mut command = Command::new(Path::new(TOP).join("scripts/image/sbom.py"));
        command.args(["--target", "x86_64-unknown-linux-gnu"]).env("SOURCE_DATE_EPOCH", "1700000000");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let bytes = write();
    assert_eq!(bytes, write(), "another one from the same files");
    let document = json(&bytes);

    // What SPDX 2.3 requires of a document (6), a package (7) and a relationship (11).
    assert_eq!((&document["spdxVersion"], &document["dataLicense"]), (&"SPDX-2.3".into(), &"CC0-1.0".into()));
    assert_eq!(document["SPDXID"], "SPDXRef-DOCUMENT");
    assert!(document["name"].as_str().unwrap().starts_with("agentid-"));
    let namespace = document["documentNamespace"].as_str().unwrap();
    assert!(namespace.starts_with("https://") && !namespace.contains('#'), "{namespace}");
    assert_eq!(document["creationInfo"]["created"], "2023-11-14T22:13:20Z");
    for creator in document["creationInfo"]["creators"].as_array().unwrap() {
        let kind = creator.as_str().unwrap().split(": ").next().unwrap();
        assert!(["Tool", "Person", "Organization"].contains(&kind), "{creator}");
    }
    let mut ids = BTreeSet::from(["SPDXRef-DOCUMENT"]);
    let mut names = BTreeMap::new();
    for package in document["packages"].as_array().unwrap() {
        let text = |field: &str| package[field].as_str().unwrap_or_else(|| panic!("no {field}: {package}"));
        let id = text("SPDXID").strip_prefix("SPDXRef-").unwrap();
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'), "{id}");
        assert!(ids.insert(text("SPDXID")), "twice: {id}");
        for field in ["name", "versionInfo", "downloadLocation", "licenseConcluded", "copyrightText"] {
            assert!(!text(field).is_empty(), "{field}: {package}");
        }
        assert_ne!(text("licenseDeclared"), "NOASSERTION", "{package}");
        assert_eq!(package["filesAnalyzed"], false);
        names.insert(text("name"), package);
    }
    let mut linked = BTreeSet::new();
    for relation in document["relationships"].as_array().unwrap() {
        let [one, other] = ["spdxElementId", "relatedSpdxElement"].map(|f| relation[f].as_str().unwrap());
        assert!(ids.contains(one) && ids.contains(other), "{relation}");
        let kind = relation["relationshipType"].as_str().unwrap();
        assert!(
            ["DESCRIBES", "DEPENDS_ON", "BUILD_DEPENDENCY_OF", "STATIC_LINK"].contains(&kind),
            "{relation}"
        );
        linked.extend([one, other]);
    }
    assert_eq!(linked, ids, "every package stands in a relationship");

    // By the lock file, read another way.
    let lock = std::fs::read_to_string(Path::new(TOP).join("Cargo.lock")).unwrap();
    for name in ["tokio", "kube", "rustls", "aws-lc-sys", "tikv-jemalloc-sys"] {
        let package = names[name];
        let version = package["versionInfo"].as_str().unwrap();
        let locked = lock
            .split("[[package]]\n")
            .find(|p| p.starts_with(&format!("name = \"{name}\"\nversion = \"{version}\"\n")));
        let sum = package["checksums"][0]["checksumValue"].as_str().unwrap();
        assert!(locked.is_some_and(|p| p.contains(sum)), "{package}");
        assert_eq!(package["externalRefs"][0]["referenceLocator"], format!("pkg:cargo/{name}@{version}"));
    }
    assert!(names.contains_key("glibc") && names.contains_key("rust-std"));
    assert!(!names.contains_key("proptest"), "what only tests use is not in the program");
    assert!(!names.contains_key("windows-sys"), "nor what other systems use");
}
