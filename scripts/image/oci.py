#!/usr/bin/env python3
"""Packs directories into an image archive (OCI image layout 1.0 in a tar), without a daemon, a registry or root.

    scripts/image/oci.py --name registry.example.com/agentid:1 --out agentid.tar --entrypoint /agentid --root DIRECTORY...

A DIRECTORY is the file system of one platform; which, the header of its entrypoint says. Several make an image for
several platforms. The same directories give the same bytes: files are sorted, belong to root, bear SOURCE_DATE_EPOCH (0
when unset) and are readable by all. The layers' compression is that of Python's zlib: another version of it may give
other bytes for the same content. Prints, for each platform, its name, the bytes to pull and those unpacked; last the
image's digest.
"""

import argparse
import datetime
import gzip
import hashlib
import io
import json
import os
import pathlib
import struct
import sys
import tarfile

MEDIA = "application/vnd.oci.image."
ARCHITECTURES = {62: "amd64", 183: "arm64"}
INTERPRETER = 3  # PT_INTERP of the program header table
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def platform(root, program):
    """The architecture of a 64-bit ELF program, whose loader, if it needs one, must be in the image too."""
    path = root / program.lstrip("/")
    header = path.resolve().read_bytes()
    if header[:6] != b"\x7fELF\x02\x01":
        sys.exit(f"oci: {path}: not a 64-bit little-endian ELF program")
    machine = struct.unpack_from("<H", header, 18)[0]
    if machine not in ARCHITECTURES:
        sys.exit(f"oci: {path}: machine {machine} is none of {', '.join(ARCHITECTURES.values())}")
    table, (size, count) = struct.unpack_from("<Q", header, 32)[0], struct.unpack_from("<HH", header, 54)
    for at in range(table, table + size * count, size):
        kind, offset, length = struct.unpack_from("<I4xQ16xQ", header, at)
        loader = header[offset : offset + length].rstrip(b"\0").decode() if kind == INTERPRETER else None
        if loader and not (root / loader.lstrip("/")).exists():
            sys.exit(f"oci: {path}: it is dynamically linked, and its loader {loader} is not in {root}")
    return ARCHITECTURES[machine]


def entry(name, kind, mode, size=0):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime = kind, mode, size, EPOCH
    return info


def layer(root):
    """The directory as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).parts):
            name = path.relative_to(root).as_posix()
            if path.is_symlink():
                info = entry(name, tarfile.SYMTYPE, 0o777)
                info.linkname = os.readlink(path)
                tar.addfile(info)
            elif path.is_dir():
                tar.addfile(entry(name, tarfile.DIRTYPE, 0o755))
            elif path.is_file():
                mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
                content = path.read_bytes()
                tar.addfile(entry(name, tarfile.REGTYPE, mode, len(content)), io.BytesIO(content))
            else:
                sys.exit(f"oci: {path}: neither a file nor a directory nor a symbolic link")
    return out.getvalue()


class Archive:
    """The blobs by digest."""

    def __init__(self):
        self.blobs = {}

    def add(self, content, kind):
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": MEDIA + kind, "digest": f"sha256:{digest}", "size": len(content)}

    def document(self, value, kind):
        return self.add(json.dumps(value, sort_keys=True).encode(), kind)

    def image(self, root, given):
        """One platform's image: its descriptor, the bytes to pull, the bytes unpacked."""
        architecture = platform(root, given.entrypoint[0])
        content = layer(root)
        packed = self.add(gzip.compress(content, given.level, mtime=0), "layer.v1.tar+gzip")
        when = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        labels = dict(label.split("=", 1) for label in given.label)
        run = {"Entrypoint": given.entrypoint, "User": given.user, "Env": given.env, "WorkingDir": "/", "Labels": labels}
        config = self.document(
            {
                "architecture": architecture,
                "os": "linux",
                "created": when,
                "config": {key: value for key, value in run.items() if value},
                "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
                "history": [{"created": when, "created_by": "oci.py"}],
            },
            "config.v1+json",
        )
        manifest = {"schemaVersion": 2, "mediaType": MEDIA + "manifest.v1+json", "config": config, "layers": [packed]}
        described = self.document(manifest | {"annotations": labels}, "manifest.v1+json")
        described["platform"] = {"architecture": architecture, "os": "linux"}
        return described, packed["size"] + config["size"] + described["size"], len(content), config, packed

    def write(self, path, index, names):
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:

            def put(name, content):
                tar.addfile(entry(name, tarfile.REGTYPE, 0o644, len(content)), io.BytesIO(content))

            put("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
            put("index.json", json.dumps(index, sort_keys=True).encode())
            if names:
                put("manifest.json", json.dumps(names, sort_keys=True).encode())
            for digest in sorted(self.blobs):
                put(f"blobs/sha256/{digest}", self.blobs[digest])


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--name", required=True, help="the image's name with its tag: <registry>/<path>:<tag>")
    options.add_argument("--out", required=True, type=pathlib.Path, help="the archive")
    options.add_argument("--entrypoint", required=True, nargs="+", metavar="WORD", help="the program, then words for it")
    options.add_argument("--user", default="65532:65532", help="UID:GID (default: %(default)s)")
    options.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    options.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    options.add_argument("--level", type=int, default=9, help="of compression, 1 to 9 (default: %(default)s)")
    options.add_argument("--root", dest="roots", required=True, nargs="+", type=pathlib.Path, metavar="DIRECTORY")
    given = options.parse_args()
    tag = given.name.rpartition(":")[2]
    if "/" in tag or tag == given.name:
        sys.exit(f"oci: --name {given.name}: a tag is missing, as in {given.name}:1")

    archive = Archive()
    images = [archive.image(root, given) for root in given.roots]
    manifests = sorted((image[0] for image in images), key=lambda image: image["platform"]["architecture"])
    top = archive.document(
        {"schemaVersion": 2, "mediaType": MEDIA + "index.v1+json", "manifests": manifests}, "index.v1+json"
    )
    # What containerd, and what podman and skopeo take for the name.
    top["annotations"] = {"io.containerd.image.name": given.name, "org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": MEDIA + "index.v1+json", "manifests": [top]}
    # Docker's own form, which is for one platform, points to the same blobs.
    names = [
        {
            "Config": config["digest"].replace("sha256:", "blobs/sha256/"),
            "RepoTags": [given.name],
            "Layers": [packed["digest"].replace("sha256:", "blobs/sha256/")],
        }
        for *_, config, packed in images
    ]
    archive.write(given.out, index, names if len(names) == 1 else None)
    for described, pulled, unpacked, *_ in images:
        print(f"linux/{described['platform']['architecture']} {pulled} {unpacked}")
    print(top["digest"])


if __name__ == "__main__":
    main()
