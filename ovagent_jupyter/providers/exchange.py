"""One call over HTTP: sent by an SDK, read by us as it comes, with a limit on every wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar
from urllib.parse import urljoin, urlsplit

from jiter import from_json

from ovagent_jupyter.errors import ConfigError, ProviderError
from ovagent_jupyter.providers.assembly import Assembly
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest
from ovagent_jupyter.providers.connections import Address, Connections, SdkClient
from ovagent_jupyter.providers.failures import (
    failure_of_answer,
    failure_of_exception,
    make_failure,
    quoted,
)
from ovagent_jupyter.providers.sse import Event, EventSplitter
from ovagent_jupyter.providers.watch import Watch

_TAIL = 5.0
"""Seconds for what may follow once a service has said why it stopped, such as its usage."""

_DRAIN = 0.25
"""Seconds for the end of the body, after which the connection serves the next call."""

_DRAINED_PIECES = 64
"""And this many pieces; what goes on then is not waited for."""

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How a stream of events begins."""

_DONE = b"[DONE]"

_QUOTED = 2000
"""Bytes of an answer that are looked at for what can be quoted."""

_REDIRECTS = range(300, 400)
"""Statuses by which a service names another address."""

_WRONG_SHAPE = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading JSON of another shape than expected ends in."""

ClientT = TypeVar("ClientT", bound=SdkClient)


class HttpAnswer(Protocol):
    """The part of both HTTP libraries' response that is needed."""

    headers: Mapping[str, str]

    def aiter_bytes(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, unpacked."""
        ...

    def aiter_raw(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes."""
        ...


class SdkAnswer(Protocol):
    """What an SDK's ``with_streaming_response`` gives."""

    @property
    def http_response(self) -> Any:
        """The HTTP library's own, an ``HttpAnswer``."""
        ...


class Decoder(Protocol):
    """Reads what one wire sends and pushes it into an assembly.

    JSON of an unexpected shape may end in any of the errors of reading it; the exchange turns
    them into a failure.
    """

    ended: bool
    """Whether the terminal event has come and nothing more is expected."""

    def event(self, name: str, data: Any) -> None:
        """One event of a stream, decoded; errors by name have been dealt with.

        Raises:
            ProviderError: The service reports a failure.
        """
        ...

    def whole(self, data: Any) -> None:
        """An answer in one piece, decoded.

        Raises:
            ProviderError: The service reports a failure, or this is no answer.
        """
        ...

    def end(self) -> None:
        """The body is at its end, or ``[DONE]`` came: the last chance to finish."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire(Generic[ClientT]):
    """How one wire is spoken."""

    make: Callable[[Address], ClientT]
    """Makes the SDK's client; called in a thread."""
    send: Callable[[ClientT, Backend, ModelRequest], AbstractAsyncContextManager[SdkAnswer]]
    """Sends a request by it, with ``with_streaming_response`` also where it is not streamed."""
    decoder: Callable[[Assembly], Decoder]
    """Reads the answer."""


class WireClient:
    """A model behind one of the wires over HTTP.

    Args:
        backend: Whom it asks.
        connections: Where its connections come from.
    """

    wire: ClassVar[Wire[Any]]
    """How it speaks."""

    def __init__(self, backend: Backend, connections: Connections) -> None:
        self.backend = backend
        self._connections = connections

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta, None]:
        """The answer as it comes; closing it ends the call.

        Raises:
            ConfigError: The backend's address cannot be used.
            StreamInterrupted: The answer broke off after a part of it had come.
            ProviderError: The service failed before.
        """
        return exchange(self.wire, self.backend, self._connections, request)


async def exchange(
    wire: Wire[ClientT], backend: Backend, connections: Connections, request: ModelRequest
) -> AsyncGenerator[ModelDelta, None]:
    """The answer to a request, as it comes; closing the generator closes its connection.

    Raises:
        ConfigError: The backend's address cannot be used.
        StreamInterrupted: The answer broke off after something of it had come.
        ProviderError: The service failed before.
    """
    assembly = Assembly(request, backend)
    reading = _Reading(assembly, wire.decoder(assembly))
    failure: ProviderError | None = None
    watch = Watch(backend.timeouts.total)
    try:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(connections.lease(backend, wire.make))
            limit = backend.timeouts.first_byte
            with watch.within(limit):
                sent = await stack.enter_async_context(wire.send(client, backend, request))
                limit = watch.left
            answer: HttpAnswer = sent.http_response
            reading.head(answer.headers)
            body = await stack.enter_async_context(aclosing(_body(answer)))
            while not reading.ended:
                # One piece after the other, at little cost: see ``Watch``.
                watch.begin(limit)
                try:
                    piece = await body.__anext__()
                except StopAsyncIteration:
                    break
                watch.end()
                reading.feed(piece)
                for delta in assembly.take():
                    yield delta
                limit = backend.timeouts.between
                if assembly.finish_reason is not None:
                    limit = min(limit, _TAIL)
            watch.end()
            reading.finish()
            await _drain(body, watch)
    except asyncio.CancelledError:
        late = watch.has_fired()
        if late is None:
            raise
        failure = reading.failure(late)
    except Exception as error:  # noqa: BLE001 - SDKs and HTTP libraries share no class of errors
        failure = reading.failure(error)
    finally:
        watch.close()
    # Raised outside of any handler: the SDK's own text may quote a key.
    last, failure = reading.outcome(failure)
    for delta in last:
        yield delta
    if failure is not None:
        raise failure


def _body(answer: HttpAnswer) -> AsyncGenerator[bytes, None]:
    # Both are generators, in both libraries, which is how they can be closed early.
    packed = "content-encoding" in answer.headers
    return answer.aiter_bytes() if packed else answer.aiter_raw()


async def _drain(body: AsyncIterator[bytes], watch: Watch) -> None:
    """Read what is left, so that the connection can be used again; or leave it."""
    try:
        with watch.within(_DRAIN):
            for _ in range(_DRAINED_PIECES):
                if not await anext(body, b""):
                    return
    except Exception:  # noqa: BLE001 - the answer is complete: how its connection ends is not told
        return


class _Reading:
    """The body of one answer: a stream of events, or one piece."""

    __slots__ = (
        "_assembly", "_backend", "_body", "_decoder", "_events", "_found", "_splitter",
        "ended",
    )  # fmt: skip

    def __init__(self, assembly: Assembly, decoder: Decoder) -> None:
        self._assembly = assembly
        self._backend = assembly.backend
        self._decoder = decoder
        self._splitter = EventSplitter(
            event_cap=self._backend.event_cap, answer_cap=self._backend.answer_cap
        )
        self._events: bool | None = None
        self._found = False
        self._body: list[bytes] = []
        self.ended = False

    def head(self, headers: Mapping[str, str]) -> None:
        """What the head of the answer tells."""
        if "event-stream" in headers.get("content-type", ""):
            self._events = True
        for name in ("x-request-id", "request-id"):
            if headers.get(name):
                self._assembly.details["request_id"] = headers[name]

    def feed(self, piece: bytes) -> None:
        """The next bytes."""
        if self._events is None:
            start = piece.lstrip(b"\xef\xbb\xbf \r\n")[:8]
            if start:
                self._events = any(start.startswith(f) or f.startswith(start) for f in _FIELDS)
        if self._events:
            self._take(self._splitter.feed(piece))
        else:
            self._body.append(piece)
            self._splitter.count(piece)

    def finish(self) -> None:
        """The bytes are at their end."""
        if self.ended:
            return
        if not self._events:
            self._take_whole(b"".join(self._body))
            return
        self._take(self._splitter.end())
        if not self._found and self._splitter.stray.strip():
            self._take_whole(self._splitter.stray)
        elif not self.ended:
            try:
                self._decoder.end()
            except _WRONG_SHAPE as error:
                raise _misshapen(self._backend) from error

    def failure(self, error: Exception) -> ProviderError | None:
        """What ended it; None where the service had said before that it was done."""
        if isinstance(error, ConfigError):
            raise error
        told = isinstance(error, ProviderError)
        if self._assembly.finish_reason is not None and not told:
            self._assembly.details["unclean_end"] = type(error).__name__
            try:
                self._decoder.end()
            except ProviderError as late:
                return late
            except _WRONG_SHAPE:
                return _misshapen(self._backend)
            return None
        failure = _redirect(self._backend, error) or failure_of_exception(self._backend, error)
        failure.request_id = failure.request_id or str(self._assembly.details.get("request_id", ""))
        return failure

    def outcome(
        self, failure: ProviderError | None
    ) -> tuple[list[ModelDelta], ProviderError | None]:
        """What is still to be passed on, and the failure after it, if it is one."""
        try:
            if failure is None:
                return self._assembly.close(), None
            broken = self._assembly.broken(failure)
        except ProviderError as endless:
            broken = endless
        except _WRONG_SHAPE:
            broken = failure or _misshapen(self._backend)
        return self._assembly.take(), broken

    def _take(self, events: list[Event]) -> None:
        decoder = self._decoder
        data = b""
        try:
            for name, data in events:
                if self.ended or not data:
                    continue
                self._found = True
                if data == _DONE:
                    self._assembly.told_done = True
                    decoder.end()
                    self.ended = True
                    continue
                value = from_json(data)
                if name == "error":
                    raise failure_of_answer(self._backend, value)
                decoder.event(name, value)
                self.ended = decoder.ended
        except _WRONG_SHAPE as error:
            raise _unreadable(self._backend, data) from error

    def _take_whole(self, body: bytes) -> None:
        try:
            self._decoder.whole(from_json(body.removeprefix(b"\xef\xbb\xbf")))
        except ProviderError as failure:
            if failure.fault == "malformed":
                failure.why = failure.why or _sent(self._backend, body)
            raise
        except _WRONG_SHAPE as error:
            raise _unreadable(self._backend, body) from error


def _unreadable(backend: Backend, data: bytes) -> ProviderError:
    """The failure of an answer that is no JSON, or not of the shape that the wire has."""
    failure = failure_of_answer(backend, data, default="malformed")
    if failure.fault == "malformed":
        # Nothing, or JSON that is cut or garbled, may come right; a page or plain words will not.
        failure.retryable = data.strip()[:1] in {b"", b"{", b"["}
        failure.why = f"It sent: {failure.why}" if failure.why else _sent(backend, data)
    return failure


def _sent(backend: Backend, data: bytes) -> str:
    words = quoted(backend, data[:_QUOTED].decode("utf-8", "replace"))
    return f"It sent: {words}" if words else "It sent nothing."


def _misshapen(backend: Backend) -> ProviderError:
    """The failure of an answer whose pieces can be read and make no whole."""
    failure = make_failure(backend, "malformed", why="Its pieces do not make an answer.")
    failure.retryable = True
    return failure


def _redirect(backend: Backend, error: Exception) -> ProviderError | None:
    """The failure of an answer that names another address, to which nothing was sent.

    A question and a key are for the host that the user named: where else they go the user says.
    """
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None)
    location = str(getattr(response, "headers", {}).get("location", ""))
    if response is None or status not in _REDIRECTS or not location:
        return None
    host, address = _base_of(str(response.request.url), location, backend.url)
    name = backend.provider.display_name or backend.provider.id
    return ProviderError(
        f"{name} is not at its base URL, but sends on to {quoted(backend, host)}.",
        provider=backend.provider.id,
        status_code=status,
        fault="bad_request",
        why=f"It answered with status {status}; nothing was sent to the other address.",
        next_step=f"If you trust it, set base_url to {quoted(backend, address)}",
    )


def _base_of(asked: str, location: str, base: str) -> tuple[str, str]:
    """The host that a redirect names, and the base URL by which the call would have gone there."""
    try:
        target = urlsplit(urljoin(asked, location))
    except ValueError:
        return "another host", "the service's address"
    host = target.netloc.rpartition("@")[2]
    call = urlsplit(asked).path.removeprefix(urlsplit(base).path.rstrip("/")) or "/"
    # Without its query, which may hold a pass; its path, if it is not that of the call, is a page.
    path, found, _ = target.path.rpartition(call)
    return host, f"{target.scheme}://{host}{path if found else ''}"
