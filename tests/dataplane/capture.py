"""Captures the first bytes that real TLS clients send: `python -m tests.dataplane.capture [CLIENT...]`.

Root only. Each word is one of clients.py, from where it says:

    curl               this machine's, or PyPI's newest; without any words, all
    curl@trixie        a Debian suite's
    uv-rustls@0.4.0    a version of PyPI's
    chromium@sid*5     five, where each is another one

Each client is led to a listener on the loopback interface that answers CONNECT, if it is asked that, and
keeps what comes next, so none needs a server, a resolver or a certificate. The bytes are kept in hellos/, and
what has sent them in hellos/index.json; the name in each is registry.test.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .client_places import Place, place_of
from .clients import CLIENTS, NAME, Client

FOLDER = Path(__file__).with_name("hellos")
_PATIENCE = 180.0  # for Go's compiler
_MOST = 16384
_WORD = re.compile(r"(?P<stem>(?P<client>[^@*]+)(?:@(?P<where>[^*]+))?)(?:\*(?P<count>[1-9]))?")


def _read_until_idle(item: socket.socket) -> bytes:
    found = b""
    item.settimeout(_PATIENCE / 10)
    try:
        while len(found) < _MOST and (piece := item.recv(_MOST)):
            found += piece
            item.settimeout(1)
    except (TimeoutError, ConnectionResetError):
        pass
    return found


def _hello(item: socket.socket) -> bytes:
    """What a client sends first, behind CONNECT if it says that."""
    sent = _read_until_idle(item)
    if sent.startswith(b"CONNECT "):
        item.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        return _read_until_idle(item)
    return sent


def capture(client: Client, place: Place) -> bytes:
    """What it sends. Raises TimeoutError where it sends nothing with the name."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address, port = listening.getsockname()
        proxy = f"{address}:{port}"

        def filled(text: str) -> str:
            words = {"PROXY": proxy, "ADDRESS": address, "PORT": str(port), "NAME": NAME}
            return re.sub("PROXY|ADDRESS|PORT|NAME", lambda found: words[found[0]], text)

        environment = {
            **os.environ,
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), f"http://{proxy}"),
            **place.environment,
        }
        with subprocess.Popen(
            [*place.prefix, *map(filled, client.command)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                for sent in _hellos(listening):
                    if NAME.encode() in sent:
                        return sent
                raise TimeoutError("it sends no name")
            finally:
                # And whatever it has started.
                os.killpg(process.pid, signal.SIGKILL)


def _hellos(listening: socket.socket) -> Iterator[bytes]:
    """Browsers ask for things of their own as well."""
    deadline = time.monotonic() + _PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        listening.settimeout(left)
        try:
            item, _ = listening.accept()
        except TimeoutError:
            return
        with item:
            yield _hello(item)


def captured(word: str) -> Iterator[tuple[str, bytes, str]]:
    """For a word of the command line: the file's stem, the bytes, and what has sent them."""
    found = _WORD.fullmatch(word)
    if found is None or found["client"] not in CLIENTS:
        raise LookupError(f"there is no such client, but {', '.join(CLIENTS)}")
    client = CLIENTS[found["client"]]
    with place_of(client, found["where"] or "") as place:
        if not found["count"]:
            yield found["stem"], capture(client, place), place.versions
            return
        for number in range(1, int(found["count"]) + 1):
            yield f"{found['stem']}.{number}", capture(client, place), place.versions


def main(words: Sequence[str]) -> None:
    """Captures what is named."""
    index_file = FOLDER / "index.json"
    index = json.loads(index_file.read_text(encoding="utf-8")) if index_file.exists() else {}
    for word in words or CLIENTS:
        try:
            for stem, sent, versions in captured(word):
                (FOLDER / f"{stem}.bin").write_bytes(sent)
                index[stem] = versions
                print(f"{stem}: {len(sent)} bytes, {versions}", flush=True)
        except (OSError, LookupError, subprocess.SubprocessError) as error:
            print(f"{word}: {error}", flush=True)
    index_file.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
