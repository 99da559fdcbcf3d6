"""The Seatbelt profile as text, read and judged by a small reader of its language."""

from __future__ import annotations

import errno
import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovagent_jupyter.execution.sandbox import macos
from ovagent_jupyter.execution.sandbox.grants import Grants, Kind

HOME = Path("/Users/ada")
VENV = "/Users/ada/project/.venv"
ROOT = "/private/var/folders/x/ovagent-child-1"
SOCKET = Path("/private/var/folders/x/run/k-1")
PAIRS: tuple[tuple[str, Kind], ...] = (
    ("/usr", "read"),
    ("/bin", "read"),
    (VENV, "read"),
    ("/Users/ada/project", "list"),
    ("/Users/ada/data/pbmc.h5ad", "read"),
    ("/dev/null", "device"),
    (f"{ROOT}/work", "write"),
    (f"{ROOT}/work/input", "read"),
)

TOKEN = re.compile(r'\s*(?:([()\'])|(#?"(?:\\.|[^"\\])*")|([^\s()"\']+))', re.DOTALL)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}

Form = list[Any]
"""A list of forms, names and ``Text``."""


class Text(str):
    """A string of the profile, to tell it from a name."""

    __slots__ = ()


def tokens_of(profile: str) -> Iterator[str | Text]:
    place = 0
    while place < len(profile.rstrip()):
        match = TOKEN.match(profile, place)
        assert match is not None, f"unreadable: {profile[place : place + 40]!r}"
        place = match.end()
        mark, text, name = match.groups()
        if text and text.startswith("#"):
            yield Text(text[2:-1])
        elif text:
            yield Text(re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), text[1:-1], flags=re.S))
        elif mark != "'":
            yield mark or name


def read_profile(profile: str) -> Form:
    """The profile's forms; fails when brackets do not match."""
    stack: list[Form] = [[]]
    for token in tokens_of(profile):
        if token == "(" and not isinstance(token, Text):
            stack.append([])
        elif token == ")" and not isinstance(token, Text):
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    (forms,) = stack
    return forms


def decide(forms: Form, operation: str, subject: str = "") -> bool:
    """Whether the profile allows an operation: the last rule that matches decides."""
    allowed = True
    for form in forms:
        if form[0] not in {"allow", "deny"}:
            continue
        operations = [each for each in form[1:] if isinstance(each, str)]
        filters = [each for each in form[1:] if isinstance(each, list)]
        if operations != ["default"]:
            if not any(fnmatch.fnmatchcase(operation, each) for each in operations):
                continue
            if filters and not any(applies(each, subject) for each in filters):
                continue
        allowed = form[0] == "allow"
    return allowed


def applies(rule: Form, subject: str) -> bool:
    name, value = rule
    match name:
        case "literal" | "global-name" | "sysctl-name" | "target":
            return bool(subject == value)
        case "subpath":
            return PurePosixPath(subject).is_relative_to(value)
        case "sysctl-name-prefix":
            return subject.startswith(value)
        case "ipc-posix-name-regex":
            return re.search(value, subject) is not None
    raise AssertionError(f"unknown filter {name}")


def profile_of(*pairs: tuple[str, Kind], home: Path = HOME) -> str:
    grants = Grants(pairs or PAIRS, (("/tmp", "private/tmp"),), ())
    return macos.profile_for(grants, home=home, sockets=[SOCKET])


@pytest.fixture
def forms() -> Form:
    return read_profile(profile_of())


def test_nothing_is_allowed_before_everything_is_denied(forms: Form) -> None:
    assert forms[0] == ["version", "1"]
    assert forms[1] == ["deny", "default"]
    assert len([form for form in forms if "default" in form]) == 1


def test_the_interpreter_and_the_granted_files_are_readable(forms: Form) -> None:
    for path in (
        "/usr/lib/libSystem.B.dylib",
        f"{VENV}/bin/python",
        "/Users/ada/data/pbmc.h5ad",
        "/System/Library/Frameworks/Accelerate.framework/Accelerate",
    ):
        assert decide(forms, "file-read-data", path), path
        assert decide(forms, "file-map-executable", path), path
        assert not decide(forms, "file-write-data", path), path
        assert not decide(forms, "file-write-unlink", path), path


@pytest.mark.parametrize(
    "path",
    [
        "/Users/ada/.ssh/id_ed25519",
        "/Users/ada/Library/Keychains/login.keychain-db",
        "/Users/ada/project/.env",
        "/Users/ada/data/other.h5ad",
        "/Users/ada/data/pbmc.h5ad.key",
        "/Users/ada/project/.venv2/secret",
        "/Users/bob/x",
        f"{ROOT}/canary",
        f"{ROOT}/works/x",
        "/private/etc/master.passwd",
        "/private/var/folders/x/run/kernel.json",
        "/Volumes/backup/x",
    ],
)
@pytest.mark.parametrize(
    "operation",
    ["file-read-data", "file-write-data", "file-write-create", "process-exec", "file-ioctl"],
)
def test_what_is_not_granted_is_refused(forms: Form, path: str, operation: str) -> None:
    assert not decide(forms, operation, path)


def test_a_folder_that_is_listed_shows_names_only(forms: Form) -> None:
    assert decide(forms, "file-read-data", "/Users/ada/project")
    assert not decide(forms, "file-read-data", "/Users/ada/project/notes.md")
    assert not decide(forms, "file-read-metadata", "/Users/ada/project/notes.md")


def test_paths_can_be_resolved(forms: Form) -> None:
    for path in ("/Users", "/Users/ada", "/Users/ada/data", "/private/var/folders/x", "/tmp"):
        assert decide(forms, "file-read-metadata", path), path
        assert not decide(forms, "file-read-data", path), path


def test_it_writes_to_its_own_folders_only(forms: Form) -> None:
    assert decide(forms, "file-write-create", f"{ROOT}/work/out.h5ad")
    assert decide(forms, "file-read-data", f"{ROOT}/work/out.h5ad")
    assert not decide(forms, "file-write-create", f"{ROOT}/out.h5ad")


def test_a_program_it_has_written_is_not_executed(forms: Form) -> None:
    assert decide(forms, "process-exec", "/bin/sh")
    assert decide(forms, "process-exec", f"{VENV}/bin/python")
    assert not decide(forms, "process-exec", f"{ROOT}/work/evil")


def test_set_id_bits_are_never_given(forms: Form) -> None:
    assert not decide(forms, "file-write-setugid", f"{ROOT}/work/x")


def test_devices(forms: Form) -> None:
    assert decide(forms, "file-write-data", "/dev/null")
    assert not decide(forms, "file-write-data", "/dev/disk0")
    assert not decide(forms, "file-read-data", "/dev/tty")


@pytest.mark.parametrize(
    ("operation", "subject"),
    [
        ("network-outbound", "/private/var/run/mDNSResponder"),
        ("network-outbound", "*:443"),
        ("network-outbound", str(SOCKET)),
        ("network-bind", f"{ROOT}/work/s"),
        ("network-inbound", "/private/var/folders/x/run/k-2"),
        ("network-inbound", "localhost:8888"),
        ("system-socket", ""),
        ("mach-lookup", "com.apple.securityd.xpc"),
        ("mach-lookup", "com.apple.coreservices.launchservicesd"),
        ("mach-lookup", "com.apple.pasteboard.1"),
        ("mach-register", "x"),
        ("mach-priv-task-port", "others"),
        ("appleevent-send", "com.apple.finder"),
        ("signal", "others"),
        ("process-info-pidinfo", "others"),
        ("process-info-listpids", "others"),
        ("sysctl-read", "kern.procargs2"),
        ("sysctl-write", "kern.hostname"),
        ("ipc-posix-shm-read-data", "apple.shm.notification_center"),
        ("ipc-posix-sem", "/other"),
        ("ipc-sysv-shm", ""),
        ("iokit-open", "IOHIDLibUserClient"),
        ("pseudo-tty", ""),
        ("job-creation", ""),
        ("nvram-set", ""),
        ("system-fsctl", ""),
        ("lsopen", ""),
        ("user-preference-read", "x"),
    ],
)
def test_what_reaches_beyond_it_is_refused(forms: Form, operation: str, subject: str) -> None:
    assert not decide(forms, operation, subject)


@pytest.mark.parametrize(
    ("operation", "subject"),
    [
        ("network-inbound", str(SOCKET)),
        ("mach-lookup", "com.apple.system.opendirectoryd.libinfo"),
        ("signal", "same-sandbox"),
        ("process-fork", ""),
        ("sysctl-read", "hw.ncpu"),
        ("ipc-posix-sem", "/mp-a1b2c3d4"),
        ("ipc-posix-shm-read-data", "/psm_a1b2c3d4"),
    ],
)
def test_what_it_needs_is_allowed(forms: Form, operation: str, subject: str) -> None:
    assert decide(forms, operation, subject)


def test_no_rule_opens_the_network_or_every_service(forms: Form) -> None:
    for form in forms:
        if form[0] != "allow":
            continue
        assert not {"network*", "network-outbound", "network-bind", "default"} & set(form[1:2])
        if form[1] in {"mach-lookup", "sysctl-read", "signal", "network-inbound"}:
            assert all(isinstance(each, list) for each in form[2:])
            assert len(form) > 2


def test_the_home_is_refused_before_anything_in_it_is_granted() -> None:
    lines = profile_of().splitlines()
    denied = lines.index('(deny file* process-exec* (subpath "/Users/ada"))')
    granted = [n for n, line in enumerate(lines) if VENV in line and line.startswith("(allow")]
    assert granted
    assert min(granted) > denied
    assert not decide(read_profile(profile_of(("/usr", "read"))), "file-read-data", "/Users/ada/x")


def test_grants_add_to_each_other_in_any_order() -> None:
    pairs: list[tuple[str, Kind]] = [("/d/w", "write"), ("/d", "read"), ("/d/w/list", "list")]
    for order in (pairs, pairs[::-1]):
        forms = read_profile(profile_of(*order))
        assert decide(forms, "file-write-create", "/d/w/x")
        assert not decide(forms, "file-write-create", "/d/x")


names = st.text(st.characters(exclude_characters="\0/", exclude_categories=("Cs",)), min_size=1)
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_a_string_is_read_back_as_it_was(text: str) -> None:
    assert list(tokens_of(macos.quoted(text))) == [text]
    assert "\n" not in macos.quoted(text)


@given(paths, st.sampled_from(["read", "list", "device", "write"]))
def test_no_path_can_add_a_rule(path: str, kind: Kind) -> None:
    def shape(form: Any) -> Any:
        if isinstance(form, list):
            return [shape(each) for each in form]
        return "text" if isinstance(form, Text) else form

    parts = path.count("/")
    plain = "/" + "/".join(f"p{n}" for n in range(parts))
    made, expected = (read_profile(profile_of((each, kind))) for each in (path, plain))
    # The folders above are sorted into one rule with that of the links; only their number counts.
    assert [shape(form) for form in made] == [shape(form) for form in expected]


@pytest.mark.parametrize(
    "path",
    ['/d") (allow default) (literal "', "/d\\", '/d\\") (allow file* (subpath "/', "/d\n(allow x)"],
)
def test_a_hostile_name_stays_a_name(path: str) -> None:
    forms = read_profile(profile_of((path, "read")))
    assert decide(forms, "file-read-data", f"{path}/x")
    assert not decide(forms, "file-read-data", "/private/etc/x")


def test_undecodable_names_reach_the_system_as_they_are() -> None:
    name = b"/d/\xff".decode("utf-8", "surrogateescape")
    profile = profile_of((name, "read"))
    # As the plan travels to the process that applies it.
    assert json.loads(json.dumps(profile)).encode("utf-8", "surrogateescape").count(b"\xff") >= 1


@pytest.mark.skipif(sys.platform == "darwin", reason="would confine the test run itself")
def test_elsewhere_it_says_that_there_is_no_seatbelt() -> None:
    with pytest.raises(OSError, match="no Seatbelt") as caught:
        macos.apply("(version 1)")
    assert caught.value.errno == errno.ENOSYS
    assert not macos.cannot_connect()


def test_what_the_supervisor_imports_is_cheap() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r}); "
        "before = set(sys.modules); import ovagent_jupyter.execution.sandbox.macos; "
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"pathlib", "socket", "typing", "subprocess"} & set(done.stdout.split()) - {"typing"}
