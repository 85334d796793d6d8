#!/usr/bin/env python3
"""What the program agentid is made of, as SPDX 2.3 (JSON) on standard output.

The crates are those of Cargo.lock that are linked for a target, what they need to be built, and with which checksums;
beside them the Rust toolchain and the C library that the program carries. Nothing is fetched. The same lock file, commit
and toolchain give the same document.

    scripts/image/sbom.py --target x86_64-unknown-linux-gnu
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

NOTHING_SAID = "NOASSERTION"


def run(*words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"sbom: {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def checksums(lock):
    """SHA-256 by name and version. Cargo writes the file, each key on a line of its own, in this order."""
    found = re.findall(r'^name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "([0-9a-f]{64})"$', lock, re.M)
    return {(name, version): digest for name, version, digest in found}


def identifier(name, version):
    """Letters, digits, dots and hyphens are all that one may hold (SPDX 2.3, 7.2)."""
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{name}-{version}")


def licence(text):
    # "MIT/Apache-2.0" is how crates said OR before there were expressions.
    return re.sub(r"\s*/\s*", " OR ", text) if text else NOTHING_SAID


def package(name, version, purl, said=None, digest=None, where=NOTHING_SAID):
    entry = {
        "SPDXID": identifier(name, version),
        "name": name,
        "versionInfo": version,
        "downloadLocation": where,
        "filesAnalyzed": False,
        "licenseConcluded": NOTHING_SAID,
        "licenseDeclared": licence(said),
        "copyrightText": NOTHING_SAID,
    }
    if digest:
        entry["checksums"] = [{"algorithm": "SHA256", "checksumValue": digest}]
    if purl:
        reference = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}
        entry["externalRefs"] = [reference]
    return entry


def reached(nodes, root):
    """The packages that the root is built from, and who needs whom for what; tests' are not among them."""
    seen, waiting, edges = {root}, [root], set()
    while waiting:
        own = waiting.pop()
        for dependency in nodes[own]["deps"]:
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]} - {"dev"}
            if not kinds:
                continue
            # `null` is cargo's word for what is linked.
            edges.add((own, dependency["pkg"], None in kinds))
            if dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    return seen, edges


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--target", required=True, help="the program's target, such as x86_64-unknown-linux-gnu")
    given = options.parse_args()
    top = pathlib.Path(__file__).resolve().parents[2]
    manifest = str(top / "Cargo.toml")
    metadata = json.loads(
        run("cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", given.target,
            "--manifest-path", manifest)
    )
    digests = checksums((top / "Cargo.lock").read_text())
    crates = {crate["id"]: crate for crate in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, edges = reached(nodes, root)

    packages, relations = [], []

    def relate(one, kind, other):
        relations.append({"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other})

    def id_of(crate):
        return identifier(crates[crate]["name"], crates[crate]["version"])

    for crate in seen:
        name, version, said = (crates[crate][key] for key in ("name", "version", "license"))
        if crate == root:
            packages.append(package(name, version, None, said))
            continue
        where = f"https://crates.io/api/v1/crates/{name}/{version}/download"
        packages.append(package(name, version, f"pkg:cargo/{name}@{version}", said, digests[name, version], where))
    for own, other, linked in edges:
        if linked:
            relate(id_of(own), "DEPENDS_ON", id_of(other))
        else:
            relate(id_of(other), "BUILD_DEPENDENCY_OF", id_of(own))

    rust = re.search(r"^release: (\S+)$", run("rustc", "-vV"), re.M).group(1)
    glibc = run("getconf", "GNU_LIBC_VERSION").split()[1]
    for name, version, said in (("rust-std", rust, "MIT OR Apache-2.0"), ("glibc", glibc, "LGPL-2.1-or-later")):
        packages.append(package(name, version, f"pkg:generic/{name}@{version}", said))
        relate(id_of(root), "STATIC_LINK", identifier(name, version))
    relate("SPDXRef-DOCUMENT", "DESCRIBES", id_of(root))

    packages.sort(key=lambda entry: entry["SPDXID"])
    relations.sort(key=lambda entry: tuple(entry.values()))
    when = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.timezone.utc)
    content = hashlib.sha256(json.dumps([packages, relations, given.target]).encode()).hexdigest()
    name = f"{crates[root]['name']}-{crates[root]['version']}-{given.target}"
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        # Of this content alone (SPDX 2.3, 6.5): it need not lead anywhere.
        "documentNamespace": f"https://agentid.dev/spdx/{name}-{content[:32]}",
        "creationInfo": {
            "created": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: agentid-sbom", "Organization: agentid"],
        },
        "packages": packages,
        "relationships": relations,
    }
    json.dump(document, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
