"""Where this host's clients look for authorities that they trust: Debian's store, and that of single
registries in the settings of Docker and podman (certs.d)."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FILE_NAME = "ram-ebpf.crt"
_COMMAND = "update-ca-certificates"
# containers-certs.d(5), and "Verify repository client with certificates" of Docker's documentation.
_CERTS_D = (Path("etc/containers/certs.d"), Path("etc/docker/certs.d"))
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,250}[a-z0-9])?(?::[0-9]{1,5})?")
_PATIENCE = 120.0  # seconds


class TrustError(RuntimeError):
    """It cannot be installed; the text says what to do."""


@dataclass(frozen=True)
class TrustStore:
    """That of the host, or of what is below another root."""

    root: Path = Path("/")

    @property
    def directory(self) -> Path:
        """Of Debian's local authorities (update-ca-certificates(8))."""
        return self.root / "usr/local/share/ca-certificates"

    def install(self, pem: bytes, hosts: Sequence[str]) -> Iterator[str]:
        """Puts the certificate where it is looked for, and says what it did. Twice is as good as once.

        Raises TrustError where there is no such store, OSError where it cannot write.
        """
        if not self.directory.is_dir() or shutil.which(_COMMAND) is None:
            raise TrustError(
                f"there is no {_COMMAND} here: install ca-certificates, or add the certificate to this "
                "distribution's store by its own means"
            )
        for folder in self._of_hosts(hosts):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            yield from _put(folder / FILE_NAME, pem)
        path = self.directory / FILE_NAME
        changed = list(_put(path, pem))
        yield from changed
        if changed:
            yield self._update()

    def uninstall(self) -> Iterator[str]:
        """Takes it away from everywhere, and says what it did. Raises as install() does."""
        for top in _CERTS_D:
            for path in sorted((self.root / top).glob(f"*/{FILE_NAME}")):
                path.unlink()
                with contextlib.suppress(OSError):  # others' files are in there
                    path.parent.rmdir()
                yield f"removed {path}"
        path = self.directory / FILE_NAME
        if path.exists():
            path.unlink()
            yield f"removed {path}"
            yield self._update("--fresh")  # or links to what is gone would stay

    def installed(self) -> list[Path]:
        """The files that are ours."""
        found = [path for top in _CERTS_D for path in sorted((self.root / top).glob(f"*/{FILE_NAME}"))]
        path = self.directory / FILE_NAME
        return [*found, path] if path.exists() else found

    def _of_hosts(self, hosts: Sequence[str]) -> list[Path]:
        for host in hosts:
            if not _HOST.fullmatch(host) or ".." in host:
                raise TrustError(f"{host!r} is no registry: write a host, with :PORT where it is not 443")
        return [self.root / top / host for host in hosts for top in _CERTS_D]

    def _update(self, *options: str) -> str:
        command = [_COMMAND, *options]
        if self.root != Path("/"):
            command += [
                "--localcertsdir",
                str(self.directory),
                "--etccertsdir",
                str(self.root / "etc/ssl/certs"),
            ]
            command += ["--certsconf", str(self.root / "etc/ca-certificates.conf")]
            command += ["--hooksdir", str(self.root / "etc/ca-certificates/update.d")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise TrustError(f"{_COMMAND} has not ended within {_PATIENCE:.0f} s") from error
        if done.returncode != 0:
            raise TrustError(f"{_COMMAND} failed: {(done.stderr or done.stdout).strip()}")
        return f"ran {_COMMAND}"


def _put(path: Path, content: bytes) -> Iterator[str]:
    """Whole or not at all, and only where it is not there yet."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == content:
            return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".ram-ebpf-", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    yield f"wrote {path}"
