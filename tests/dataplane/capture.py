"""Captures the first bytes that real TLS clients send: `python -m tests.dataplane.capture [PROGRAM...]`.

Each client is led through a proxy on the loopback interface that answers CONNECT and keeps what comes next,
so none needs a server, a resolver or a certificate. They are kept in hellos/, with the versions in
hellos/index.json; the name in each is registry.test. `skopeo@sid=/path/to/skopeo` is another one of its kind.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("hellos")
NAME = "registry.test"
_PATIENCE = 10.0
_MOST = 16384


@dataclass(frozen=True)
class Client:
    """What to run; PROXY stands for the proxy's host and port."""

    command: Sequence[str]
    version: Sequence[str]


CLIENTS: Mapping[str, Client] = {
    "skopeo": Client(["skopeo", "inspect", "--retry-times=0", f"docker://{NAME}/x"], ["skopeo", "--version"]),
    "ctr": Client(["ctr", "images", "pull", "--local", f"{NAME}/x:1"], ["ctr", "--version"]),
    "curl": Client(["curl", "-s", f"https://{NAME}/"], ["curl", "--version"]),
    "openssl": Client(
        ["openssl", "s_client", "-proxy", "PROXY", "-connect", f"{NAME}:443", "-servername", NAME],
        ["openssl", "version"],
    ),
    "openssl-tls1.2": Client(
        ["openssl", "s_client", "-tls1_2", "-proxy", "PROXY", "-connect", f"{NAME}:443", "-servername", NAME],
        ["openssl", "version"],
    ),
    "wget-gnutls": Client(["wget", "-q", "-t1", f"https://{NAME}/"], ["wget", "--version"]),
    "git-gnutls": Client(["git", "ls-remote", f"https://{NAME}/"], ["git", "--version"]),
    "python": Client(
        [sys.executable, "-c", f"import urllib.request as u; u.urlopen('https://{NAME}/')"],
        [sys.executable, "--version"],
    ),
    "uv-rustls": Client(
        ["uv", "pip", "install", "--target=/nonexistent", "--index-url", f"https://{NAME}/", "x"],
        ["uv", "--version"],
    ),
}


def _read_until_idle(item: socket.socket) -> bytes:
    item.settimeout(0.5)
    found = b""
    try:
        while len(found) < _MOST and (piece := item.recv(_MOST)):
            found += piece
    except TimeoutError:
        pass
    return found


def capture(client: Client) -> bytes:
    """What it sends behind CONNECT. Raises OSError or TimeoutError."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(_PATIENCE)
        proxy = f"127.0.0.1:{listening.getsockname()[1]}"
        environment = {**os.environ, "HTTPS_PROXY": f"http://{proxy}", "https_proxy": f"http://{proxy}"}
        command = [word.replace("PROXY", proxy) for word in client.command]
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                item, _ = listening.accept()
                with item:
                    item.settimeout(_PATIENCE)
                    while not item.recv(4096).endswith(b"\r\n\r\n"):
                        pass
                    item.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    return _read_until_idle(item)
            finally:
                process.kill()


def main(wanted: Sequence[str]) -> None:
    """Captures all that are installed, or those that are named."""
    index_file = FOLDER / "index.json"
    index = json.loads(index_file.read_text(encoding="utf-8")) if index_file.exists() else {}
    for word in wanted or CLIENTS:
        name, _, program = word.partition("=")
        client = CLIENTS[name.partition("@")[0]]
        if program:
            client = Client([program, *client.command[1:]], [program, *client.version[1:]])
        if shutil.which(client.command[0]) is None:
            print(f"{name}: not installed")
            continue
        try:
            sent = capture(client)
        except (OSError, TimeoutError) as error:
            print(f"{name}: {error}")
            continue
        if NAME.encode() not in sent:
            print(f"{name}: sent no name")
            continue
        version = subprocess.run(client.version, capture_output=True, text=True, check=False).stdout
        (FOLDER / f"{name}.bin").write_bytes(sent)
        index[name] = version.splitlines()[0].strip()
        print(f"{name}: {len(sent)} bytes, {index[name]}")
    index_file.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
