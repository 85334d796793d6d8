#!/usr/bin/env python3
"""Says what becomes of the files of an agent, as one of its containers sees them: a line of JSON for each change.

    watch.py [DIRECTORY]        (default: /var/run/agentid)

A line has the time (`at`), the file, and of a JWT its `iat`, `exp` and `jti`, never the token; a file that is gone says
so. It looks five times a second, and is for tests and for learning.
"""

import base64
import json
import os
import pathlib
import sys
import time


def claims(text):
    try:
        part = text.strip().split(".")[1]
        said = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return {name: said[name] for name in ("iat", "exp", "jti") if name in said}
    except (IndexError, ValueError):
        return {}


def look(directory):
    """The files' contents; those with a leading dot are the kubelet's and the sidecar's own."""
    found = {}
    for name in sorted(os.listdir(directory) if directory.is_dir() else []):
        if not name.startswith("."):
            try:
                found[name] = (directory / name).read_text(encoding="utf-8")
            except OSError:
                continue
    return found


def main():
    directory = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "/var/run/agentid")
    known = {}
    while True:
        now = look(directory)
        for name in sorted(known.keys() | now.keys()):
            if known.get(name) != now.get(name):
                said = claims(now[name]) if name in now else {"gone": True}
                print(json.dumps({"at": round(time.time(), 3), "file": name, **said}), flush=True)
        known = now
        time.sleep(0.2)


if __name__ == "__main__":
    main()
