"""Signatures: what breaks a chain, who can sign, and requests that are not what they were."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ovagent_jupyter.errors import SignatureError, StorageError
from ovagent_jupyter.storage.jsonl import append_record
from ovagent_jupyter.storage.signing import (
    Head,
    RequestVerifier,
    Signer,
    SigningKeys,
    sign_request,
    verify,
)


@pytest.fixture
def keys(tmp_path: Path) -> SigningKeys:
    """Fresh keys."""
    return SigningKeys(tmp_path / "keys" / "signing.json")


@pytest.fixture
def log(tmp_path: Path, keys: SigningKeys) -> Path:
    """A signed log of five lines."""
    path = tmp_path / "log.jsonl"
    signer = Signer(keys)
    for n in range(5):
        signer.append(path, {"n": n, "text": "µ\u2028\ud800", "cost": 0.1 + n, "none": None})
    return path


# -- the chain -----------------------------------------------------------------------------------


def test_what_was_written_is_whole(log: Path, keys: SigningKeys) -> None:
    verdict = verify(log, keys)
    assert verdict.ok
    assert verdict.head.n == 5
    assert verify(log.with_name("none.jsonl"), keys).ok
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert [line["n"] for line in lines] == list(range(5))


def changed(lines: list[str]) -> list[str]:
    """A value is another one."""
    return [*lines[:2], lines[2].replace('"cost":2.1', '"cost":0.1'), *lines[3:]]


def field_added(lines: list[str]) -> list[str]:
    """A field more."""
    return [*lines[:2], '{"x":1,' + lines[2][1:], *lines[3:]]


def taken_out(lines: list[str]) -> list[str]:
    """A line less."""
    return [*lines[:2], *lines[3:]]


def put_in(lines: list[str]) -> list[str]:
    """A line that nobody signed."""
    return [*lines[:2], '{"n":2}', *lines[2:]]


def twice(lines: list[str]) -> list[str]:
    """A line again."""
    return [*lines[:2], lines[1], *lines[2:]]


def swapped(lines: list[str]) -> list[str]:
    """Two lines in another order."""
    return [*lines[:2], lines[3], lines[2], lines[4]]


def renumbered(lines: list[str]) -> list[str]:
    """A line taken out and the rest numbered anew."""
    rest = [line.replace(f'"n":{n + 1},"key"', f'"n":{n},"key"') for n, line in enumerate(lines)]
    return [*lines[:2], *rest[3:]]


def begun_later(lines: list[str]) -> list[str]:
    """The beginning cut off."""
    return lines[2:]


@pytest.mark.parametrize(
    ("tamper", "line", "reason"),
    [
        (changed, 3, "changed"),
        (field_added, 3, "changed"),
        (taken_out, 3, "1 lines before it were taken out"),
        (put_in, 3, "not signed"),
        (twice, 3, "twice"),
        (swapped, 3, "taken out"),
        (renumbered, 3, "changed"),
        (begun_later, 1, "2 lines before it were taken out"),
    ],
)
def test_the_first_broken_line_is_named(
    log: Path,
    keys: SigningKeys,
    tamper: Callable[[list[str]], list[str]],
    line: int,
    reason: str,
) -> None:
    log.write_text("\n".join(tamper(log.read_text().splitlines())) + "\n")
    verdict = verify(log, keys)
    assert not verdict.ok
    assert verdict.broken is not None
    assert verdict.broken.line == line
    assert reason in verdict.broken.reason
    assert verdict.head.n == line - 1


def test_lines_cut_off_at_the_end_are_seen_by_who_kept_the_head(
    log: Path, keys: SigningKeys
) -> None:
    head = verify(log, keys).head
    Signer(keys).append(log, {"n": "new"})
    assert verify(log, keys, head).ok
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:3]))
    assert verify(log, keys).ok
    verdict = verify(log, keys, head)
    assert verdict.broken is not None
    assert (verdict.broken.line, "missing" in verdict.broken.reason) == (4, True)
    assert verify(log, keys, Head()).ok


def test_a_torn_line_breaks_nothing(log: Path, keys: SigningKeys) -> None:
    with log.open("ab") as file:
        file.write(b'{"n": 5, "text": "half')
    Signer(keys).append(log, {"n": 6})
    verdict = verify(log, keys)
    assert verdict.ok
    assert (verdict.torn, verdict.head.n) == (1, 6)


def test_a_line_of_a_writer_that_does_not_sign_is_found(log: Path, keys: SigningKeys) -> None:
    append_record(log, {"n": "unsigned"})
    Signer(keys).append(log, {"n": 6})
    verdict = verify(log, keys)
    assert verdict.broken is not None
    assert verdict.broken.line == 6


def test_a_record_cannot_bring_its_own_signature(log: Path, keys: SigningKeys) -> None:
    Signer(keys).append(log, {"n": 9, "chain": {"n": 1, "key": "x", "mac": "y"}})
    assert verify(log, keys).ok


def sign_many(keys: Path, log: Path, name: str) -> None:
    """What another process does."""
    signer = Signer(SigningKeys(keys))
    for number in range(40):
        signer.append(log, {"who": name, "number": number})


def test_processes_that_write_at_once_make_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log, path = tmp_path / "log.jsonl", tmp_path / "new" / "signing.json"
    writers = [context.Process(target=sign_many, args=(path, log, str(n))) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    verdict = verify(log, SigningKeys(path))
    assert verdict.broken is None
    assert verdict.head.n == 120


# -- keys ----------------------------------------------------------------------------------------


def test_keys_are_private_kept_and_never_shown(keys: SigningKeys) -> None:
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.path.parent.stat().st_mode) == 0o700
    assert [path.name for path in keys.path.parent.iterdir()] == ["signing.json"]
    again = SigningKeys(keys.path)
    assert again.mac(b"m") == keys.mac(b"m")
    (secret,) = json.loads(keys.path.read_text())["keys"].values()
    assert len(bytes.fromhex(secret)) == 32
    assert secret not in repr(keys)
    with pytest.raises(TypeError):
        pickle.dumps(keys)


def test_a_log_of_older_keys_is_verified_and_of_strange_ones_is_not(
    log: Path, keys: SigningKeys, tmp_path: Path
) -> None:
    old = keys.current
    assert keys.rotate() != old
    Signer(keys).append(log, {"n": 5})
    assert verify(log, SigningKeys(keys.path)).head.n == 6
    verdict = verify(log, SigningKeys(tmp_path / "other.json"))
    assert verdict.broken is not None
    assert (verdict.broken.line, "not known" in verdict.broken.reason) == (1, True)


def test_keys_that_others_can_read_are_not_used(keys: SigningKeys) -> None:
    keys.path.chmod(0o640)
    with pytest.raises(StorageError, match="not used") as caught:
        SigningKeys(keys.path)
    assert "chmod 600" in caught.value.next_step


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"current": "a", "keys": {"a": "abcd"}}',
        '{"current": "b", "keys": {}}',
        '{"current":"a","keys":{"a":"secret-zz"}}',
    ],
)
def test_a_file_of_keys_that_is_none_is_said_without_showing_it(
    keys: SigningKeys, content: str
) -> None:
    keys.path.write_text(content)
    with pytest.raises(StorageError, match="cannot be read") as caught:
        SigningKeys(keys.path)
    assert "secret-zz" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_place_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        SigningKeys(tmp_path / "file" / "signing.json")


# -- requests -----------------------------------------------------------------------------------

NOW = 1_800_000_000.0


def test_a_request_is_accepted_once(keys: SigningKeys) -> None:
    headers = sign_request(keys, "POST", "/run?x=1", b"{}", now=NOW)
    verifier = RequestVerifier(keys, clock=lambda: NOW + 2)
    verifier.verify(
        "post", "/run?x=1", b"{}", {name.upper(): value for name, value in headers.items()}
    )
    with pytest.raises(SignatureError, match="was here before"):
        verifier.verify("POST", "/run?x=1", b"{}", headers)
    verifier.verify(
        "POST", "/run?x=1", b"{}", sign_request(keys, "POST", "/run?x=1", b"{}", now=NOW)
    )


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/run", b"{}"),
        ("POST", "/walk", b"{}"),
        ("POST", "/run", b"{ }"),
        ("POST", "/run?", b"{}"),
    ],
)
def test_another_request_is_not_the_one_that_was_signed(
    keys: SigningKeys, method: str, target: str, body: bytes
) -> None:
    headers = sign_request(keys, "POST", "/run", b"{}", now=NOW)
    with pytest.raises(SignatureError, match="not signed by a process of yours"):
        RequestVerifier(keys, clock=lambda: NOW).verify(method, target, body, headers)


@pytest.mark.parametrize(
    "name", ["Ovagent-Key", "Ovagent-Time", "Ovagent-Nonce", "Ovagent-Signature"]
)
def test_headers_are_all_needed_and_all_signed(keys: SigningKeys, name: str) -> None:
    verifier = RequestVerifier(keys, clock=lambda: NOW)
    headers = sign_request(keys, "GET", "/", now=NOW)
    for value in (None, "", "1800000001.000", "é"):
        others = {key: text for key, text in headers.items() if key != name}
        with pytest.raises(SignatureError):
            verifier.verify("GET", "/", b"", others if value is None else others | {name: value})
    verifier.verify("GET", "/", b"", headers)


@pytest.mark.parametrize(
    ("now", "told"), [(NOW + 301, "301 seconds old"), (NOW - 400, "400 seconds ahead")]
)
def test_clocks_that_differ_are_named(keys: SigningKeys, now: float, told: str) -> None:
    headers = sign_request(keys, "GET", "/", now=NOW)
    with pytest.raises(SignatureError, match=told) as caught:
        RequestVerifier(keys, clock=lambda: now).verify("GET", "/", b"", headers)
    assert "clocks" in caught.value.next_step


def test_requests_of_strangers_are_refused(keys: SigningKeys, tmp_path: Path) -> None:
    stranger = SigningKeys(tmp_path / "stranger.json")
    headers = sign_request(stranger, "GET", "/", now=NOW)
    with pytest.raises(SignatureError, match="not signed"):
        RequestVerifier(keys, clock=lambda: NOW).verify("GET", "/", b"", headers)


def test_what_is_remembered_of_requests_is_bounded_by_the_window(keys: SigningKeys) -> None:
    now = NOW
    verifier = RequestVerifier(keys, window=10, clock=lambda: now)
    for number in range(50):
        now = NOW + number
        verifier.verify("GET", "/", b"", sign_request(keys, "GET", "/", now=now))
    assert len(verifier._seen) <= 12
