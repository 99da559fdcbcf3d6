"""Which hosts may be granted: how they are written, and which grants cover which."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ovagent_jupyter.config.values import members
from ovagent_jupyter.errors import ConfigError

WEB_PORTS = (80, 443)
"""Ports of an entry that names none."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_NAME = 253
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: an IPv4 address in the last 32 bits."""
_SERVICES = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # RFC 6890; a metadata service has an address of it
            "168.63.129.16/32",  # a public one by which a virtual machine reaches its own host
            "64:ff9b:1::/48",  # RFC 8215: translated to addresses of the local network
        ),
    )
)
"""Near, though not every Python's tables have them."""
_AMBIGUOUS = re.compile("[ßς\u200c\u200d]")
"""IDNA 2003 and 2008 make different names of these (RFC 5894, 7.2)."""


@dataclass(frozen=True, slots=True)
class Target:
    """One port of one host, as it is compared: lower case, ASCII, addresses in their short form."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def grant(self) -> str:
        """The entry of ``SandboxSpec.network`` that allows it."""
        if self.port not in WEB_PORTS:
            return str(self)
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def address(self) -> Address | None:
        """The address, when the host is one."""
        return address_of(self.host)


def parse_target(text: str, default_port: int | None = None) -> Target:
    """Read ``host:port``, ``[address]:port``, or only a host when there is a default port.

    Raises:
        ValueError: It is nothing of the kind.
    """
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, ""
    if not port:
        if default_port is None or colon:
            raise ValueError(f"{text!r} has no port")
        return Target(plain_host(host), default_port)
    return Target(plain_host(host), _port(port))


def plain_host(text: str) -> str:
    """The one spelling of a name or an address by which hosts are compared.

    Raises:
        ValueError: It is neither.
    """
    if text.startswith("[") and text.endswith("]"):
        address: Address = ipaddress.IPv6Address(text[1:-1])
        if "%" in text:
            raise ValueError("a zone is not allowed")
        return str(unwrapped(address))
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # Resolvers take 127.1, 0x7f.1 and 2130706433 for addresses; here only one spelling is.
        return str(ipaddress.IPv4Address(name))
    if len(name) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{text!r} is no host name")
    return name


def address_of(host: str) -> Address | None:
    """The address that a text is, or None."""
    try:
        return unwrapped(ipaddress.ip_address(host))
    except ValueError:
        return None


def unwrapped(address: Address) -> Address:
    """The IPv4 address in ``::ffff:a.b.c.d``, which the system connects to; others as they are."""
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def is_public(address: Address) -> bool:
    """Whether it is of the open network: not this machine, its network, or a metadata service."""
    address = unwrapped(address)
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        inner = address.sixtofour or (address.teredo and address.teredo[1])
        if address.scope_id or address.is_site_local or (inner and not is_public(inner)):
            return False
    if any(address in network for network in _SERVICES):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class HostList:
    """The hosts that are granted; what is not on the list is refused.

    Args:
        entries: ``host`` (ports 80 and 443), ``host:port``, or either with ``*.`` in front, which
            covers the subdomains but not the name itself. Addresses are reached only when they
            are listed as such.

    Raises:
        ConfigError: An entry names no host.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        exact: set[Target] = set()
        below: set[Target] = set()
        for entry in entries:
            wildcard = entry.startswith("*.")
            (below if wildcard else exact).update(_targets(entry, entry.removeprefix("*.")))
            if wildcard:
                _check_wildcard(entry)
        self._exact = frozenset(exact)
        self._below = frozenset(below)

    def allows(self, target: Target) -> bool:
        """Whether it is granted."""
        if target in self._exact:
            return True
        return target.address is None and self._allows_below(target)

    def _allows_below(self, target: Target) -> bool:
        labels = target.host.split(".")
        parents = (".".join(labels[start:]) for start in range(1, len(labels)))
        return any(Target(parent, target.port) in self._below for parent in parents)

    def covers(self, other: HostList) -> bool:
        """Whether all that the other allows is allowed by this one."""
        below = (Target(f"any.{target.host}", target.port) for target in other._below)
        return all(self._allows_below(target) for target in below) and all(
            self.allows(target) for target in other._exact
        )

    def allows_address(self, address: str, port: int) -> bool:
        """Whether a granted name may have this address.

        Anybody can let a name of theirs point to the user's own machine or network; such an
        address must be granted itself.
        """
        found = address_of(address)
        if found is None:
            return False
        granted = {Target(str(found), port)}
        if found.is_loopback:
            granted.add(Target("localhost", port))
        return is_public(found) or not granted.isdisjoint(self._exact)


def _targets(entry: str, text: str) -> list[Target]:
    try:
        if ":" in text and address_of(text) is not None:
            text = f"[{text}]"
        host, colon, port = text.rpartition(":")
        if not colon or text.endswith("]"):
            host, port = text, ""
        elif not port:
            raise ValueError("no port follows the colon")
        host = plain_host(_ascii(host))
        return [Target(host, each) for each in ([_port(port)] if port else WEB_PORTS)]
    except ValueError as error:
        raise _no_host(entry, str(error)) from None


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    if _AMBIGUOUS.search(host.lower()):
        raise ValueError("it may mean two names; write it in its xn-- form")
    return host.encode("idna").decode("ascii")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len("65535")):
        raise ValueError(f"{text!r} is no port")
    port = int(text)
    if not 0 < port < 1 << 16:
        raise ValueError(f"{text!r} is no port")
    return port


def _check_wildcard(entry: str) -> None:
    host = _targets(entry, entry.removeprefix("*."))[0].host
    if "." not in host or address_of(host):
        raise _no_host(entry, "it would cover names of strangers")


def _no_host(entry: str, why: str) -> ConfigError:
    return ConfigError(
        f"network={entry!r} cannot be used.",
        why=f"{why[:1].upper()}{why[1:]}.",
        next_step='Write "host" (ports 80 and 443), "host:port", or "*.host" for its subdomains.',
    )


def parse_hosts(value: object) -> tuple[str, ...]:
    """A list of hosts, checked and in lower case, without repeats.

    Raises:
        ConfigError: One of them cannot be used.
    """
    found = []
    for member in members("network", value, "Use names such as 'example.org', in a list."):
        if not isinstance(member, str):
            raise _no_host(str(member), "it is no text")
        entry = member.strip().lower()
        HostList([entry])
        found.append(entry)
    return tuple(dict.fromkeys(found))


def why_inside(entry: str) -> str:
    """Why a host is this machine itself; empty when it is not."""
    host = _targets(entry, entry.removeprefix("*."))[0].host
    if host == "localhost" or host.endswith(".localhost"):
        return "It is this machine."
    address = address_of(host)
    if address is None:
        return ""
    if address.is_loopback or address.is_unspecified:
        return "It is this machine."
    return "Machines in a cloud get their keys there." if address.is_link_local else ""
