"""The list of granted hosts: what an entry covers, and which addresses a name may have."""

from __future__ import annotations

import ipaddress

import pytest

from ovagent_jupyter.config.hosts import HostList, Target, is_public, parse_target
from ovagent_jupyter.errors import ConfigError


@pytest.mark.parametrize(
    ("entry", "asked"),
    [
        ("pypi.org", "pypi.org:443"),
        ("pypi.org", "pypi.org:80"),
        ("PyPI.org.", "pypi.ORG:443"),
        ("pypi.org", "PYPI.org.:443"),
        ("pypi.org:8080", "pypi.org:8080"),
        ("*.pypi.org", "files.pypi.org:443"),
        ("*.pypi.org", "a.b.pypi.org:80"),
        ("*.pypi.org:8443", "a.pypi.org:8443"),
        ("bücher.example", "xn--bcher-kva.example:443"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example:443"),
        ("127.0.0.1:8888", "127.0.0.1:8888"),
        ("127.0.0.1:8888", "[::ffff:127.0.0.1]:8888"),
        ("::1", "[::1]:443"),
        ("[::1]:9000", "[0:0:0:0:0:0:0:1]:9000"),
        ("[2001:db8::A]", "[2001:db8::a]:80"),
        ("localhost:8888", "localhost:8888"),
    ],
)
def test_allowed(entry: str, asked: str) -> None:
    assert HostList([entry]).allows(parse_target(asked))


@pytest.mark.parametrize(
    ("entry", "asked"),
    [
        ("pypi.org", "pypi.org:22"),
        ("pypi.org:8080", "pypi.org:443"),
        ("pypi.org", "files.pypi.org:443"),
        ("pypi.org", "evilpypi.org:443"),
        ("pypi.org", "pypi.org.evil.example:443"),
        ("*.pypi.org", "pypi.org:443"),
        ("*.pypi.org", "evilpypi.org:443"),
        ("*.pypi.org:8443", "a.pypi.org:443"),
        ("localhost:8888", "127.0.0.1:8888"),
        ("127.0.0.1:8888", "localhost:8888"),
        ("127.0.0.1:8888", "127.0.0.2:8888"),
        ("::1", "[::2]:443"),
    ],
)
def test_refused(entry: str, asked: str) -> None:
    assert not HostList([entry]).allows(parse_target(asked))


def test_nothing_is_granted_by_an_empty_list() -> None:
    assert not HostList([]).allows(Target("pypi.org", 443))


@pytest.mark.parametrize(
    "entry",
    [
        *("", "*", "*.", "*.org", "*.127.0.0.1", "a.*.org", "**.pypi.org", ".pypi.org", "a..b"),
        *("https://pypi.org", "pypi.org/simple", "user@pypi.org", "pypi.org:", "pypi.org:0"),
        *("pypi.org:65536", "pypi.org:https", "pypi.org:-1", "pypi.org:٤٤٣", "pypi org", "a\nb"),
        *("127.1", "0x7f.0.0.1", "2130706433", "010.0.0.1", "1.2.3.4.5", "[::1", "::1]", "[::1]x"),
        *("[fe80::1%eth0]", "fe80::1%eth0", "faß.example", "x" * 64 + ".org", "a." * 130 + "org"),
    ],
)
def test_entry_that_is_no_host(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HostList([entry])
    assert repr(entry) in caught.value.what
    assert "*.host" in caught.value.next_step


@pytest.mark.parametrize(
    "asked",
    [
        *("127.1:80", "0x7f.0.0.1:80", "2130706433:80", "0177.0.0.1:80", "1.2.3.0x4:80"),
        *("user@pypi.org:80", "pypi.org", "pypi.org:", ":80", "[::1]", "::1:80:", "[fe80::1%2]:80"),
        *("pypi.org%00.evil:80", "pypi.org\x00:80", "bücher.example:80"),
    ],
)
def test_target_that_is_no_host(asked: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_target(asked)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1"),
        *(
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "240.0.0.1",
        ),
        *("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0.0.0.0", "::127.0.0.1"),
        *("fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1"),
        *("192.0.0.192", "168.63.129.16", "198.18.0.1", "64:ff9b:1::1"),
    ],
)
def test_address_that_no_name_may_have(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not HostList(["good.example"]).allows_address(address, 443)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "151.101.0.223", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_address_that_a_name_may_have(address: str) -> None:
    assert HostList(["good.example"]).allows_address(address, 443)


def test_address_of_a_name_that_is_granted_itself() -> None:
    hosts = HostList(["nexus.example:443", "10.0.0.1:443", "localhost:8080"])
    assert hosts.allows_address("10.0.0.1", 443)
    assert not hosts.allows_address("10.0.0.1", 80)
    assert not hosts.allows_address("10.0.0.2", 443)
    assert hosts.allows_address("127.0.0.1", 8080)
    assert hosts.allows_address("::1", 8080)
    assert not hosts.allows_address("127.0.0.1", 8081)
    assert not hosts.allows_address("nonsense", 443)


@pytest.mark.parametrize(
    ("target", "grant"),
    [
        (Target("pypi.org", 443), "pypi.org"),
        (Target("pypi.org", 8443), "pypi.org:8443"),
        (Target("::1", 80), "[::1]"),
        (Target("::1", 81), "[::1]:81"),
    ],
)
def test_grant_allows_what_it_is_for(target: Target, grant: str) -> None:
    assert target.grant == grant
    assert HostList([grant]).allows(target)
