"""A peer: the way python-clamd scans, a connection and an INSTREAM for one file after the other.

Arguments: a directory and clamd's socket. Prints the files found infected, as one JSON object.
"""

import json
import os
import socket
import struct
import sys
from pathlib import Path

CHUNK = 1024  # bytes, as in python-clamd


def scan(path: Path, address: str) -> str:
    """Return clamd's reply."""
    with socket.socket(socket.AF_UNIX) as link, path.open("rb") as file:
        link.connect(address)
        link.sendall(b"nINSTREAM\n")
        while chunk := file.read(CHUNK):
            link.sendall(struct.pack("!L", len(chunk)) + chunk)
        link.sendall(struct.pack("!L", 0))
        return link.makefile("rb").readline().decode().strip()


def main(store: Path, address: str) -> None:
    hits = {}
    for directory, _, names in os.walk(store):
        for path in (Path(directory, name) for name in names):
            reply = scan(path, address).removeprefix("stream: ")
            if reply != "OK":
                hits[str(path.relative_to(store))] = reply.removesuffix(" FOUND")
    print(json.dumps(hits))  # noqa: T201 - this is its answer


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
