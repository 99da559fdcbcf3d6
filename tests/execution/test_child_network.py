"""Network code in a child that knows nothing of the broker; each program in a real process."""

from __future__ import annotations

import asyncio
import http.server
import json
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from ovagent_jupyter.config.hosts import HostList
from ovagent_jupyter.execution.sandbox.network import Proxy

START = """
import json, os, sys
from ovagent_jupyter.execution import child_network
child_network.install(int(sys.argv[1]))
PORT = int(sys.argv[2])
"""


class Page(http.server.BaseHTTPRequestHandler):
    """Says what was asked for; to a POST, what it was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._say(self.path.encode())

    def do_POST(self) -> None:
        self._say(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def site(certificate: Path | None = None) -> Iterator[int]:
    """A web server on loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.daemon_threads = False
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for localhost, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(path), "-out", str(path.with_suffix(".crt"))),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@asynccontextmanager
async def proxy(*hosts: str) -> AsyncIterator[tuple[Proxy, int]]:
    """A started proxy, and the descriptor for the child."""
    started = Proxy(HostList(hosts))
    descriptor = started.start()
    try:
        yield started, descriptor
    finally:
        started.release()
        await started.close()


async def run(code: str, port: int, *hosts: str, certificate: Path | None = None) -> object:
    """What a program in a child says, as JSON in its last line."""
    async with proxy(*hosts) as (started, descriptor):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", START + code, str(descriptor), str(port)),
            *((str(certificate),) if certificate else ()),
            pass_fds=(descriptor,),
            stdout=subprocess.PIPE,
        )
        started.release()
        said, _ = await process.communicate()
        assert process.returncode == 0
        assert started.rejected == 0
    return json.loads(said.splitlines()[-1])


URLLIB = """
import urllib.request
say = lambda path, data=None: urllib.request.urlopen(f"http://localhost:{PORT}{path}", data).read()
print(json.dumps([say("/a").decode(), len(say("/b", b"x" * 1_000_000))]))
"""
HTTP_CLIENT = """
import http.client
with_names = http.client.HTTPConnection("localhost", PORT)
said = []
for path in ("/a", "/b"):
    with_names.request("GET", path)
    said.append(with_names.getresponse().read().decode())
with_names.close()
print(json.dumps([said[0], len(said[1]) * 500_000]))
"""
REQUESTS = """
import requests
with requests.Session() as session:
    url = f"http://localhost:{PORT}"
    said = [session.get(url + "/a").text, len(session.post(url, data=b"x" * 1_000_000).content)]
print(json.dumps(said))
"""
HTTPX = """
import httpx
with httpx.Client() as client:
    url = f"http://localhost:{PORT}"
    said = [client.get(url + "/a").text, len(client.post(url, content=b"x" * 1_000_000).content)]
print(json.dumps(said))
"""
HTTPX_ASYNC = """
import asyncio, httpx
async def main(trust_env):
    async with httpx.AsyncClient(trust_env=trust_env) as client:
        url = f"http://localhost:{PORT}"
        first = await asyncio.gather(*[client.get(url + "/a") for _ in range(10)])
        second = await client.post(url, content=b"x" * 1_000_000)
        return [first[-1].text, len(second.content)]
assert asyncio.run(main(True)) == asyncio.run(main(False))
print(json.dumps(asyncio.run(main(False))))
"""
ASYNCIO = """
import asyncio
async def main():
    reader, writer = await asyncio.open_connection("localhost", PORT)
    writer.write(b"GET /a HTTP/1.0\\r\\n\\r\\n")
    body = (await reader.read()).partition(b"\\r\\n\\r\\n")[2]
    writer.close()
    await writer.wait_closed()
    return [body.decode(), 1_000_000]
print(json.dumps(asyncio.run(main())))
"""
THREADS = """
import concurrent.futures, urllib.request
def say(number):
    return urllib.request.urlopen(f"http://localhost:{PORT}/{number}").read().decode()
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    said = list(pool.map(say, range(200)))
assert said == [f"/{number}" for number in range(200)], said
print(json.dumps(["/a", 1_000_000]))
"""
FORKS = """
import multiprocessing, urllib.request
def say(number):
    return urllib.request.urlopen(f"http://localhost:{PORT}/{number}").read().decode()
with multiprocessing.get_context("fork").Pool(4) as pool:
    assert pool.map(say, range(40)) == [f"/{number}" for number in range(40)]
print(json.dumps(["/a", 1_000_000]))
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, id=name.lower())
        for name, code in {
            "urllib": URLLIB,
            "http.client": HTTP_CLIENT,
            "requests": REQUESTS,
            "httpx": HTTPX,
            "httpx, asynchronous": HTTPX_ASYNC,
            "asyncio": ASYNCIO,
            "threads": THREADS,
            "forks": FORKS,
        }.items()
    ],
)
async def test_granted_host(code: str) -> None:
    with site() as port:
        assert await run(code, port, f"localhost:{port}") == ["/a", 1_000_000]


HTTPS = """
import http.client, ssl, urllib.request, urllib.error, requests, httpx
trusted = ssl.create_default_context(cafile=sys.argv[3])
url = f"https://localhost:{PORT}/a"
client = http.client.HTTPSConnection("localhost", PORT, context=trusted)
client.request("GET", "/a")
said = [
    urllib.request.urlopen(url, context=trusted).read().decode(),
    client.getresponse().read().decode(),
    requests.get(url, verify=sys.argv[3]).text,
    httpx.get(url, verify=trusted).text,
]
client.close()
import socket
late = trusted.wrap_socket(socket.socket(), server_hostname="localhost")
with late:
    late.settimeout(30)
    late.connect(("localhost", PORT))
    late.sendall(b"GET /a HTTP/1.0\\r\\n\\r\\n")
    said.append(late.makefile("rb").read().partition(b"\\r\\n\\r\\n")[2].decode())
try:
    urllib.request.urlopen(url)
except urllib.error.URLError as error:
    said.append(type(error.reason).__name__)
print(json.dumps(said))
"""


async def test_tls_is_between_child_and_host(certificate: Path) -> None:
    public = certificate.with_suffix(".crt")
    with site(certificate) as port:
        said = await run(HTTPS, port, f"localhost:{port}", certificate=public)
    assert said == ["/a"] * 5 + ["SSLCertVerificationError"]


SOCKETS = """
import select, socket
with socket.create_connection(("127.0.0.1", PORT), timeout=30) as plain:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    said = [plain.getpeername() == ("127.0.0.1", PORT), plain.family == socket.AF_INET,
            plain.gettimeout() == 30, plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0,
            not os.get_inheritable(plain.fileno()), isinstance(plain, socket.socket)]
    with plain.dup() as other:
        other.sendall(b"GET /a HTTP/1.0\\r\\n\\r\\n")
    said.append(plain.recv(4).startswith(b"HTTP"))
with socket.socket() as waiting:
    waiting.setblocking(False)
    assert waiting.connect_ex(("localhost", PORT)) == 0
    try:
        waiting.recv(1)
    except BlockingIOError:
        said.append(True)
print(json.dumps(said))
"""


async def test_sockets_look_like_tcp() -> None:
    with site() as port:
        said = await run(SOCKETS, port, f"localhost:{port}", f"127.0.0.1:{port}")
    assert said == [True] * 8


REFUSED = """
import errno, socket, urllib.request, requests, httpx, asyncio
said = []
def say(call):
    try:
        call()
    except Exception as error:
        said.append(str(error))
say(lambda: socket.create_connection(("evil.example", 443)))
say(lambda: urllib.request.urlopen("https://evil.example/"))
say(lambda: requests.get("https://evil.example/"))
say(lambda: httpx.get("https://evil.example/"))
say(lambda: asyncio.run(asyncio.open_connection("evil.example", 443)))
with socket.socket() as plain:
    assert plain.connect_ex(("evil.example", 443)) == errno.EACCES
print(json.dumps(said))
"""


async def test_refusal_names_the_grant() -> None:
    said = await run(REFUSED, 1, "good.example")
    assert isinstance(said, list)
    assert len(said) == 5
    for text in said:
        assert "%ovagent policy network evil.example" in text


NOT_TCP = """
import socket
said = []
for call in (
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    lambda: socket.create_server(("127.0.0.1", 0)),
):
    try:
        call()
    except PermissionError as error:
        said.append(error.errno)
a, b = socket.socketpair()
with a, b:
    a.sendall(b"x")
    said.append(b.recv(1).decode())
said.append(len(socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)))
said.append(socket.gethostbyname("a.example") == socket.gethostbyname("a.example"))
said.append(socket.gethostbyname("a.example") == socket.gethostbyname("b.example"))
print(json.dumps(said))
"""


async def test_what_is_not_tcp() -> None:
    assert await run(NOT_TCP, 1, "good.example") == [13, 13, "x", 1, True, False]


EXPLAINED = """
import urllib.request
def explain(error):
    return bool(child_network.explain_denied(error))
try:
    raise urllib.error.URLError(PermissionError(13, "Permission denied"))
except Exception as error:
    said = [explain(error)]
try:
    try:
        raise socket.gaierror(-3, "Temporary failure in name resolution")
    except OSError as inner:
        raise RuntimeError from inner
except Exception as error:
    said.append(explain(error))
said += [explain(ValueError("x")), explain(PermissionError(13, "Permission denied", "/etc/x"))]
print(json.dumps(said))
"""


async def test_missing_network_is_explained() -> None:
    code = f"import socket\n{EXPLAINED}"
    assert await run(code, 1, "good.example") == [True, True, False, False]


async def test_child_that_ends_leaves_no_connection() -> None:
    code = """
import socket
held = [socket.create_connection(("localhost", PORT)) for _ in range(5)]
print("[]", flush=True)
os._exit(0)
"""
    with site() as port:
        async with proxy(f"localhost:{port}") as (started, descriptor):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", START + code, str(descriptor), str(port)),
                pass_fds=(descriptor,),
                stdout=subprocess.DEVNULL,
            )
            started.release()
            assert await process.wait() == 0
            while started.open or started.listening:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.005)
