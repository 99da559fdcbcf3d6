"""Which files a confined child sees: interpreter, packages, system, and what is granted."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from ovagent_jupyter.errors import ConfinementError

Kind = Literal["read", "list", "device", "write"]
"""See ``landlock.RIGHTS``; what is only listed shows the names of what lies in it."""

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "alternatives ca-certificates crypto-policies fonts host.conf ld.so.cache ld.so.conf "
    "ld.so.conf.d locale.alias localtime magic mime.types nsswitch.conf OpenCL openmpi "
    "os-release pki/ca-trust pki/tls/certs pki/tls/cert.pem pki/tls/openssl.cnf protocols R "
    "services ssl/certs ssl/openssl.cnf terminfo timezone"
)
"""Of /etc, what programs and libraries read and what says nothing of users and services."""
USERS = ("passwd", "group", "hosts")
"""Names of users and hosts; where the root is the child's own, it has versions with one each."""
KERNEL = (
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/vm/overcommit_memory",
    "/proc/uptime",
    "/proc/version",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/mm/transparent_hugepage",
)
DEVICES = ("null", "zero", "full", "random", "urandom")
SITES = ("site-packages", "dist-packages")
MOST_ITEMS = 2_000
"""Importable things looked for in one directory of ``sys.path``."""
MOST_LINKS = 40
"""Links followed on one way, as many as the kernel does: path_resolution(7)."""
ASK_INTERPRETER = (
    "import json, sys\n"
    "print(json.dumps([sys.path, [sys.prefix, sys.exec_prefix, sys.base_prefix, "
    "sys.base_exec_prefix]]))"
)


@dataclass(frozen=True, slots=True)
class Grants:
    """What a child may reach, and how its root directory is made of it."""

    pairs: tuple[tuple[str, Kind], ...]
    """Real paths and what may be done there."""
    links: tuple[tuple[str, str], ...]
    """Symbolic links on the way to them: path, and what the link says."""
    texts: tuple[tuple[str, str], ...]
    """Files of the child's own root: path, and content."""


def grants_for(
    *,
    python: str,
    environment: Mapping[str, str],
    read: Sequence[Path],
    write: Sequence[Path],
    home: Path,
    patience: float = 60.0,
) -> Grants:
    """All grants of one child.

    Args:
        python: Its interpreter.
        environment: Its environment; decides what the interpreter finds.
        read: Further files and folders to read.
        write: Folders to write to.
        home: The user's home, which no grant of ours contains.
        patience: Seconds that the interpreter may take to say where its packages are.

    Raises:
        ConfinementError: The interpreter cannot say where its packages are.
    """
    asked: list[tuple[str, Kind]] = [(path, "read") for path in (*SYSTEM, *KERNEL)]
    asked += [(f"/etc/{name}", "read") for name in (*ETC.split(), *USERS)]
    asked += [(f"/dev/{name}", "device") for name in DEVICES]
    asked += _packages(python, environment, home, patience)
    asked += [(str(path), "read") for path in read]
    asked += [(str(path), "write") for path in write]
    pairs: dict[str, Kind] = {}
    links: dict[str, str] = {}
    for path, kind in asked:
        real, passed = _walk(path)
        links |= passed
        if Path(real).exists() and (pairs.get(real) != "write" or kind == "write"):
            pairs[real] = kind
    texts = (
        ("/etc/passwd", _passwd(environment)),
        ("/etc/group", f"{_group()}\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    )
    links.setdefault("/var/tmp", "/tmp")  # noqa: S108 - its own, inside
    return Grants(tuple(_without_nested(pairs).items()), tuple(links.items()), texts)


def _packages(
    python: str, environment: Mapping[str, str], home: Path, patience: float
) -> Iterator[tuple[str, Kind]]:
    kept = tuple((name, environment.get(name, "")) for name in ("PYTHONPATH", "PYTHONUSERBASE"))
    path, prefixes = _ask(python, kept, patience)
    yield str(Path(python).parent), "list"
    yield python, "read"
    holy = [Path(each).resolve() for each in prefixes]
    for prefix in dict.fromkeys(prefixes):
        if _contains(Path(prefix).resolve(), home):
            # An interpreter installed right into the home: its parts, not the user's files.
            yield from ((f"{prefix}/{part}", "read") for part in ("bin", "lib", "lib64", "share"))
        else:
            yield prefix, "read"
    for entry in dict.fromkeys([*path, *_editable(path)]):
        place = Path(entry).resolve()
        if place == Path("/"):
            continue  # not even its names
        if any(_contains(prefix, place) for prefix in holy if not _contains(prefix, home)):
            continue
        if place.name in SITES or place.is_file():
            yield entry, "read"
        elif place.is_dir():
            yield entry, "list"
            yield from ((item, "read") for item in _importable(place))


@lru_cache(maxsize=16)
def _ask(
    python: str, variables: tuple[tuple[str, str], ...], patience: float
) -> tuple[list[str], list[str]]:
    """What the interpreter says of itself: its ``sys.path`` and its prefixes."""
    environment = {name: value for name, value in variables if value}
    try:
        done = subprocess.run(
            [python, "-P", "-c", ASK_INTERPRETER],
            env={**environment, "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=patience,
            cwd="/",
        )
        path, prefixes = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        said = getattr(error, "stderr", None) or b""
        raise ConfinementError(
            f"The interpreter {python} does not say where its packages are.",
            cause="setup_failed",
            why=f"{error} {said.decode('utf-8', 'replace').strip()[-300:]}".strip(),
            next_step="Check that it starts.",
        ) from error
    return [each for each in path if each], list(dict.fromkeys(prefixes))


def _editable(path: Iterable[str]) -> Iterator[str]:
    """Directories of packages that are installed where they are developed (PEP 610)."""
    for entry in path:
        for record in Path(entry).glob("*.dist-info/direct_url.json"):
            try:
                told = json.loads(record.read_text(encoding="utf-8"))
                url = urlsplit(str(told["url"]))
                if told.get("dir_info", {}).get("editable") and url.scheme == "file":
                    root = unquote(url.path)
                    yield from (root, f"{root}/src")
            except (OSError, ValueError, KeyError, AttributeError):
                continue


def _importable(directory: Path) -> Iterator[str]:
    """What an import can find in a directory; not the user's other files beside it."""
    try:
        with os.scandir(directory) as items:
            for _, item in zip(range(MOST_ITEMS), items, strict=False):
                package = item.is_dir() and Path(item.path, "__init__.py").is_file()
                if package or item.name.endswith((".py", ".so", ".dist-info", ".egg-info")):
                    yield item.path
    except OSError:
        return


def _contains(outer: Path, inner: Path) -> bool:
    return inner == outer or outer in inner.parents


def _walk(path: str) -> tuple[str, dict[str, str]]:
    """Where a path really leads, and the symbolic links on the way."""
    links: dict[str, str] = {}
    place = "/"
    rest = [part for part in os.path.abspath(path).split("/") if part]  # noqa: PTH100
    followed = 0
    while rest and followed < MOST_LINKS:
        step = os.path.join(place, rest.pop(0))  # noqa: PTH118 - text, so that it stays as it is
        try:
            target = os.readlink(step)  # noqa: PTH115
        except OSError:
            place = step
            continue
        links[step] = target
        followed += 1
        onward = os.path.normpath(os.path.join(place, target))  # noqa: PTH118
        rest = [part for part in onward.split("/") if part] + rest
        place = "/"
    return (place if not rest else path), links


def _without_nested(pairs: Mapping[str, Kind]) -> dict[str, Kind]:
    """The grants without those that lie in another one and give no more."""
    kept: dict[str, Kind] = {}
    for path, kind in sorted(pairs.items()):
        above = [kept[str(parent)] for parent in Path(path).parents if str(parent) in kept]
        if kind == "device" or all(_MORE[kind] > _MORE[other] for other in above):
            kept[path] = kind
    return kept


_MORE: Mapping[Kind, int] = {"device": 0, "list": 1, "read": 2, "write": 3}


def _passwd(environment: Mapping[str, str]) -> str:
    user = pwd.getpwuid(os.geteuid()).pw_name if _known() else "user"
    home = environment.get("HOME", "/")
    return f"{user}:x:{os.geteuid()}:{os.getegid()}::{home}:/bin/sh\n"


def _group() -> str:
    return f"group:x:{os.getegid()}:"


def _known() -> bool:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True
