"""Makes the key of the responder and the certificate that shows the message, in a process that ends then.

    python -m ram_ebpf.responder.message NAME [ORGANIZATION]

So the daemon does without cryptography, but where it has an authority. A Start (channel.py) goes to standard
output, and what is wrong to standard error.
"""

from __future__ import annotations

import subprocess
import sys

from ram_ebpf import own_process
from ram_ebpf.responder.channel import ChannelError, Start

_PATIENCE = 60.0  # seconds; a guest without acceleration is slow


class MessageError(RuntimeError):
    """It could not be made; the text says what to do."""


def make(name: str, organization: str | None) -> Start:
    """Has it made. Raises MessageError where what that needs cannot be loaded, and OSError."""
    words = (name,) if organization is None else (name, organization)
    try:
        done = subprocess.run(
            own_process.command("ram_ebpf.responder.message", *words),
            cwd=own_process.DIRECTORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=own_process.environment(),
            check=True,
            timeout=_PATIENCE,
        )
        return Start.unpack(done.stdout)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip() or f"it ended with status {error.returncode}"
        raise MessageError(_cure(said.rpartition("\n")[2])) from error
    except (subprocess.TimeoutExpired, ChannelError) as error:
        raise MessageError(_cure(str(error))) from error


def _cure(why: str) -> str:
    return f"what it needs cannot be loaded, reinstall cryptography and pyopenssl: {why}"


def main(name: str, organization: str | None = None) -> None:
    """As a program."""
    from ram_ebpf.responder import certificates

    key = certificates.new_key()
    shown = certificates.message_certificate(name, organization, key)
    made = Start(certificates.key_pem(key), certificates.to_der(shown))
    sys.stdout.buffer.write(made.pack())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BaseException as problem:  # cryptography's library is in Rust, whose panics are no Exception
        print(problem, file=sys.stderr)
        raise SystemExit(1) from None
