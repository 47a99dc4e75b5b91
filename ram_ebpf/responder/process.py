"""The process that speaks with refused clients: `python -m ram_ebpf.responder.process CHANNEL LISTENER...`.

It has no rights, no files, and no network but the sockets that it was given. It reads what strangers send;
what to say, and every signature, comes from the daemon by the channel. It ends when the daemon does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from ram_ebpf import own_process
from ram_ebpf.responder import http
from ram_ebpf.responder.channel import (
    ALIVE,
    LONGEST,
    MOST_LISTENERS,
    Change,
    ChannelError,
    Question,
    Reply,
    Served,
    Start,
)
from ram_ebpf.responder.clienthello import ClientHelloError, ClientHelloReader, looks_like_tls
from ram_ebpf.responder.tls import ACCESS_DENIED, Tls, TlsError, context

MOST_CONNECTIONS = 256
PATIENCE = 8.0  # seconds that a connection may take in all
_ASK_PATIENCE = 1.0  # seconds for the daemon's answer, which takes it a millisecond; it may have been stopped
_MOST_QUESTIONS = 16  # that wait for the daemon at a time; whoever has lost its place asks no more
_MOST_REQUESTS = 8  # on one connection
MOST_FILES = 4096  # two listeners for each of 512 network namespaces, and clients
_BACKLOG = 1024  # of clients that the kernel has wait
_AT_ONCE = 64  # that are taken from there before anything else is done
_HEARTBEAT = 1.0
_LINGER = 0.2  # seconds in which a client may read what it was told before its own data is refused
_CHUNK = 16384

_NOBODY = 65534
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWNET = 0x04000000, 0x08000000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class _HangUpError(Exception):
    """The connection is over."""


class Channel:
    """Questions to the daemon."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._number = 0
        self.served = Served()
        self._told = self.served
        self.changes: list[tuple[int, list[socket.socket]]] = []
        """Places that have come, with their listeners, or gone."""
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._room = asyncio.Semaphore(_MOST_QUESTIONS)

    async def ask(self, client: str, port: int, name: str | None) -> Reply:
        """What to say to a client. Raises _HangUpError where the daemon has no time, or says nothing."""
        async with self._room:
            self._number += 1
            number = self._number
            future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            self._waiting[number] = future
            try:
                self._end.send(Question(number, client, port, name).pack())
                return await asyncio.wait_for(future, _ASK_PATIENCE)
            except (OSError, asyncio.TimeoutError) as error:
                raise _HangUpError from error
            finally:
                self._waiting.pop(number, None)

    def take(self) -> bool:
        """Reads what the daemon has said; False when it is gone."""
        while True:
            try:
                packet, numbers, _, _ = socket.recv_fds(self._end, LONGEST, MOST_LISTENERS)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not packet:
                return False
            with contextlib.suppress(ChannelError):
                if (change := Change.unpack(packet)) is not None:
                    self.changes.append((change.place, [socket.socket(fileno=fd) for fd in numbers]))
                    continue
                reply = Reply.unpack(packet)
                future = self._waiting.pop(reply.number, None)
                if future is not None and not future.done():
                    future.set_result(reply)

    def beat(self) -> bool:
        """Says that this process is alive, and what it has done; False when nobody listens."""
        try:
            self._end.send(ALIVE)
            if self.served != self._told:
                self._end.send(self.served.pack())
                self._told = self.served
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


class Connection:
    """One client, from its first byte to the end."""

    def __init__(
        self, start: Start, channel: Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._start = start
        self._channel = channel
        self._reader = reader
        self._writer = writer
        address, port = writer.get_extra_info("peername")[:2]
        self._client = (str(address), int(port))
        self._tls: Tls | None = None
        self._reply: Reply | None = None
        self.answered = False
        """Whether something was said that a client can show."""

    async def serve(self) -> None:
        """Raises _HangUpError, TlsError, OSError or what parsers raise: then it is over as well."""
        data = await self._more()
        if looks_like_tls(data[0]):
            data = await self._shake_hands(data)
        await self._answer(data)

    async def _more(self) -> bytes:
        chunk = await self._reader.read(_CHUNK)
        if not chunk:
            raise _HangUpError
        return chunk

    async def _shake_hands(self, data: bytes) -> bytes:
        """The first bytes behind the handshake, in clear text."""
        reader = ClientHelloReader()
        first = [data]
        while (hello := reader.take(first[-1])) is None:
            first.append(await self._more())
        if hello.server_name is None:
            self._writer.write(ACCESS_DENIED)
            self.answered = True
            await self._linger()
            raise _HangUpError
        with contextlib.suppress(_HangUpError):  # the message's certificate says it without the daemon
            self._reply = await self._channel.ask(*self._client, hello.server_name)
        chain = (self._reply.chain if self._reply is not None else ()) or (self._start.certificate,)
        self._tls = Tls(context(chain, self._start.key_pem))
        data = b"".join(first)
        while not (clear := self._decrypt(data)):
            await self._writer.drain()
            data = await self._more()
        return clear

    def _decrypt(self, data: bytes) -> bytes:
        assert self._tls is not None
        try:
            return self._tls.take(data)
        finally:
            if outgoing := self._tls.outgoing():
                self._writer.write(outgoing)
                self.answered = True  # with the certificate, which has the message as its name

    def _send(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.send(data)
            data = self._tls.outgoing()
        self._writer.write(data)
        self.answered = True

    async def _answer(self, data: bytes) -> None:
        for _ in range(_MOST_REQUESTS):
            while (found := http.read_request(data)) is None:
                chunk = await self._more()
                data += chunk if self._tls is None else self._decrypt(chunk)
            request, length = found
            data = data[length:]
            if self._reply is None:  # a connection has one name, that of its first request
                self._reply = await self._channel.ask(*self._client, request.host)
            if http.passes(request):
                self._send(http.passed(request))
            else:
                self._send(http.refused(request, self._reply.text, self._reply.detail))
            await self._writer.drain()
            if request.ends:
                break
        if self._tls is not None:
            self._tls.close()
            self._writer.write(self._tls.outgoing())
        await self._linger()

    async def _linger(self) -> None:
        """Reads what is still on its way: the kernel would send a reset instead of our last words."""
        await self._writer.drain()
        self._writer.write_eof()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._read_away(), _LINGER)

    async def _read_away(self) -> None:
        while await self._reader.read(_CHUNK):
            pass


class Server:
    """All clients. Of more than MOST_CONNECTIONS the oldest goes: no one can keep others out for long."""

    def __init__(self, start: Start, channel: Channel) -> None:
        self._start = start
        self._channel = channel
        self._tasks: OrderedDict[asyncio.Task[None], None] = OrderedDict()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = None
        while len(self._tasks) > MOST_CONNECTIONS:
            oldest, _ = self._tasks.popitem(last=False)
            oldest.cancel()
        connection: Connection | None = None
        try:
            connection = Connection(self._start, self._channel, reader, writer)
            await asyncio.wait_for(connection.serve(), PATIENCE)
        except (_HangUpError, ClientHelloError, http.RequestError, TlsError):
            pass  # whoever it was has been told, or will not listen
        except (OSError, asyncio.TimeoutError, asyncio.CancelledError):
            writer.transport.abort()  # it had its time: nothing waits until it reads
        finally:
            shed = task not in self._tasks
            self._tasks.pop(task, None)
            writer.close()
            self._count(connection, shed)

    def _count(self, connection: Connection | None, shed: bool) -> None:
        before = self._channel.served
        if connection is not None and connection.answered:  # it was the oldest, but it has what it needs
            self._channel.served = replace(before, answered=before.answered + 1)
        elif shed:
            self._channel.served = replace(before, shed=before.shed + 1)
        else:
            self._channel.served = replace(before, unanswered=before.unanswered + 1)


class Places:
    """Where clients are taken: the daemon's network namespace, which is place 0, and others by numbers."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._listening: dict[int, list[asyncio.Server]] = {}

    async def add(self, place: int, listeners: Sequence[socket.socket]) -> None:
        """From now on they are."""
        for item in listeners:
            item.setblocking(False)
            made = await asyncio.start_server(
                self._server.serve, sock=item, limit=2 * _CHUNK, backlog=_AT_ONCE
            )
            item.listen(_BACKLOG)  # asyncio knows one number for both
            self._listening.setdefault(place, []).append(made)

    def remove(self, place: int) -> None:
        """No more: a socket keeps its network namespace."""
        for item in self._listening.pop(place, ()):
            item.close()


async def _serve(start: Start, end: socket.socket, listeners: Sequence[socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    channel, gone = Channel(end), asyncio.Event()
    places = Places(Server(start, channel))
    await places.add(0, listeners)
    adding: set[asyncio.Task[None]] = set()

    def take() -> None:
        if not channel.take():
            loop.remove_reader(end)
            gone.set()
        for place, sockets in channel.changes:
            if not sockets:
                places.remove(place)
                continue
            task = loop.create_task(places.add(place, sockets))
            adding.add(task)
            task.add_done_callback(adding.discard)
        channel.changes.clear()

    loop.add_reader(end, take)
    while channel.beat():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(gone.wait(), _HEARTBEAT)
        if gone.is_set():
            break
    places.remove(0)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def give_up_rights() -> None:
    """No files, no other network, no user, no children. Raises OSError."""
    _check(_libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS), "unshare")
    empty = tempfile.mkdtemp(prefix="ram-ebpf-responder-")
    os.chdir(empty)
    os.rmdir(empty)  # noqa: PTH106 - of a directory that nobody can come to any more
    os.chroot(".")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit, most in (
        (resource.RLIMIT_NOFILE, min(MOST_FILES, hard)),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (most, most))
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    own_process.end_with_parent()  # not before the change of user, which would take it away


def main(arguments: Sequence[str]) -> int:
    """Serves until the daemon is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which then ends this
    end, *listeners = [socket.socket(fileno=int(number)) for number in arguments]
    start = Start.unpack(end.recv(LONGEST))
    # Whatever is imported when it is first needed must be before there are no files.
    Tls(context((start.certificate,), start.key_pem))
    "a".encode("idna")
    give_up_rights()
    end.setblocking(False)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(start, end, listeners))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
