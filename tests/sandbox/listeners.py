"""Services of the user that a child must not reach: they keep what they hear."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from pathlib import Path
from typing import Any

UDPLITE = 136
"""IPPROTO_UDPLITE of in.h."""


class Listeners:
    """One socket of each kind, served by one thread.

    Args:
        place: A directory for sockets with a path, such as the one of an SSH agent.
        word: A random word for abstract names.
    """

    def __init__(self, place: Path, word: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.facts: dict[str, Any] = {}
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        stream, datagram, packet = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET
        self._inet("tcp", socket.AF_INET, stream, 0, "127.0.0.1")
        self._inet("tcp6", socket.AF_INET6, stream, 0, "::1")
        self._inet("udp", socket.AF_INET, datagram, 0, "127.0.0.1")
        self._inet("udp6", socket.AF_INET6, datagram, 0, "::1")
        self._inet("udplite", socket.AF_INET, datagram, UDPLITE, "127.0.0.1")
        self._unix("agent", stream, str(place / "ssh-agent"))
        self._unix("log", datagram, str(place / "log"))
        self._unix("packets", packet, str(place / "packets"))
        self._unix("abstract", stream, f"\0{word}-stream")
        self._unix("abstract_log", datagram, f"\0{word}-datagram")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def got(self, tag: str) -> str:
        """Where a word of an attack was heard, or nothing."""
        until = time.monotonic() + 0.1  # what was sent is still on its way to our thread
        while time.monotonic() < until:
            places = {name for name, data in list(self.heard) if tag.encode() in data}
            if places:
                return f"heard on {', '.join(sorted(places))}"
            time.sleep(0.02)
        return ""

    def close(self) -> None:
        """Close all of them."""
        self._stopped.set()
        self._thread.join()
        for listener in self._sockets:
            listener.close()
        self._selector.close()

    def _inet(self, name: str, family: int, kind: int, protocol: int, host: str) -> None:
        with contextlib.suppress(OSError):
            listener = socket.socket(family, kind, protocol)
            self._keep(name, listener, (host, 0))
            self.facts[name] = listener.getsockname()[1]

    def _unix(self, name: str, kind: int, address: str) -> None:
        listener = socket.socket(socket.AF_UNIX, kind)
        self._keep(name, listener, address)
        self.facts[name] = address

    def _keep(self, name: str, listener: socket.socket, address: Any) -> None:
        self._sockets.append(listener)
        listener.bind(address)
        if listener.type != socket.SOCK_DGRAM:
            listener.listen(16)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, name)

    def _serve(self) -> None:
        while not self._stopped.is_set():
            for key, _ in self._selector.select(0.05):
                listener = key.fileobj
                assert isinstance(listener, socket.socket)
                with contextlib.suppress(OSError):
                    self._hear(str(key.data), listener)

    def _hear(self, name: str, listener: socket.socket) -> None:
        if listener.type == socket.SOCK_DGRAM or name.startswith("from "):
            data = listener.recv(65_536)
            self.heard.append((name, data))
            if not data and listener.type != socket.SOCK_DGRAM:
                self._selector.unregister(listener)
                listener.close()
            return
        connection, _ = listener.accept()
        connection.setblocking(False)
        self.heard.append((name, b"a connection"))
        self._sockets.append(connection)
        self._selector.register(connection, selectors.EVENT_READ, f"from {name}")
