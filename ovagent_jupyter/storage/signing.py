"""Signatures: a chain over the lines of a log, and requests between processes of our own.

A line holds ``"chain": {"n", "key", "mac"}``, where the mac is over the line without it and the mac
of the signed line before: a line that is changed, taken out, put in or moved breaks the chain. That
lines are missing at the end is seen by who has kept the head of the chain.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ovagent_jupyter.errors import SignatureError, StorageError
from ovagent_jupyter.storage.jsonl import Line, append_record, parse, read_records
from ovagent_jupyter.storage.paths import ensure_dir, storage_error

KEY_BYTES = 32
WINDOW = 300.0
"""Seconds that the clocks of two processes may differ, and that a request can be used."""
HEADERS = ("Ovagent-Key", "Ovagent-Time", "Ovagent-Nonce", "Ovagent-Signature")
"""What a signed request has."""


def canonical(value: object) -> bytes:
    """A JSON-able value as the one text that it is signed and compared by."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


# -- keys ----------------------------------------------------------------------------------------


class SigningKeys:
    """The keys of this user, in a file that only the user can read; made on first use.

    Args:
        path: The file.

    Raises:
        StorageError: It cannot be read or made, or others can read it.
    """

    __slots__ = ("_current", "_keys", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._current = ""
        self._keys: dict[str, bytes] = {}
        try:
            if not path.exists():
                self._write(_new_key(), {}, over=False)
            self._read()
        except OSError as error:
            raise storage_error("The file of keys", path, "cannot be used", error) from error

    @property
    def current(self) -> str:
        """Id of the key that signs now; no secret."""
        return self._current

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def mac(self, message: bytes, key_id: str = "") -> str:
        """The signature of a message, by the current key or a named one.

        Raises:
            KeyError: There is no such key.
        """
        return hmac.new(self._keys[key_id or self._current], message, hashlib.sha256).hexdigest()

    def rotate(self) -> str:
        """Sign with a new key from now on; what older ones signed can still be verified.

        Raises:
            StorageError: The file cannot be written.
        """
        try:
            self._write(_new_key(), self._keys, over=True)
            self._read()
        except OSError as error:
            raise storage_error(
                "The file of keys", self.path, "cannot be written", error
            ) from error
        return self._current

    def __repr__(self) -> str:
        return f"SigningKeys({str(self.path)!r}, current={self._current!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("Keys are not pickled.")

    def _read(self) -> None:
        if self.path.stat().st_mode & 0o077:
            raise StorageError(
                f"The keys in {self.path} are not used.",
                why="Other users of this machine can read them.",
                next_step=f"Run: chmod 600 {self.path}",
            )
        try:
            found = json.loads(self.path.read_text("utf-8"))
            keys = {str(name): bytes.fromhex(value) for name, value in found["keys"].items()}
            current = str(found["current"])
            if len(keys[current]) < KEY_BYTES:
                raise ValueError(current)
        except (ValueError, KeyError, TypeError, AttributeError):
            # From None: the text of the file, which the error quotes, holds the keys.
            raise StorageError(
                f"The file of keys {self.path} cannot be read.",
                next_step="Restore it from a copy, or remove it: old logs cannot be verified then.",
            ) from None
        self._keys, self._current = keys, current

    def _write(self, new: tuple[str, bytes], old: Mapping[str, bytes], *, over: bool) -> None:
        """Write all keys and the new one, whole or not at all."""
        ensure_dir(self.path.parent)
        keys = {name: key.hex() for name, key in (*old.items(), new)}
        partial = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"current": new[0], "keys": keys}, file)
            if over:
                partial.replace(self.path)
            else:
                with suppress(FileExistsError):  # another kernel was first: its key is ours too
                    os.link(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)


def _new_key() -> tuple[str, bytes]:
    return secrets.token_hex(4), secrets.token_bytes(KEY_BYTES)


# -- lines of a log ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: kept elsewhere, it shows whether lines were cut off later."""

    n: int = 0
    """Signed lines so far."""
    mac: str = ""
    """Signature of the last one."""


@dataclass(frozen=True, slots=True)
class Break:
    """Where a log is not what was written."""

    line: int
    """Number of the line, from 1; the one after the last where lines are cut off."""
    reason: str
    """What is wrong with it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying a log has shown."""

    head: Head
    """The end of the chain, as far as it is whole."""
    broken: Break | None = None
    """The first place where it is not; None where all is as it was written."""
    torn: int = 0
    """Lines that a process did not finish when it was killed; they were never signed."""

    @property
    def ok(self) -> bool:
        """Whether every line is as it was written."""
        return self.broken is None


class Signer:
    """Signs lines as they are appended, also by many processes at once.

    Args:
        keys: The keys.
    """

    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys

    def append(self, path: Path, record: Mapping[str, object]) -> None:
        """Append one signed line.

        Raises:
            StorageError: It cannot be written.
        """
        append_record(path, record, seal=self.seal)

    def seal(self, record: object, before: Iterator[bytes]) -> object:
        """The record with its link to the lines before, last to first: for ``append_record``."""
        body = json.loads(json.dumps(record))  # as it is read again
        body.pop("chain", None)
        last = next((head for head in map(_head_of, before) if head is not None), Head())
        n, key = last.n + 1, self._keys.current
        return {**body, "chain": {"n": n, "key": key, "mac": _mac(self._keys, body, key, n, last)}}


def verify(path: Path, keys: SigningKeys, expected: Head | None = None) -> Verdict:
    """Check every line of a log that is signed from its first line on.

    Args:
        path: The log.
        keys: The keys it may be signed with.
        expected: A head of it that was kept: what follows it may be new, it has to be there.

    Raises:
        StorageError: The file cannot be read.
    """
    head = Head()
    torn = number = 0
    met = expected is None or expected == head
    for number, line in enumerate(read_records(path), 1):
        if not isinstance(line, Line):
            torn += 1
            continue
        reason = _wrong(line.record, head, keys)
        if reason:
            return Verdict(head, Break(number, reason), torn)
        head = _head(line.record) or head
        met = met or head == expected
    if not met:
        return Verdict(head, Break(number + 1, "Lines at the end are missing."), torn)
    return Verdict(head, None, torn)


def _wrong(record: Mapping[str, Any], last: Head, keys: SigningKeys) -> str:
    """What is wrong with a line after the last good one; empty where nothing is."""
    head = _head(record)
    if head is None:
        return "It is not signed."
    key = str(record["chain"].get("key"))
    if key not in keys:
        return f"It is signed with a key that is not known here, {key[:16]!r}."
    body = {name: value for name, value in record.items() if name != "chain"}
    if hmac.compare_digest(_mac(keys, body, key, head.n, last).encode(), head.mac.encode()):
        return "" if head.n == last.n + 1 else "Its number is not the next one."
    if head.n > last.n + 1:
        return f"It was changed, or {head.n - last.n - 1} lines before it were taken out."
    if head.n <= last.n:
        return "It was moved or written twice."
    return "It was changed, or the line before it was."


def _mac(keys: SigningKeys, body: object, key: str, n: int, last: Head) -> str:
    return keys.mac(canonical({"n": n, "key": key, "before": last.mac, "body": body}), key)


def _head(record: Mapping[str, Any]) -> Head | None:
    chain = record.get("chain")
    if not isinstance(chain, dict):
        return None
    n, mac = chain.get("n"), chain.get("mac")
    return Head(n, mac) if isinstance(n, int) and isinstance(mac, str) else None


def _head_of(raw: bytes) -> Head | None:
    line = parse(raw)
    return _head(line.record) if isinstance(line, Line) else None


# -- requests ------------------------------------------------------------------------------------


def sign_request(
    keys: SigningKeys, method: str, target: str, body: bytes = b"", *, now: float | None = None
) -> dict[str, str]:
    """Headers that prove to another process of this user who has sent a request.

    Args:
        keys: The keys, the same on both sides.
        method: ``GET``, ``POST``, …
        target: Path and query.
        body: What is sent.
        now: Seconds since 1970; None is this machine's clock.
    """
    moment = f"{time.time() if now is None else now:.3f}"
    nonce, key = secrets.token_hex(16), keys.current
    signature = keys.mac(_request((key, moment, nonce), method, target, body), key)
    return dict(zip(HEADERS, (key, moment, nonce, signature), strict=True))


class RequestVerifier:
    """Checks requests: signed by a key of ours, just now, and for the first time.

    Args:
        keys: The keys.
        window: Seconds that clocks may differ.
        clock: Seconds since 1970.
    """

    def __init__(
        self, keys: SigningKeys, *, window: float = WINDOW, clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = keys
        self._window = window
        self._clock = clock
        self._seen: dict[str, float] = {}

    def verify(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Check one request.

        Raises:
            SignatureError: It is not what was signed, too old, from the future, or was here before.
        """
        lower = {name.lower(): value for name, value in headers.items()}
        key, moment, nonce, signature = (lower.get(name.lower(), "") for name in HEADERS)
        signed = _request((key, moment, nonce), method, target, body)
        # Compared also for a key that is not known, which then takes as long.
        known = key in self._keys
        right = self._keys.mac(signed, key if known else "")
        if not hmac.compare_digest(right.encode(), signature.encode()) or not known:
            raise SignatureError(
                "The request is not signed by a process of yours.",
                why="Its signature is missing or wrong, or its key is not known here.",
                next_step="Restart the process that has sent it, so that it reads the keys again.",
            )
        self._require_now(float(moment))
        self._require_first(nonce, float(moment))

    def _require_now(self, moment: float) -> None:
        apart = self._clock() - moment
        if abs(apart) > self._window:
            when = "old" if apart > 0 else "ahead of our clock"
            raise SignatureError(
                f"The request is {abs(apart):,.0f} seconds {when}.",
                why=f"It is good for {self._window:,.0f} seconds.",
                next_step="Send it anew; if that does not help, set the clocks of both machines.",
            )

    def _require_first(self, nonce: str, moment: float) -> None:
        limit = self._clock() - self._window
        self._seen = {seen: when for seen, when in self._seen.items() if when >= limit}
        if nonce in self._seen:
            raise SignatureError(
                "The request was here before.", next_step="Sign each request anew."
            )
        self._seen[nonce] = moment


def _request(stamp: tuple[str, str, str], method: str, target: str, body: bytes) -> bytes:
    return canonical([*stamp, method.upper(), target, hashlib.sha256(body).hexdigest()])
