"""Programs that speak TLS, and how to have each send its ClientHello: for capture.py.

In their words PROXY stands for the proxy's host and port, ADDRESS and PORT for the same apart, and NAME for
the name that they are to say. Programs that cannot be led through a proxy connect there directly. In the tree
of a Debian suite the name leads there as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NAME = "registry.test"


@dataclass(frozen=True)
class Client:
    """A program and what it is made of.

    `debian`: the package with the program, and the one with its library; of one that each suite calls
    otherwise, the beginning. `pypi`: the project, where it is one of these.
    """

    command: Sequence[str]
    debian: Sequence[str] = ()
    pypi: str = ""


def _openssl(*options: str) -> Client:
    words = ["-proxy", "PROXY", "-connect", "NAME:443", "-servername", "NAME", *options]
    return Client(["openssl", "s_client", *words], ["openssl", "libssl3"])


def _gnutls(*options: str) -> Client:
    words = ["gnutls-cli", "--insecure", "--sni-hostname=NAME", *options, "--port=PORT", "ADDRESS"]
    return Client(words, ["gnutls-bin", "libgnutls30"])


def _nss(*options: str) -> Client:
    # -D: without a database of certificates. -o: whatever the server's.
    return Client(
        ["tstclnt", "-D", "-o", "-h", "ADDRESS", "-p", "PORT", "-a", "NAME", *options],
        ["libnss3-tools", "libnss3"],
    )


def _node() -> Client:
    text = "require('tls').connect({host: 'ADDRESS', port: PORT, servername: 'NAME'})"
    return Client(["node", "-e", text], ["nodejs"])


def _go() -> Client:
    """As programs are that are built as a module, which Debian's are not: they keep to what Go 1.20 sent."""
    text = """\
mkdir /tmp/module
cd /tmp/module
printf 'module hello\\ngo 1.24\\n' >go.mod
cat >main.go <<END
package main

import "crypto/tls"

func main() { tls.Dial("tcp", "ADDRESS:PORT", &tls.Config{ServerName: "NAME"}) }
END
HOME=/tmp PATH=/usr/bin CGO_ENABLED=0 exec go run .
"""
    return Client(["sh", "-c", text], ["golang-go"])


def _erlang() -> Client:
    text = """
        application:ensure_all_started(ssl),
        ssl:connect("ADDRESS", PORT, [{server_name_indication, "NAME"}, {verify, verify_none}], 5000),
        halt().
    """
    return Client(["erl", "-noshell", "-eval", text], ["erlang-base", "erlang-ssl"])


def _wolfssl() -> Client:
    """Debian has the library and no program."""
    text = """
import ctypes, pathlib, socket
library = ctypes.CDLL(str(next(pathlib.Path("/usr/lib/x86_64-linux-gnu").glob("libwolfssl.so.*"))))
for function in ("wolfSSLv23_client_method", "wolfSSL_CTX_new", "wolfSSL_new"):
    getattr(library, function).restype = ctypes.c_void_p
library.wolfSSL_Init()
context = ctypes.c_void_p(library.wolfSSL_CTX_new(ctypes.c_void_p(library.wolfSSLv23_client_method())))
session = ctypes.c_void_p(library.wolfSSL_new(context))
library.wolfSSL_UseSNI(session, 0, b"NAME", len("NAME"))
connection = socket.create_connection(("ADDRESS", PORT))
library.wolfSSL_set_fd(session, connection.fileno())
library.wolfSSL_connect(session)
"""
    return Client(["python3", "-c", text], ["libwolfssl-dev", "python3"])


def _mbedtls() -> Client:
    text = """
import socket
from mbedtls import tls
context = tls.ClientContext(tls.TLSConfiguration(validate_certificates=False))
context.wrap_socket(socket.create_connection(("ADDRESS", PORT)), server_hostname="NAME").do_handshake()
"""
    return Client(["python", "-c", text], pypi="python-mbedtls")


def _s2n() -> Client:
    text = """
from awscrt.http import HttpClientConnection
from awscrt import io
group = io.EventLoopGroup(1)
options = io.ClientTlsContext(io.TlsContextOptions()).new_connection_options()
options.set_server_name("NAME")
bootstrap = io.ClientBootstrap(group, io.DefaultHostResolver(group))
HttpClientConnection.new("ADDRESS", PORT, bootstrap, tls_connection_options=options).exception(20)
"""
    return Client(["python", "-c", text], pypi="awscrt")


def _grpc() -> Client:
    text = """
import grpc
channel = grpc.secure_channel("NAME:443", grpc.ssl_channel_credentials())
grpc.channel_ready_future(channel).result(20)
"""
    return Client(["python", "-c", text], pypi="grpcio")


def _firefox() -> Client:
    text = """\
mkdir -p /tmp/profile
cat >/tmp/profile/user.js <<END
user_pref("network.proxy.type", 1);
user_pref("network.proxy.ssl", "ADDRESS");
user_pref("network.proxy.ssl_port", PORT);
END
HOME=/tmp exec firefox-esr --headless --no-remote --profile /tmp/profile https://NAME/
"""
    return Client(["sh", "-c", text], ["firefox-esr"])


def _chromium() -> Client:
    options = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--user-data-dir=/tmp/profile",
    ]
    words = ["chromium-headless-shell", *options, "--proxy-server=http://PROXY", "https://NAME/"]
    return Client(words, ["chromium-headless-shell"])


def _java() -> Client:
    words = [
        "-J-Dhttps.proxyHost=ADDRESS",
        "-J-Dhttps.proxyPort=PORT",
        "-printcert",
        "-sslserver",
        "NAME:443",
    ]
    return Client(["keytool", *words], ["openjdk-17-jre-headless"])


CLIENTS: Mapping[str, Client] = {
    # Go
    "go": _go(),
    "skopeo": Client(["skopeo", "inspect", "--retry-times=0", "docker://NAME/x"], ["skopeo"]),
    "oras": Client(["oras", "manifest", "fetch", "NAME/x:1"], ["oras"]),
    "cosign": Client(["cosign", "tree", "NAME/image:1"], ["cosign"]),
    # OpenSSL
    "curl": Client(["curl", "-s", "-k", "https://NAME/"], ["curl", "libssl3"]),
    "node": _node(),
    "openssl": _openssl(),
    "openssl-tls1.2": _openssl("-tls1_2"),
    "python": Client(
        ["python3", "-c", "import urllib.request as u; u.urlopen('https://NAME/')"],
        ["python3", "libssl3"],
    ),
    # GnuTLS
    "git-gnutls": Client(
        ["git", "-c", "http.sslVerify=false", "ls-remote", "https://NAME/"], ["git", "libgnutls30"]
    ),
    "gnutls": _gnutls(),
    "gnutls-tls1.2": _gnutls("--priority=NORMAL:-VERS-ALL:+VERS-TLS1.2"),
    "wget-gnutls": Client(
        ["wget", "-q", "-t1", "--no-check-certificate", "https://NAME/"], ["wget", "libgnutls30"]
    ),
    # NSS
    "firefox": _firefox(),
    "nss": _nss(),
    "nss-tls1.0": _nss("-V", "tls1.0:tls1.0"),
    # BoringSSL
    "chromium": _chromium(),
    "grpc-boringssl": _grpc(),
    # rustls
    "uv-rustls": Client(["sh", "-c", "echo x | uv pip compile --index-url https://NAME/ -"], pypi="uv"),
    "xh-rustls": Client(["xh", "--ignore-stdin", "--verify=no", "https://NAME/"], ["xh"]),
    # others
    "botan": Client(
        ["botan", "tls_client", "NAME", "--port=PORT", "--trusted-cas=/tmp", "--skip-system-cert-store"],
        ["botan", "libbotan"],
    ),
    "erlang": _erlang(),
    "java": _java(),
    "mbedtls": _mbedtls(),
    "s2n": _s2n(),
    "wolfssl": _wolfssl(),
}
