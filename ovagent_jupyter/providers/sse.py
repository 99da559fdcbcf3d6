"""Server-sent events, split from the bytes of a stream as they come."""

from __future__ import annotations

from ovagent_jupyter.errors import ProviderError

_LF = 10
_BOM = b"\xef\xbb\xbf"
_STRAY_BYTES = 4096
"""Of what is no event: enough to find out what it is instead."""


Event = tuple[str, bytes]
"""Its type, empty where none is told; and its data: the lines of it joined, and stripped."""


class EventSplitter:
    """Splits bytes into events, however they are cut.

    It takes what services send rather than what the standard says: any line ending, a field
    without a space, a last event without its blank line.

    Args:
        event_cap: Bytes of one event above which it gives up.
        answer_cap: Bytes of all of them above which it gives up.
    """

    __slots__ = (
        "_answer_cap", "_between", "_data", "_event_cap", "_held", "_name", "_pieces", "_started",
        "_swallow_lf", "received", "stray",
    )  # fmt: skip

    def __init__(self, *, event_cap: int = 8 << 20, answer_cap: int = 64 << 20) -> None:
        self._event_cap = event_cap
        self._answer_cap = answer_cap
        self._pieces: list[bytes] = []
        self._held = 0
        self._name = ""
        self._data: list[bytes] = []
        self._started = False
        self._between = False
        self._swallow_lf = False
        self.received = 0
        """Bytes that came."""
        self.stray = b""
        """The first of what came and is no event, such as a web page."""

    def feed(self, piece: bytes) -> list[Event]:
        """The events that are whole now.

        Raises:
            ProviderError: There is more than the caps allow.
        """
        self.received += len(piece)
        if self.received > self._answer_cap:
            raise _too_large("answer", self._answer_cap)
        # What nearly all services send: one event of one line, in one piece.
        if (
            self._between
            and piece[:6] == b"data: "
            and piece.find(b"\n") == len(piece) - 2
            and piece[-1] == _LF
            and b"\r" not in piece
            and len(piece) <= self._event_cap
        ):
            return [("", piece[6:-2].strip())]
        events = self._split(piece)
        self._between = self._started and not (
            self._held or self._data or self._name or self._swallow_lf
        )
        return events

    def count(self, piece: bytes) -> None:
        """Count bytes that are no events.

        Raises:
            ProviderError: There are more than the cap allows.
        """
        self.received += len(piece)
        if self.received > self._answer_cap:
            raise _too_large("answer", self._answer_cap)

    def end(self) -> list[Event]:
        """The event that was begun and not ended; none where there is none."""
        events: list[Event] = []
        if self._pieces:
            self._take_line(b"".join(self._pieces), events)
            self._pieces, self._held = [], 0
        self._take_line(b"", events)
        return events

    def _split(self, piece: bytes) -> list[Event]:
        events: list[Event] = []
        if self._swallow_lf and piece:
            # A line that ended with the last piece's carriage return, if this is its line feed.
            piece = piece.removeprefix(b"\n")
            self._swallow_lf = False
        if b"\n" not in piece and b"\r" not in piece:
            # Kept apart until the line is whole: joining each time would be quadratic.
            self._hold(piece)
            return events
        if self._pieces:
            piece = b"".join((*self._pieces, piece))
            self._pieces, self._held = [], 0
        lines = piece.splitlines(keepends=True)
        last = lines.pop() if lines[-1][-1:] not in b"\r\n" else b""
        self._swallow_lf = not last and piece[-1:] == b"\r"
        for line in lines:
            self._take_line(line.rstrip(b"\r\n"), events)
        self._hold(last)
        return events

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._held += len(piece)
            self._check_event()

    def _check_event(self) -> None:
        if self._held + sum(map(len, self._data)) > self._event_cap:
            raise _too_large("event", self._event_cap)

    def _take_line(self, line: bytes, events: list[Event]) -> None:
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append((self._name, b"\n".join(self._data).strip()))
            self._name, self._data = "", []
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._check_event()
        elif line.startswith(b"event:"):
            self._name = line[6:].strip().decode("utf-8", "replace")
        elif not line.startswith((b":", b"id:", b"retry:")) and len(self.stray) < _STRAY_BYTES:
            self.stray = (self.stray + line + b"\n")[:_STRAY_BYTES]


def _too_large(what: str, cap: int) -> ProviderError:
    return ProviderError(
        f"The {what} is larger than {cap >> 20 or cap} {'MiB' if cap >> 20 else 'bytes'}.",
        fault="too_large",
        why="The service sends more than a model can have written; the call was ended.",
        next_step="Check the base URL; if the answer is right, raise the cap of the backend.",
    )
