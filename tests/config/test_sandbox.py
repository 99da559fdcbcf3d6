"""SandboxSpec: what may be granted, what a cap must leave, and which of two specs is stricter."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovagent_jupyter.config.grants import within
from ovagent_jupyter.config.hosts import HostList
from ovagent_jupyter.config.sandbox import (
    LEAST_CPU_TIME,
    LEAST_DISK,
    LEAST_FILE_SIZE,
    LEAST_MEMORY,
    LEAST_PROCESSES,
    SandboxSpec,
)
from ovagent_jupyter.errors import ConfigError

MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A home with keys, settings and data."""
    home = tmp_path / "homes" / "ann"
    for name in (".ssh", ".config/gh", ".local/share/jupyter", ".cache/x", "data", "results"):
        (home / name).mkdir(parents=True)
    for name in (".netrc", ".bashrc", "data/a.h5ad", ".ssh/id_ed25519"):
        (home / name).touch()
    return home


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8G", 8 * GIB),
        ("512M", 512 * MIB),
        ("1.5 GiB", 3 * GIB // 2),
        (" 2 gb ", 2 * GIB),
        ("1t", 1024 * GIB),
        ("1048576k", GIB),
        (str(GIB), GIB),
        (GIB, GIB),
    ],
)
def test_sizes_may_be_text(text: object, size: int) -> None:
    spec = SandboxSpec(memory=text, file_size=text, disk=text)  # type: ignore[arg-type]
    assert (spec.memory, spec.file_size, spec.disk) == (size, size, size)


@pytest.mark.parametrize("bad", ["", "G", "-1G", "8 X", "8GG", "1e9", "١G", "nan", True, 8.5, []])
@pytest.mark.parametrize("name", ["memory", "file_size", "disk"])
def test_what_is_no_size_is_refused(name: str, bad: object) -> None:
    with pytest.raises(ConfigError, match=f"{name}="):
        SandboxSpec(**{name: bad})  # type: ignore[arg-type]


LEAST: dict[str, Any] = {
    "memory": LEAST_MEMORY,
    "cpu_time": LEAST_CPU_TIME,
    "processes": LEAST_PROCESSES,
    "file_size": LEAST_FILE_SIZE,
    "disk": LEAST_DISK,
}


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_a_cap_below_what_python_needs_names_the_least(name: str, least: Any) -> None:
    assert getattr(SandboxSpec(**{name: least}), name) == least
    with pytest.raises(ConfigError, match="caps below what Python needs") as caught:
        SandboxSpec(**{name: type(least)(least - 1)})
    written = {"memory": "512M", "file_size": "16M", "disk": "64M"}.get(name, f"{least:g}")
    assert f"{written} or more" in caught.value.next_step
    assert len(caught.value.lines()) == 3


def test_paths_are_absolute_and_links_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = ["link", "~/data", tmp_path / "data"]
    spec = SandboxSpec(read=paths)  # type: ignore[arg-type]
    assert spec.read == SandboxSpec(write="data").write == (tmp_path / "data",)  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        spec.read = ()  # type: ignore[misc]


def test_no_grant_lies_where_the_code_may_put_a_link() -> None:
    spec = SandboxSpec(
        read=(Path("/data/out/a"), Path("/data"), Path("/data/out")),
        write=(Path("/data/out/b/c"), Path("/data/out"), Path("/data/outer")),
    )
    assert spec.write == (Path("/data/out"), Path("/data/outer"))
    assert spec.read == (Path("/data"),)


@pytest.mark.parametrize("bad", [7, "", "  ", [None], b"/x", "a\0b", ["/x", 1]])
def test_what_is_no_path_is_refused(bad: object) -> None:
    for name in ("read", "write"):
        with pytest.raises(ConfigError, match=f"{name}="):
            SandboxSpec(**{name: bad})  # type: ignore[arg-type]


SHORT = 3
"""Lines of an error: what, why, what next."""


def refused(spec: SandboxSpec, home: Path, ours: tuple[Path, ...] = ()) -> str:
    """The reason why a spec is refused; empty when it is not."""
    try:
        spec.check(home, ours)
    except ConfigError as error:
        return error.why if len(error.lines()) == SHORT else f"too long: {error}"
    return ""


@pytest.mark.parametrize("kind", ["read", "write"])
def test_data_may_be_granted(user: Path, kind: str) -> None:
    for name in ("data", "data/a.h5ad", "results"):
        assert not refused(SandboxSpec(**{kind: user / name}), user)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/", "whole file system"),
        ("~", "your home"),
        ("~/..", "contains your home"),
        ("~/../..", "contains your home"),
        ("~/.ssh", "keys"),
        ("~/.ssh/id_ed25519", "keys"),
        ("~/.config", "keys"),
        ("~/.config/gh", "keys"),
        ("~/.local", "contains"),
        ("~/.netrc", "Hidden files"),
        ("/proc", "system"),
        ("/proc/self", "system"),
        ("/sys/kernel", "system"),
        ("/dev", "system"),
        ("/dev/null", "system"),
        ("/etc", "system"),
        ("/etc/passwd", "system"),
    ],
)
def test_what_gives_away_more_than_data_is_refused_unless_forced(
    user: Path, kind: str, path: str, reason: str
) -> None:
    given = path.replace("~", str(user))
    if not Path(given).exists():
        pytest.fail(f"{given} is not on this machine; the case tries nothing")
    spec = SandboxSpec(**{kind: given})  # type: ignore[arg-type]
    assert reason in refused(spec, user)
    assert not refused(replace(spec, force=True), user)


def test_folders_of_all_programs_are_refused_and_those_in_them_not(tmp_path: Path) -> None:
    for path in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/home"):
        reason = refused(SandboxSpec(read=(Path(path),)), Path("/nobody"))
        assert "all programs" in reason
    assert not refused(SandboxSpec(read=(tmp_path,)), Path("/nobody"))


def test_a_link_is_as_good_as_where_it_leads(user: Path) -> None:
    leads = {"a": Path("/"), "b": user, "c": user / ".ssh", "d": user.parent}
    for name, target in leads.items():
        link = user / "data" / name
        link.symlink_to(target)
        assert refused(SandboxSpec(read=link), user)  # type: ignore[arg-type]
        below = link / "x" / ".." / "." if name == "c" else link
        assert refused(SandboxSpec(read=below), user)  # type: ignore[arg-type]
    (user / "own").symlink_to(user / "data")
    assert not refused(SandboxSpec(read=user / "own"), user)  # type: ignore[arg-type]


def test_a_folder_that_becomes_a_link_is_found_at_the_next_check(user: Path) -> None:
    spec = SandboxSpec(read=(user / "data", user / "results"))
    assert not refused(spec, user)
    (user / "results").rmdir()
    (user / "results").symlink_to(user / ".ssh")
    assert "become a link" in refused(spec, user)


def test_a_home_that_is_itself_a_link_is_known(user: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(user)
    assert refused(SandboxSpec(read=(user,)), tmp_path / "alias")
    assert refused(SandboxSpec(read=(tmp_path / "alias" / ".ssh",)), user)


def test_what_does_not_exist_is_never_forced(user: Path) -> None:
    for force in (False, True):
        spec = SandboxSpec(read=(user / "nowhere",), force=force)
        assert refused(spec, user) == "It does not exist."


def test_our_own_folders_are_refused(user: Path) -> None:
    ours = (user / "data" / "kept",)
    ours[0].mkdir()
    (ours[0] / "sessions").mkdir()
    for path in (ours[0], ours[0] / "sessions", user / "data"):
        assert "ovagent" in refused(SandboxSpec(read=(path,)), user, ours)
    assert not refused(SandboxSpec(read=(user / "results",)), user, ours)


def test_what_is_run_may_be_read_and_not_written(
    user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = tmp_path / "modules"
    (modules / "results").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(modules)])
    package = Path(__file__).parents[2] / "ovagent_jupyter"
    for path in (Path(sys.prefix), Path(os.__file__).parent, modules, package, Path("/usr/bin")):
        if Path.home() not in path.parents:
            assert not refused(SandboxSpec(read=(path,)), user)
        assert refused(SandboxSpec(write=(path,)), user)
    assert not refused(SandboxSpec(write=(modules / "results",)), user)
    assert refused(SandboxSpec(write=(user / ".bashrc",)), user)
    assert refused(SandboxSpec(write=(user / ".cache" / "x",)), user)
    assert not refused(SandboxSpec(read=(user / ".cache" / "x",)), user)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8888", "a.localhost", "127.0.0.1", "127.8.8.8:80", "[::1]:80",
             "0.0.0.0", "169.254.169.254", "[fe80::1]"],
)  # fmt: skip
def test_this_machine_is_not_granted_as_a_host_unless_forced(user: Path, host: str) -> None:
    spec = SandboxSpec(network=(host,))
    assert refused(spec, user)
    assert not refused(replace(spec, force=True), user)


@pytest.mark.parametrize(
    "host", ["example.org", "example.org:8443", "*.example.org", "EXAMPLE.org", "10.0.0.7:5432",
             "[2001:db8::1]:443"],
)  # fmt: skip
def test_hosts_may_be_granted(user: Path, host: str) -> None:
    spec = SandboxSpec(network=host)  # type: ignore[arg-type]
    assert spec.network == (host.lower(),)
    assert not refused(spec, user)


@pytest.mark.parametrize(
    "bad",
    ["", " ", "http://example.org", "example.org/x", "a b", "10.0.0.0/8", "*", "*.org", "*.*.org",
     "a.*.org", "0x7f.1", "127.1", "2130706433", "example.org:0", "example.org:65536", "a..b",
     "user@example.org", "example.org:http", "-a.org", "a\n.org", "::1/128", 7, "ex\0ample.org",
     "*.10.0.0.1", "example.org:", ":80", "[::1"],
)  # fmt: skip
def test_what_is_no_host_is_refused(bad: object) -> None:
    with pytest.raises(ConfigError, match="network"):
        SandboxSpec(network=[bad])  # type: ignore[arg-type]


def test_force_must_be_meant() -> None:
    with pytest.raises(ConfigError, match="force=1"):
        SandboxSpec(force=1)  # type: ignore[arg-type]


FOLDERS = [Path(p) for p in ("/usr", "/usr/lib", "/usr/lib/python3", "/usr/share", "/opt")]
HOSTS = ["example.org", "example.org:443", "*.example.org", "a.example.org", "*.b.example.org:443"]
SPECS = st.builds(
    SandboxSpec,
    read=st.lists(st.sampled_from(FOLDERS), max_size=3),
    write=st.lists(st.sampled_from(FOLDERS), max_size=3),
    network=st.lists(st.sampled_from(HOSTS), max_size=3),
    memory=st.none() | st.integers(LEAST_MEMORY, 4 * LEAST_MEMORY),
    cpu_time=st.none() | st.floats(LEAST_CPU_TIME, 100),
    processes=st.integers(LEAST_PROCESSES, 20),
    file_size=st.none() | st.integers(LEAST_FILE_SIZE, 2 * LEAST_DISK),
    disk=st.integers(LEAST_DISK, 2 * LEAST_DISK),
    force=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(one=SPECS, two=SPECS)
def test_the_stricter_of_two_gives_no_more_than_either(one: SandboxSpec, two: SandboxSpec) -> None:
    both = one.tightened(two)
    assert both.loosens(one) == both.loosens(two) == ()
    assert two.tightened(one).loosens(both) == both.loosens(two.tightened(one)) == ()


@settings(max_examples=100, deadline=None)
@given(spec=SPECS)
def test_a_spec_is_no_looser_than_itself(spec: SandboxSpec) -> None:
    assert spec.loosens(spec) == ()
    assert spec.tightened(spec).loosens(spec) == spec.loosens(spec.tightened(spec)) == ()


@settings(max_examples=200, deadline=None)
@given(one=SPECS, two=SPECS)
def test_what_both_allow_is_kept(one: SandboxSpec, two: SandboxSpec) -> None:
    both = one.tightened(two)
    for path in FOLDERS:
        for writes in (False, True):
            allowed = [within(path, _allowed(spec, writes=writes)) for spec in (one, two, both)]
            assert allowed[2] == (allowed[0] and allowed[1])
    for host in ["a.example.org:443", "x.b.example.org:443", "example.org:443", "example.org:80"]:
        allowed = [HostList(s.network).covers(HostList([host])) for s in (one, two, both)]
        assert allowed[2] == (allowed[0] and allowed[1])


def _allowed(spec: SandboxSpec, *, writes: bool) -> tuple[Path, ...]:
    return spec.write if writes else (*spec.read, *spec.write)


MORE: dict[str, Any] = {
    "read": ("/usr",), "write": ("/usr/lib",), "network": ("example.org",), "memory": None,
    "cpu_time": None, "processes": 21, "file_size": 101 * MIB, "disk": 101 * MIB, "force": True,
}  # fmt: skip


def test_each_field_that_gives_more_is_named() -> None:
    base = SandboxSpec(memory=GIB, cpu_time=30, processes=20, file_size=100 * MIB, disk=100 * MIB)
    assert set(MORE) == {field.name for field in fields(SandboxSpec)}
    for name, value in MORE.items():
        assert replace(base, **{name: value}).loosens(base) == (name,)
        assert base.loosens(replace(base, **{name: value})) == ()
    assert replace(base, file_size=None, disk=GIB).loosens(base) == ("file_size", "disk")
