"""What the child says it printed and showed, turned into outputs that are bounded and clean.

Nothing here raises on what a message contains: the child's messages are untrusted. What has the
wrong shape is dropped, what is too long is cut with a notice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

from ovagent_jupyter.execution.bundles import clean_text, raw_bundle, raw_size
from ovagent_jupyter.execution.executor import CodeError, OnOutput, Output, OutputKind
from ovagent_jupyter.execution.showing import Pace, Shown

LONGEST_ID = 200
LONGEST_TRACEBACK = 200
"""Lines."""
LONGEST_LINE = 20_000


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """How much of what a child prints and shows is passed on."""

    stream_chars: int = 1_000_000
    """Characters printed by one cell."""
    bundle_chars: int = 16_000_000
    """Characters of one displayed thing, all its MIME types together."""
    cell_chars: int = 64_000_000
    """Characters of all things displayed by one cell."""
    session_chars: int = 1_000_000_000
    """Characters of all that one child prints and displays, updates with it."""
    count: int = 1_000
    """Things displayed by one cell."""
    pieces: int = 10_000
    """Parts of a cell's output: a part ends where the other stream or a display begins."""
    rate: int = 2_000
    """Displays, updates and clearings that are handled in a second."""
    interval: float = 0.03
    """Seconds between two live hand-overs; what comes faster is joined."""


class OutputAllowance:
    """What one child may still print and show; shared by the collectors of its cells.

    Args:
        limits: The bounds.
    """

    def __init__(self, limits: OutputLimits) -> None:
        self._left = limits.session_chars

    def grant(self, size: int) -> bool:
        """Whether so many characters more are within the bound; they are spent then."""
        if size > self._left:
            return False
        self._left -= size
        return True


class OutputCollector:
    """Takes the output messages of one cell, in order, and keeps what a reader should see.

    ``outputs`` is the cell as it looks at the end: updates are applied, cleared things are gone.
    The live callback gets every step of it, joined to at most one call series per interval.

    Args:
        limits: The bounds.
        on_output: Called with each output, live and in order.
        clock: Seconds, monotonic.
        allowance: What the child may still show; None for a cell of its own.
    """

    def __init__(
        self,
        limits: OutputLimits,
        on_output: OnOutput | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        allowance: OutputAllowance | None = None,
    ) -> None:
        self._limits = limits
        self._on_output = on_output
        self._clock = clock
        self._allowance = allowance or OutputAllowance(limits)
        self._pace = Pace(limits.rate, clock)
        self._stream_left = limits.stream_chars
        self._bundle_left = limits.cell_chars
        self._count_left = limits.count
        self._pieces_left = limits.pieces
        self._pending: list[Output | Shown] = []
        self._passed_on_at = float("-inf")
        self._shown: list[Output | Shown] = []
        self._clear_next = False
        self._noticed = False
        self.error: CodeError | None = None
        """The exception the cell reported, if any."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The cell's outputs as they look now."""
        return tuple(map(_output, self._shown))

    @property
    def truncated(self) -> bool:
        """Whether anything was left out because it passed a bound."""
        return self._noticed

    def take(self, kind: str, content: Mapping[str, object]) -> None:
        """Take one message of the child's output channel; unknown kinds are dropped."""
        match kind:
            case "stream":
                self._take_stream(content)
            case "display_data":
                self._take_bundle("display", content)
            case "update_display_data":
                self._take_bundle("update", content)
            case "execute_result":
                self._take_bundle("result", content)
            case "error":
                self._take_error(content)
            case "clear_output" if self._pace.allows():
                self._clear(Output("clear", metadata={"wait": bool(content.get("wait"))}))
            case _:
                pass

    def detach(self) -> None:
        """Tell the listener nothing more."""
        self._on_output = None

    def notice_lost(self) -> None:
        """Say that output of unknown size did not arrive."""
        self._notice("more came than could be passed on")

    def flush(self, *, force: bool = False) -> float:
        """Pass on what waits, if the interval has passed.

        Returns:
            Seconds until the next hand-over is due; infinity when nothing waits.
        """
        if not self._pending:
            return float("inf")
        wait = self._passed_on_at + self._limits.interval - self._clock()
        if wait > 0 and not force:
            return wait
        pending, self._pending = self._pending, []
        if self._on_output is not None:
            for waiting in pending:
                if self._spent(waiting):
                    self._on_output(_output(waiting))
        self._passed_on_at = self._clock()
        return float("inf")

    def _spent(self, waiting: Output | Shown) -> bool:
        """Whether an update is within the session's bound; the rest was counted as it came."""
        if not isinstance(waiting, Shown) or waiting.kind != "update":
            return True
        if self._allowance.grant(waiting.size):
            return True
        self._noticed = True
        return False

    def _take_stream(self, content: Mapping[str, object]) -> None:
        name, text = content.get("name"), content.get("text")
        if (name != "stdout" and name != "stderr") or not isinstance(text, str):  # noqa: PLR1714
            return
        self._clear_if_due()
        kept = text[: self._stream_left]
        if kept and not self._allowance.grant(len(kept)):
            self._notice(_SESSION.format(self._limits.session_chars))
            return
        self._stream_left -= len(kept)
        if kept:
            self._add(Output("stream", stream=name, text=clean_text(kept)))
        if len(kept) < len(text):
            self._notice(f"more than {self._limits.stream_chars:,} characters were printed")

    def _take_bundle(self, kind: OutputKind, content: Mapping[str, object]) -> None:
        data = raw_bundle(content.get("data"))
        transient = content.get("transient")
        display_id = transient.get("display_id") if isinstance(transient, dict) else None
        if not isinstance(display_id, str) or len(display_id) > LONGEST_ID:
            display_id = ""
        if not data or (kind == "update" and not display_id):
            return
        size = raw_size(data, self._limits.bundle_chars)
        came = Shown(kind, data, content.get("metadata"), display_id, size)
        self._clear_if_due()
        reason = self._refused(came)
        if reason:
            self._notice(reason)
        else:
            self._add(came)

    def _refused(self, came: Shown) -> str:
        """Why a display is left out; empty when it is within all bounds, which count it then."""
        if came.size > self._limits.bundle_chars:
            return f"a display of more than {self._limits.bundle_chars:,} characters was too large"
        # What nobody has seen is replaced at no cost, so that the last of many updates stays.
        unseen = bool(self._pending) and _same_update(self._pending[-1], came)
        if not unseen and not self._pace.allows():
            return "more came in a second than could be shown"
        if came.kind == "update":
            return self._refused_update(came)
        if came.size > self._bundle_left or not self._count_left:
            return "too much was displayed"
        if not self._allowance.grant(came.size):
            return _SESSION.format(self._limits.session_chars)
        self._bundle_left -= came.size
        self._count_left -= 1
        return ""

    def _refused_update(self, came: Shown) -> str:
        places = [shown for shown in self._shown if _is_of(shown, came.display_id)]
        growth = sum(came.size - shown.size for shown in places) if places else came.size
        if growth > self._bundle_left or not (places or self._count_left):
            return "too much was displayed"
        self._bundle_left -= growth
        self._count_left -= not places
        return ""

    def _take_error(self, content: Mapping[str, object]) -> None:
        if self.error is not None:
            return
        error = self.error = read_error(content)
        if error is not None:
            self._clear_if_due()
            message = f"{error.name}: {error.message}" if error.message else error.name
            self._add(Output("error", text=message))

    def _notice(self, reason: str) -> None:
        if not self._noticed:
            self._noticed = True
            self._pieces_left += 1
            self._add(Output("stream", stream="stderr", text=f"\n[output cut: {reason}]\n"))

    def _add(self, output: Output | Shown) -> None:
        if not self._show(output):
            self._notice("it was in too many parts")
        elif not _join(self._pending, output):
            self._pending.append(output)

    def _show(self, output: Output | Shown) -> bool:
        if isinstance(output, Shown) and output.kind == "update":
            self._apply_update(output)
        elif not _join(self._shown, output):
            if not self._pieces_left and output.kind != "error":
                return False
            self._pieces_left -= 1
            self._shown.append(output)
        return True

    def _clear(self, clearing: Output) -> None:
        if clearing.metadata["wait"]:
            if not _is_clear(self._pending[-1:]):
                self._pending.append(clearing)
            self._clear_next = True
            return
        self._forget()
        self._pending = [clearing]

    def _clear_if_due(self) -> None:
        """Clear what a clearing that waited for the next output is about."""
        if self._clear_next:
            self._clear_next = False
            self._forget()
            # The clearing itself is the last thing that waits, or was passed on.
            self._pending = self._pending[-1:] if _is_clear(self._pending[-1:]) else []

    def _forget(self) -> None:
        """Empty the cell; what is gone no longer counts."""
        for shown in self._shown:
            if isinstance(shown, Shown):
                self._bundle_left += shown.size
                self._count_left += 1
            else:
                self._stream_left += len(shown.text)
            self._pieces_left += 1
        self._shown.clear()

    def _apply_update(self, update: Shown) -> None:
        places = [n for n, shown in enumerate(self._shown) if _is_of(shown, update.display_id)]
        for place in places:
            shown = self._shown[place]
            self._shown[place] = shown.updated(update) if isinstance(shown, Shown) else update
        if not places:
            self._pieces_left -= 1
            self._shown.append(update)


_SESSION = "the child has shown more than {:,} characters; `%ovagent restart` begins with a new one"


def _output(shown: Output | Shown) -> Output:
    return shown.output if isinstance(shown, Shown) else shown


def _is_clear(last: list[Output | Shown]) -> bool:
    return bool(last) and last[0].kind == "clear"


def _is_of(shown: Output | Shown, display_id: str) -> TypeGuard[Shown]:
    return isinstance(shown, Shown) and shown.display_id == display_id


def _same_update(last: Output | Shown, came: Output | Shown) -> bool:
    return last.kind == came.kind == "update" and last.display_id == came.display_id


def _join(outputs: list[Output | Shown], output: Output | Shown) -> bool:
    """Join a stream to the same stream before it, or replace an update that nobody has seen."""
    if not outputs:
        return False
    last = outputs[-1]
    if isinstance(last, Output) and isinstance(output, Output):
        if last.kind == output.kind == "stream" and last.stream == output.stream:
            outputs[-1] = replace(last, text=last.text + output.text)
            return True
        return False
    if _same_update(last, output):
        outputs[-1] = output
        return True
    return False


def read_error(content: Mapping[str, object], longest: int = LONGEST_LINE) -> CodeError | None:
    """The exception in an error message or an error reply, or None when it names none."""
    name, message = content.get("ename"), content.get("evalue")
    if not isinstance(name, str) or not name:
        return None
    lines = content.get("traceback")
    traceback = [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
    name = " ".join(_COLOUR.sub("", clean_text(name[:LONGEST_ID])).split())
    return CodeError(
        name or "UnknownError",
        clean_text(message[:longest]) if isinstance(message, str) else "",
        tuple(clean_text(line[:longest]) for line in traceback[-LONGEST_TRACEBACK:]),
    )


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
