"""Granted hosts inside a child: Python's TCP sockets become connections made by the parent.

A convenience for code that knows nothing of the confinement, and no boundary: the parent decides
what is connected. Names are not resolved here; each gets an address of a range that is nobody's,
by which the name is found again when a socket connects to it.
"""

from __future__ import annotations

import _socket
import array
import contextlib
import errno
import ipaddress
import itertools
import os
import socket
import weakref
from collections.abc import Callable
from typing import Any, Final

PROXY: Final = ("198.18.0.1", 3128)
"""Stands for the parent's proxy; 198.18.0.0/15 is reserved for measurements (RFC 2544)."""
_FIRST_NAME = int(ipaddress.IPv4Address("198.18.0.2"))
_LONGEST_HEAD = 16_384
_LONGEST_WAIT = 60.0
"""Seconds for a connection that has no time-out, or must not wait: asyncio's."""
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_PROTOCOLS = (socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.IPPROTO_TCP)
_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_NOWHERE = "198.18.0.0"
_NO_NETWORK = "The code has no network here; a host can be granted: %ovagent policy network HOST."

Address = tuple[Any, ...]


def install(descriptor: int) -> None:
    """Have the TCP connections of this process and its forks made by the parent.

    Args:
        descriptor: The child's end of the broker.
    """
    broker = Broker(descriptor)
    for name in _VARIABLES:
        os.environ[name] = "http://{}:{}".format(*PROXY)
    for name in ("ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        os.environ.pop(name, None)
    # In place, not by a class of our own: what was imported before us has the class already,
    # and the sockets of ``ssl`` inherit from it.
    for name, method in broker.methods().items():
        setattr(socket.socket, name, method)
    for name, function in broker.functions().items():
        setattr(socket, name, function)


def explain_denied(error: BaseException) -> str:
    """What an exception has to do with the missing network; empty when nothing.

    Args:
        error: What a cell raised.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, socket.gaierror) or _is_refused_socket(current):
            return _NO_NETWORK
        reason = getattr(current, "reason", None)
        following = reason if isinstance(reason, BaseException) else None
        current = following or current.__cause__ or current.__context__
    return ""


def _is_refused_socket(error: BaseException) -> bool:
    # An error of a file names the file.
    return (
        isinstance(error, PermissionError)
        and error.errno == errno.EACCES
        and error.filename is None
        and "sandbox" not in str(error.strerror)
    )


class Broker:
    """The child's end of the way to the parent, and the names that were asked for.

    Args:
        descriptor: The socket by which ends of new connections are sent to the parent.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._count = itertools.count(_FIRST_NAME)
        # A socket has no room for attributes.
        self._peers: weakref.WeakKeyDictionary[socket.socket, Address] = weakref.WeakKeyDictionary()
        self._resolve = socket.getaddrinfo

    def methods(self) -> dict[str, Callable[..., Any]]:
        """The methods of ``socket.socket`` that are replaced."""
        return {
            "__init__": self._initialiser(),
            "connect": lambda this, address: self.connect(this, address),
            "connect_ex": lambda this, address: self.connect_ex(this, address),
            "bind": lambda this, address: _bind(this, address),
            "setsockopt": lambda this, *values: _set_option(this, *values),
            "getsockopt": lambda this, *values: _option(this, *values),
            "getpeername": lambda this: self.peer(this),
            "getsockname": lambda this: _own_name(this),
        }

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The functions of ``socket`` that are replaced."""
        original = socket.gethostbyname
        return {
            "getaddrinfo": self.getaddrinfo,
            "gethostbyname": lambda name: original(self.number(name)),
        }

    def _initialiser(self) -> Callable[..., None]:
        original = socket.socket.__init__

        def initialise(
            this: socket.socket,
            family: int = -1,
            type: int = -1,
            proto: int = -1,
            fileno: int | None = None,
        ) -> None:
            wanted = socket.AF_INET if family == -1 else family
            if fileno is not None or wanted not in _INTERNET:
                original(this, family, type, proto, fileno)
                return
            kind = socket.SOCK_STREAM if type == -1 else type & 0xF
            if kind != socket.SOCK_STREAM:
                raise PermissionError(errno.EACCES, f"Only TCP leaves the sandbox. {_NO_NETWORK}")
            inner = _socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            original(this, wanted, kind, max(proto, 0), inner.detach())
            if type != -1 and type & socket.SOCK_NONBLOCK:
                this.setblocking(False)

        return initialise

    # -- connections ----------------------------------------------------------------------

    def connect(self, this: socket.socket, address: Address) -> None:
        """Connect as the parent allows.

        Raises:
            OSError: It does not.
        """
        if this.family not in _INTERNET:
            _socket.socket.connect(this, address)
            return
        host, port = self._name_of(str(address[0])), int(address[1])
        ours = self._open()
        try:
            if (host, port) != PROXY:
                wait = this.gettimeout()
                ours.settimeout(wait if wait else _LONGEST_WAIT)
                _ask_for_tunnel(ours, host, port)
            # The number stays: a selector or a wrapper may know it already.
            os.dup2(ours.fileno(), this.fileno(), inheritable=this.get_inheritable())
            os.set_blocking(this.fileno(), this.gettimeout() is None)
        finally:
            ours.close()
        self._peers[this] = (host, port, *address[2:])

    def connect_ex(self, this: socket.socket, address: Address) -> int:
        """Connect; the number of the error instead of an exception."""
        try:
            self.connect(this, address)
        except OSError as error:
            if error.errno is None:
                raise
            return error.errno
        return 0

    def peer(self, this: socket.socket) -> Any:
        """What a socket is connected to."""
        name = _socket.socket.getpeername(this)
        if this.family not in _INTERNET:
            return name
        return self._peers.get(this, (_NOWHERE, 0))

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        rights = array.array("i", [theirs.fileno()])
        broker = socket.socket(fileno=self._descriptor)
        try:
            broker.setblocking(True)  # a default time-out would make it give up
            broker.sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except BaseException:
            ours.close()
            raise
        finally:
            broker.detach()
            theirs.close()
        return ours

    # -- names ----------------------------------------------------------------------------

    def getaddrinfo(  # noqa: PLR0917 - those of the function that it replaces
        self,
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Addresses of a name, as ``socket.getaddrinfo`` has them."""
        if not flags & socket.AI_NUMERICHOST:
            host = self.number(host)
        return self._resolve(host, port, family, type, proto, flags)

    def number(self, host: Any) -> Any:
        """The address that stands for a name; what is none is returned as it is."""
        if isinstance(host, bytes | bytearray):
            host = host.decode("ascii")
        if not host or not isinstance(host, str) or host == socket.gethostname():
            return host
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host)
            return host
        name = host if host.isascii() else host.encode("idna").decode("ascii")
        # Without a lock, which a fork could inherit taken: a number may be lost, no name is.
        number = self._numbers.setdefault(name, next(self._count))
        self._names[number] = name
        return str(ipaddress.IPv4Address(number))

    def _name_of(self, host: str) -> str:
        with contextlib.suppress(ValueError):
            return self._names.get(int(ipaddress.IPv4Address(host)), host)
        return host


def _ask_for_tunnel(ours: socket.socket, host: str, port: int) -> None:
    """Ask the parent for a tunnel.

    Raises:
        OSError: There is none.
    """
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    ours.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("ascii"))
    head = b""
    # Byte by byte: what follows belongs to whoever reads this socket.
    while not head.endswith(b"\r\n\r\n") and len(head) < _LONGEST_HEAD:
        byte = ours.recv(1)
        if not byte:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "The parent closed the connection.")
        head += byte
    _, status, reason = head.split(b"\r\n", 1)[0].decode("ascii").split(" ", 2)
    if status == "403":
        raise PermissionError(errno.EACCES, reason)
    if status == "504":
        raise TimeoutError(errno.ETIMEDOUT, reason)
    if status != "200":
        raise ConnectionRefusedError(errno.ECONNREFUSED, reason)


def _bind(this: socket.socket, address: Any) -> None:
    if this.family in _INTERNET:
        raise PermissionError(errno.EACCES, "Nothing in the sandbox can be reached from outside.")
    _socket.socket.bind(this, address)


def _set_option(this: socket.socket, *values: Any) -> None:
    if not (this.family in _INTERNET and values[0] in _PROTOCOLS):
        _socket.socket.setsockopt(this, *values)


def _option(this: socket.socket, level: int, option: int, length: int = 0) -> Any:
    if not (this.family in _INTERNET and level in _PROTOCOLS):
        return _socket.socket.getsockopt(this, level, option, *([length] if length else []))
    return bytes(length) if length else 0


def _own_name(this: socket.socket) -> Any:
    name = _socket.socket.getsockname(this)
    return name if this.family not in _INTERNET else (_NOWHERE, 0)
