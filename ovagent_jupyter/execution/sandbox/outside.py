"""The way to a granted host: its name resolved and checked here, by the user's proxy if any."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import h11

from ovagent_jupyter.config.hosts import HostList, Target
from ovagent_jupyter.execution.sandbox.wire import Traffic, Wire

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → addresses, best first."""
OK = 200
MOST_ADDRESSES = 4
PATIENCE = 4.0
"""Seconds after which an address that does not answer is left for the next."""
MOST_LOOKUPS = 4
"""Names resolved at once: each keeps a thread of the loop's pool, some for half a minute."""
LARGEST_HEAD = 16_384
"""Bytes of the head of a request, and of what a proxy answers to one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Why there is no connection, as the child is told."""

    status: int
    """As HTTP has it: 400 not understood, 403 not granted, 502 not reached, 504 too late."""
    text: str
    denied: Target | None = None
    """What had to be granted."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A connection to a host."""

    wire: Wire
    headers: tuple[tuple[str, str], ...] = ()
    """What the user's proxy wants with a request that it passes on itself."""
    by_proxy: bool = False
    """Whether a request has to name the whole address."""


async def resolve(host: str, port: int) -> tuple[str, ...]:
    """Ask the system for the addresses of a name.

    Raises:
        OSError: It has none.
    """
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(info[4][0]) for info in infos))


def refusal(target: Target) -> Answer:
    """The answer for what is not granted."""
    return Answer(403, f"The sandbox did not let the code reach {target}.{_remedy(target)}", target)


def _remedy(target: Target) -> str:
    return f" To allow it: %ovagent policy network {target.grant}"


class Outside:
    """Opens connections to granted hosts, and to no others.

    Args:
        hosts: What is granted.
        resolve: How names are resolved.
        environment: Where the user's own proxy is named (``HTTPS_PROXY`` and its relatives).
        seconds: How long finding and reaching a host may take.
    """

    def __init__(
        self, hosts: HostList, resolve: Resolve, environment: Mapping[str, str], seconds: float
    ) -> None:
        self._hosts = hosts
        self._resolve = resolve
        self._environment = environment
        self._seconds = seconds
        self._lookups = asyncio.Semaphore(MOST_LOOKUPS)

    async def reach(
        self, target: Target, count: Callable[[], Traffic], *, tunnel: bool
    ) -> Reached | Answer:
        """Connect to a host, or say why not.

        Args:
            target: The host.
            count: Gives where its bytes are counted, once it is known to be granted.
            tunnel: Whether bytes are passed as they are; else it is one plain request.
        """
        if not self._hosts.allows(target):
            return refusal(target)
        traffic = count()
        try:
            async with asyncio.timeout(self._seconds):
                proxy = self._proxy_for(target, tunnel=tunnel)
                if not proxy:
                    return await self._directly(target, traffic)
                return await self._by_proxy(proxy, target, traffic, tunnel=tunnel)
        except TimeoutError:
            return Answer(504, f"{target} did not answer within {self._seconds:g} s.")
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return Answer(502, f"{target} cannot be reached: {why}.")

    async def _directly(self, target: Target, traffic: Traffic) -> Reached | Answer:
        if target.address is not None:
            return Reached(Wire(await _connected([target.host], target.port), traffic))
        async with self._lookups:
            addresses = await self._resolve(target.host, target.port)
        allowed = [each for each in addresses if self._hosts.allows_address(each, target.port)]
        if not allowed and addresses:
            found = Target(addresses[0], target.port)
            text = f"{target} has the address {found.host}, which is not public.{_remedy(found)}"
            return Answer(403, text, found)
        # The addresses that were checked: resolved again, the name could have others.
        return Reached(Wire(await _connected(allowed, target.port), traffic))

    def _proxy_for(self, target: Target, *, tunnel: bool) -> str:
        names = ("https_proxy" if tunnel else "http_proxy", "all_proxy")
        value = next(filter(None, map(self._variable, names)), "")
        address = target.address
        if target.host == "localhost" or (address and address.is_loopback):
            return ""
        if proxy_bypass_environment(str(target), {"no": self._variable("no_proxy")}):
            return ""
        return value if "://" in value or not value else f"http://{value}"

    def _variable(self, name: str) -> str:
        return self._environment.get(name) or self._environment.get(name.upper(), "")

    async def _by_proxy(
        self, url: str, target: Target, traffic: Traffic, *, tunnel: bool
    ) -> Reached | Answer:
        """Connect through the user's proxy, which also resolves the name."""
        proxy = _proxy_of(url)
        if proxy is None:
            return Answer(502, "Of the proxies that HTTPS_PROXY may name only http:// ones work.")
        addresses = await resolve(proxy.host, proxy.port)
        wire = Wire(await _connected(addresses, proxy.port), traffic)
        if not tunnel:
            return Reached(wire, proxy.headers, by_proxy=True)
        status = 0
        try:
            status = await _ask_for_tunnel(wire, target, proxy.headers)
        finally:
            if status != OK:
                wire.close()
        if status != OK:
            return Answer(502, f"The proxy of this machine answered {status} for {target}.")
        return Reached(wire)


@dataclass(frozen=True, slots=True)
class _Proxy:
    host: str
    port: int
    headers: tuple[tuple[str, str], ...]


def _proxy_of(url: str) -> _Proxy | None:
    """The proxy that a URL names; what is wrong with one stays here, it may hold a password."""
    try:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            return None
        return _Proxy(parts.hostname, parts.port or 80, _authorization(parts))
    except ValueError:
        return None


def _authorization(proxy: SplitResult) -> tuple[tuple[str, str], ...]:
    if proxy.username is None:
        return ()
    user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return (("Proxy-Authorization", f"Basic {base64.b64encode(user).decode()}"),)


async def _ask_for_tunnel(wire: Wire, target: Target, headers: tuple[tuple[str, str], ...]) -> int:
    ours = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
    head = [("Host", str(target)), *headers]
    request = h11.Request(method="CONNECT", target=str(target), headers=head)
    await wire.send(ours.send(request) or b"")
    ours.send(h11.EndOfMessage())
    with contextlib.suppress(h11.RemoteProtocolError):
        while not isinstance(event := ours.next_event(), h11.Response):
            if event is h11.NEED_DATA:
                ours.receive_data(await wire.receive())
            elif isinstance(event, h11.ConnectionClosed):
                return 0
        wire.put_back(ours.trailing_data[0])
        return event.status_code
    return 0


async def _connected(addresses: Sequence[str], port: int) -> socket.socket:
    """Connect to the first of some addresses that answers.

    Raises:
        OSError: None does.
    """
    loop = asyncio.get_running_loop()
    problem = OSError("it has no address")
    tried = addresses[:MOST_ADDRESSES]
    for number, address in enumerate(tried, 1):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(PATIENCE if number < len(tried) else None):
                await loop.sock_connect(connection, (address, port))
        except OSError as error:
            connection.close()
            problem = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise problem
