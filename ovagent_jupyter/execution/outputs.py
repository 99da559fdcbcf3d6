"""What the child says it printed and showed, turned into outputs that are bounded and clean.

Nothing here raises on what a message contains: the child's messages are untrusted. What has the
wrong shape is dropped, what is too long is cut with a notice.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ovagent_jupyter.execution.executor import CodeError, OnOutput, Output, OutputKind

TEXT_TYPES = frozenset({"text/plain", "text/html", "text/markdown", "text/latex", "image/svg+xml"})
BASE64_TYPES = frozenset({"image/png", "image/jpeg"})
JSON_TYPE = "application/json"
ALLOWED_TYPES = TEXT_TYPES | BASE64_TYPES | {JSON_TYPE}
"""All other MIME types are dropped: widgets, scripts and what is not invented yet."""

ALLOWED_METADATA = frozenset({"width", "height", "unconfined", "needs_background"})
LONGEST_ID = 200
LONGEST_TRACEBACK = 200
"""Lines."""

_ESCAPES = re.compile(
    r"\x1b\[[0-9;]*m"
    r"|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]|[\x1b\x80-\x9f]"
)
"""Colours, then every other sequence of ECMA-48."""
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """How much of a cell's output is passed on."""

    stream_chars: int = 1_000_000
    """Characters printed by one cell."""
    bundle_chars: int = 16_000_000
    """Characters of one displayed thing, all its MIME types together."""
    cell_chars: int = 64_000_000
    """Characters of all things displayed by one cell."""
    count: int = 1_000
    """Things displayed by one cell."""
    interval: float = 0.03
    """Seconds between two live hand-overs; what comes faster is joined."""


class OutputCollector:
    """Takes the output messages of one cell, in order, and keeps what a reader should see.

    ``outputs`` is the cell as it looks at the end: updates are applied, cleared things are gone.
    The live callback gets every step of it, joined to at most one call series per interval.

    Args:
        limits: The bounds.
        on_output: Called with each output, live and in order.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        limits: OutputLimits,
        on_output: OnOutput | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._on_output = on_output
        self._clock = clock
        self._stream_left = limits.stream_chars
        self._bundle_left = limits.cell_chars
        self._count_left = limits.count
        self._pending: list[Output] = []
        self._passed_on_at = float("-inf")
        self._shown: list[Output] = []
        self._clear_next = False
        self._noticed = False
        self.error: CodeError | None = None
        """The exception the cell reported, if any."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The cell's outputs as they look now."""
        return tuple(self._shown)

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
            case "clear_output":
                self._add(Output("clear", metadata={"wait": bool(content.get("wait"))}))
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
            for output in pending:
                self._on_output(output)
        self._passed_on_at = self._clock()
        return float("inf")

    def _take_stream(self, content: Mapping[str, object]) -> None:
        name, text = content.get("name"), content.get("text")
        if (name != "stdout" and name != "stderr") or not isinstance(text, str):  # noqa: PLR1714
            return
        kept = text[: self._stream_left]
        self._stream_left -= len(kept)
        if kept:
            self._add(Output("stream", stream=name, text=clean_text(kept)))
        if len(kept) < len(text):
            self._notice(f"more than {self._limits.stream_chars:,} characters were printed")

    def _take_bundle(self, kind: OutputKind, content: Mapping[str, object]) -> None:
        data = clean_bundle(content.get("data"))
        size = sum(map(len, data.values()))
        transient = content.get("transient")
        display_id = transient.get("display_id") if isinstance(transient, dict) else None
        if not isinstance(display_id, str) or len(display_id) > LONGEST_ID:
            display_id = ""
        if not data or (kind == "update" and not display_id):
            return
        if size > self._limits.bundle_chars:
            self._notice(f"a display of {size:,} characters was too large")
            return
        if kind != "update" and (size > self._bundle_left or not self._count_left):
            self._notice("too much was displayed")
            return
        if kind != "update":
            self._bundle_left -= size
            self._count_left -= 1
        metadata = clean_metadata(content.get("metadata"))
        self._add(Output(kind, data=data, metadata=metadata, display_id=display_id))

    def _take_error(self, content: Mapping[str, object]) -> None:
        error = read_error(content)
        if error is None or self.error is not None:
            return
        self.error = error
        message = f"{error.name}: {error.message}" if error.message else error.name
        self._add(Output("error", text=message))

    def _notice(self, reason: str) -> None:
        if not self._noticed:
            self._noticed = True
            self._add(Output("stream", stream="stderr", text=f"\n[output cut: {reason}]\n"))

    def _add(self, output: Output) -> None:
        self._show(output)
        if not _join(self._pending, output):
            self._pending.append(output)

    def _show(self, output: Output) -> None:
        if output.kind == "clear":
            if output.metadata["wait"]:
                self._clear_next = True
            else:
                self._shown.clear()
            return
        if self._clear_next:
            self._shown.clear()
            self._clear_next = False
        if output.kind == "update":
            self._apply_update(output)
        elif not _join(self._shown, output):
            self._shown.append(output)

    def _apply_update(self, update: Output) -> None:
        found = False
        for place, shown in enumerate(self._shown):
            if shown.display_id == update.display_id:
                self._shown[place] = replace(shown, data=update.data, metadata=update.metadata)
                found = True
        if not found and self._count_left:
            self._count_left -= 1
            self._shown.append(update)


def _join(outputs: list[Output], output: Output) -> bool:
    """Join a stream to the same stream before it, or replace an update that nobody has seen."""
    if not outputs:
        return False
    last = outputs[-1]
    if output.kind == last.kind == "stream" and output.stream == last.stream:
        outputs[-1] = replace(last, text=last.text + output.text)
        return True
    if output.kind == last.kind == "update" and output.display_id == last.display_id:
        outputs[-1] = output
        return True
    return False


def clean_text(text: str) -> str:
    """Text without terminal escapes other than colours, and without lone surrogates."""
    if "\x1b" in text or not text.isascii():
        text = _ESCAPES.sub(_keep_colour, text)
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def _keep_colour(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("\x1b[") and found[0].endswith("m") else ""


def clean_bundle(data: object) -> dict[str, str]:
    """The allowed MIME types of a display, each as one text."""
    if not isinstance(data, dict):
        return {}
    bundle = {}
    for mime in sorted(ALLOWED_TYPES & data.keys()):
        text = _bundle_text(mime, data[mime])
        if text is not None:
            bundle[mime] = text
    return bundle


def _bundle_text(mime: str, value: object) -> str | None:
    if mime == JSON_TYPE:
        return clean_text(json.dumps(value, ensure_ascii=False))
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)
    if not isinstance(value, str):
        return None
    if mime in BASE64_TYPES:
        return value if _BASE64.fullmatch(value) else None
    return clean_text(value)


def clean_metadata(metadata: object) -> dict[str, object]:
    """Sizes and the like of a display; whatever else it says is dropped."""
    if not isinstance(metadata, dict):
        return {}
    kept: dict[str, object] = {}
    for mime in sorted(ALLOWED_TYPES & metadata.keys()):
        entry = metadata[mime]
        if isinstance(entry, dict):
            kept[mime] = {
                name: entry[name]
                for name in sorted(ALLOWED_METADATA & entry.keys())
                if isinstance(entry[name], bool | int | float)
                or (isinstance(entry[name], str) and len(entry[name]) <= LONGEST_ID)
            }
    return kept


def read_error(content: Mapping[str, object], longest: int = 20_000) -> CodeError | None:
    """The exception in an error message or an error reply, or None when it names none."""
    name, message = content.get("ename"), content.get("evalue")
    if not isinstance(name, str) or not name:
        return None
    lines = content.get("traceback")
    traceback = [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
    return CodeError(
        clean_text(name[:LONGEST_ID]),
        clean_text(message[:longest]) if isinstance(message, str) else "",
        tuple(clean_text(line[:longest]) for line in traceback[-LONGEST_TRACEBACK:]),
    )
