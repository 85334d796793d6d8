#!/usr/bin/env python3
"""The images that pods of the node test run beside agentid's own, packed from what is on this machine.

    images.py pause PROGRAM NAME:TAG OUT          the pod's own container
    images.py python NAME:TAG OUT FILE...         this Python, PyJWT with cryptography, and the files in /app

The second is to be run by a Python that has PyJWT[crypto] (tests/interop/setup.sh makes one). examples/ has Dockerfiles
for the same, from Python's own image; there is no daemon here to build them.
"""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile

OCI = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "image" / "oci.py"
# Parts of the standard library that no service needs, by the first part of their path.
LEFT_OUT = {"test", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo", "site-packages", "pydoc_data", "unittest"}
DISTRIBUTIONS = ("PyJWT", "cryptography", "cffi", "pycparser", "typing_extensions")


def put(root, source, destination):
    place = root / str(destination).lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, place)
    place.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def libraries(program):
    """The shared libraries of a program, where the loader finds them; the loader among them."""
    said = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    for line in said.stdout.splitlines():
        words = line.replace("=>", " ").split()
        yield from (word for word in words if word.startswith("/"))


def python(root, files):
    program = pathlib.Path(sys.executable).resolve()
    put(root, program, program)
    standard = pathlib.Path(sysconfig.get_path("stdlib"))
    native = [program]
    for path in standard.rglob("*"):
        parts = path.relative_to(standard).parts
        if parts[0] in LEFT_OUT or parts[0].startswith("config-") or "__pycache__" in parts or path.is_dir():
            continue
        put(root, path, path)
        native += [path] if path.suffix == ".so" else []
    for name in DISTRIBUTIONS:
        try:
            found = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in found:
            if ".." in file.parts or file.suffix == ".pyc":
                continue
            put(root, file.locate(), pathlib.Path("/app", file))
            native += [pathlib.Path(file.locate())] if ".so" in file.name else []
    for library in sorted({library for path in native for library in libraries(path)}):
        put(root, library, library)
    for file in files:
        put(root, file, pathlib.Path("/app", pathlib.Path(file).name))
    # A short name for it.
    (root / "bin").mkdir(exist_ok=True)
    if not (root / "bin/python").exists():
        (root / "bin/python").symlink_to(program)
    return ["--entrypoint", str(program), "--env", "PATH=/bin", "--env", "PYTHONPATH=/app"]


def main():
    kind, *words = sys.argv[1:] or [""]
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory, "root")
        root.mkdir(mode=0o755)
        if kind == "pause" and len(words) == 3:
            program, name, out = words
            put(root, program, "/pause")
            options = ["--entrypoint", "/pause", "--user", "65535:65535"]
        elif kind == "python" and len(words) > 2:
            name, out, *files = words
            options = python(root, files)
        else:
            sys.exit(__doc__)
        subprocess.run(
            [sys.executable, OCI, "--name", name, "--out", out, "--level", "1", *options, "--root", root], check=True
        )


if __name__ == "__main__":
    main()
