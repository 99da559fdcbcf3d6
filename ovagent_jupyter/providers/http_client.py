"""The HTTP client that both SDKs are given: no redirects, short errors, no one else's headers."""

from __future__ import annotations

import asyncio
import os
import sys
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

_LONGEST = 1 << 16
"""Bytes of an error that are read, packed or not; the rest is nothing that a person reads."""

_PATIENCE = 5.0
"""Seconds for them: their status is known already."""

_FIRST_FAILURE = 300
_FIRST_ERROR = 400

_PACKINGS = ("gzip", "deflate")
"""What is asked for: all others unpack a piece without a limit in one of the HTTP libraries."""

OF_EACH_CALL = {"Content-Type": "application/json"}
"""Headers to be told with each call: they may be left out of the client's own; see below."""

HttpT = TypeVar("HttpT")


class HttpResponse(Protocol):
    """The part of both HTTP libraries' response that is needed."""

    status_code: int
    headers: MutableMapping[str, str]
    stream: Any
    """The body as it comes; may be replaced."""


def make_http(kind: Callable[..., HttpT]) -> HttpT:
    """A client of an SDK's own kind, closed with the SDK's client.

    It follows no redirect, since a question is for the host that the user named and no other.

    Args:
        kind: The SDK's ``DefaultAsyncHttpxClient``.
    """
    return kind(
        follow_redirects=False,
        headers={"Accept-Encoding": ", ".join(_PACKINGS)},
        event_hooks={"response": [_shorten]},
    )


def told_headers(variable: str, told: Mapping[str, str], left_out: object) -> dict[str, object]:
    """Headers for an SDK that sends what is in a variable too: all of that is left out.

    Args:
        variable: Of the environment, a header on each line.
        told: What is to be sent.
        left_out: The SDK's sign for a header that is not sent.
    """
    lines = os.environ.get(variable, "").split("\n")
    names = (line.partition(":")[0].strip() for line in lines if ":" in line)
    return dict.fromkeys(names, left_out) | dict(told)


async def _shorten(response: HttpResponse) -> None:
    """Replace the body of a failure by what is read of it; the SDK would read it to its end."""
    if response.status_code < _FIRST_FAILURE:
        return
    raw = await _beginning(response)
    body = _unpacked(raw, response.headers.get("content-encoding", "").strip().lower())
    for name in ("content-encoding", "content-length"):
        response.headers.pop(name, None)
    # Its own library's: there are two, and which one it is depends on the SDK's version.
    library = sys.modules[type(response).__module__.partition(".")[0]]
    response.stream = library.ByteStream(body)


async def _beginning(response: HttpResponse) -> bytes:
    raw = bytearray()
    source = response.stream
    try:
        # The body of a redirect says nothing.
        if response.status_code >= _FIRST_ERROR:
            async with asyncio.timeout(_PATIENCE):
                await _fill(raw, aiter(source))
    except Exception:  # noqa: BLE001 - how it broke off matters less than the status that came
        return bytes(raw)
    finally:
        await source.aclose()
    return bytes(raw[:_LONGEST])


async def _fill(raw: bytearray, pieces: AsyncGenerator[bytes, None]) -> None:
    try:
        async for piece in pieces:
            raw += piece
            if len(raw) >= _LONGEST:
                return
    finally:
        await pieces.aclose()


def _unpacked(raw: bytes, packing: str) -> bytes:
    if packing in {"", "identity"}:
        return raw
    if packing in _PACKINGS:
        # With its head, whichever it is, or without one, as some send "deflate".
        for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
            with suppress(zlib.error):
                return zlib.decompressobj(bits).decompress(raw, _LONGEST)
    return b""
