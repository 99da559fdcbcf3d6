"""Clients of the SDKs, shared by the calls of one event loop to one address, and closed by us."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from urllib.parse import parse_qsl, urlsplit

from ovagent_jupyter.errors import ConfigError, ProviderError
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.credentials import Secret

_ENDPOINTS = ("/chat/completions", "/responses", "/messages", "/completions", "/models")
_NEAR = ("localhost", "127.", "0.0.0.0", "[::1]", "10.", "192.168.", "host.docker.internal")  # noqa: S104 - only compared
_LAST_PORT = 65535
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


class SdkClient(Protocol):
    """What clients of all SDKs can."""

    async def close(self) -> None:
        """End its connections."""
        ...


ClientT = TypeVar("ClientT", bound=SdkClient)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a client speaks to, and as whom."""

    provider: str
    """Id of the provider."""
    url: str
    """Base URL, checked, without a query."""
    query: tuple[tuple[str, str], ...] = ()
    """Sent with every call, such as Azure's ``api-version``."""
    key: Secret = field(default_factory=lambda: Secret(""))
    key_header: str = ""
    """Header of the key; empty is the wire's own."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The provider's, then the user's."""

    def sends_key_as(self, header: str) -> bool:
        """Whether the wire's own header of the key, named here, is sent, and told nowhere else."""
        told = {name.lower() for name in self.headers}
        return bool(self.key) and not self.key_header and header.lower() not in told

    def digest(self) -> str:
        """Names the address and the key without telling it."""
        told = (self.provider, self.url, self.query, self.key_header, sorted(self.headers.items()))
        return hashlib.sha256(f"{told!r}\0{self.key.reveal()}".encode()).hexdigest()


def address_of(backend: Backend) -> Address:
    """Where a backend is, checked.

    Raises:
        ConfigError: It is no address, or its key or a header cannot be sent.
    """
    url = backend.url.strip()
    _check_url(backend, url)
    bare, _, query = url.partition("?")
    headers = {**backend.provider.headers, **backend.headers}
    _check_sendable(backend, headers)
    return Address(
        provider=backend.provider.id,
        url=bare.rstrip("/") + "/",
        query=tuple(parse_qsl(query)),
        key=backend.key,
        key_header=backend.provider.key_header,
        headers=headers,
    )


def _check_url(backend: Backend, url: str) -> None:
    name = backend.provider.display_name or backend.provider.id
    variables = " or ".join(backend.provider.base_url_env)
    where = f"Set {variables}, or base_url" if variables else "Set base_url"
    if not url:
        raise ConfigError(f"{name} has no base URL.", next_step=f"{where}.")
    problem, remedy = _problem(url)
    if problem:
        shown = url.rpartition("@")[2][:120]
        raise ConfigError(
            f"The base URL {shown!r} of {name} cannot be used.",
            why=problem,
            next_step=f"{where}: {remedy}",
        )


def _problem(url: str) -> tuple[str, str]:
    """What is wrong with an address, and the remedy; both empty where nothing is."""
    example = "it looks like https://host/v1."
    if any(sign.isspace() or not sign.isprintable() for sign in url):
        return "It has white space in it.", example
    scheme, separator, _ = url.partition("://")
    if not separator:
        guess = ("http://" if url.startswith(_NEAR) else "https://") + url
        return "It has no scheme.", f"write {guess}"
    if scheme.lower() not in {"http", "https"}:
        return f"Its scheme {scheme[:20]!r} is not http or https.", example
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return f"{error}.", example
    if not host or (port is not None and not 0 < port <= _LAST_PORT):
        return "It has no host." if not host else "Its port is not one.", example
    if parts.fragment or "#" in url:
        return "It has a fragment, the part after #.", f"write {url.partition('#')[0]}"
    ending = next((end for end in _ENDPOINTS if parts.path.rstrip("/").endswith(end)), "")
    if ending:
        return "It is the address of one call, not of the service.", f"leave out {ending}."
    return "", ""


def _check_sendable(backend: Backend, headers: Mapping[str, str]) -> None:
    name = backend.provider.display_name or backend.provider.id
    key = backend.key.reveal()
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"The key of {name} has characters that no key has.",
            why="White space, a line end, or signs beyond ASCII.",
            next_step=f"Copy it again into {backend.key.source or 'its place'}.",
        )
    for header, value in headers.items():
        if not (value.isascii() and value.isprintable() and header.isascii() and header.strip()):
            raise ConfigError(
                f"The header {header!r} for {name} cannot be sent.",
                why="Its value has signs that a header cannot have.",
                next_step="Check the headers of this backend.",
            )


class _Kept:
    """A client and how many calls use it."""

    __slots__ = ("client", "loop", "making", "users")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.client: SdkClient | None = None
        self.making: asyncio.Lock = asyncio.Lock()
        """So that two calls that begin together make one client."""
        self.users = 0


_Key = tuple[int, str, str]


class Connections:
    """Gives out clients: one for each event loop and address, made when it is first needed.

    Args:
        keep: Clients that are kept without being used; the one unused for longest goes first.
    """

    def __init__(self, keep: int = 16) -> None:
        self._keep = keep
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()

    @property
    def count(self) -> int:
        """How many clients there are."""
        return len(self._kept)

    @asynccontextmanager
    async def lease(
        self, backend: Backend, make: Callable[[Address], ClientT]
    ) -> AsyncIterator[ClientT]:
        """A client for the time of one call.

        Args:
            backend: Whom it speaks to.
            make: Makes one; called in a thread, where it may import the SDK.

        Raises:
            ConfigError: The address cannot be used.
            ProviderError: The SDK is not installed.
        """
        address = address_of(backend)
        loop = asyncio.get_running_loop()
        key = (id(loop), f"{make.__module__}.{make.__qualname__}", address.digest())
        self._forget_closed_loops()
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept(loop)
        self._kept.move_to_end(key)
        kept.users += 1
        try:
            async with kept.making:
                if kept.client is None:
                    kept.client = await asyncio.to_thread(_made, backend, make, address)
            # The key names the function that made it, and so its type.
            yield kept.client  # type: ignore[misc]
        finally:
            kept.users -= 1
            await self._close_surplus()

    async def aclose(self) -> None:
        """End all connections; those of another loop that still runs are ended there."""
        here = asyncio.get_running_loop()
        kept, self._kept = list(self._kept.values()), OrderedDict()
        for each in kept:
            if each.client is None or each.loop.is_closed():
                continue
            if each.loop is here or not each.loop.is_running():
                await each.client.close()
            else:
                closing = asyncio.run_coroutine_threadsafe(_close(each.client), each.loop)
                await asyncio.wrap_future(closing)

    def _forget_closed_loops(self) -> None:
        # A copy: the loop of another thread may add to it meanwhile.
        for key, kept in list(self._kept.items()):
            if kept.loop.is_closed():
                self._kept.pop(key, None)

    async def _close_surplus(self) -> None:
        here = asyncio.get_running_loop()
        while len(self._kept) > self._keep:
            kept = list(self._kept.items())
            unused = (key for key, each in kept if not each.users and each.loop is here)
            key = next(unused, None)
            if key is None:
                return
            gone = self._kept.pop(key)
            if gone.client is not None:
                await gone.client.close()


async def _close(client: SdkClient) -> None:
    await client.close()


def _made(backend: Backend, make: Callable[[Address], ClientT], address: Address) -> ClientT:
    try:
        return make(address)
    except Exception as error:
        failure = _not_made(backend, error)
        if failure is None:
            raise
    # Raised outside of the handler: the library's own text may quote the password of a proxy.
    raise failure


def _not_made(backend: Backend, error: Exception) -> ProviderError | None:
    """Why a client cannot be made, as far as it is known: a package, or the environment."""
    if isinstance(error, ImportError):
        missing = "socksio" if "socksio" in str(error) else error.name or ""
        proxy = "A SOCKS proxy is set, which needs it." if missing == "socksio" else str(error)
        return ProviderError(
            f"The package {missing or 'of the SDK'} cannot be loaded.",
            provider=backend.provider.id,
            why=proxy,
            next_step=f"pip install {(missing or 'openai').partition('.')[0]}",
        )
    variable, why, remedy = _bad_authorities() if isinstance(error, OSError) else _bad_proxy()
    if not variable:
        return None
    return ProviderError(
        f"{variable} cannot be used, and with it no service can be reached.",
        provider=backend.provider.id,
        fault="unreachable",
        why=why,
        next_step=f"Set {variable} to {remedy}, or unset it.",
    )


def _bad_authorities() -> tuple[str, str, str]:
    """The variable of certificates that cannot be read, why, and the remedy."""
    path = os.environ.get("SSL_CERT_FILE", "")
    try:
        ssl.create_default_context(cafile=path or None)
    except OSError as error:
        why = f"{path!r} has no certificates."
        if not isinstance(error, ssl.SSLError):
            why = f"{path!r} cannot be read: {error.strerror}."
        return "SSL_CERT_FILE", why, "a file of certificates"
    return "", "", ""


def _bad_proxy() -> tuple[str, str, str]:
    """The variable of a proxy that is none, why, and the remedy; never what it has."""
    for name, value in os.environ.items():
        if name.upper() not in _PROXIES or not value:
            continue
        scheme, separator, _ = value.partition("://")
        if separator and scheme.lower() not in _PROXY_SCHEMES:
            why = f"The scheme {scheme[:20]!r} is not that of a proxy."
            return name, why, "http://host:port"
        if not _has_port(value if separator else f"http://{value}"):
            return name, "It is not the address of a proxy.", "http://host:port"
    return "", "", ""


def _has_port(url: str) -> bool:
    """Whether the port of an address, if it names one, can be read."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
