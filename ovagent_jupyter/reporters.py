"""Who listens: readable text, the log, a function, or several of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TextIO

from ovagent_jupyter.errors import without_escapes
from ovagent_jupyter.events import AgentEvent, Category, Level, Reporter
from ovagent_jupyter.messages import dollars

LOGGER_NAME = "ovagent_jupyter"

_LOG_LEVELS = {
    Level.DEBUG: logging.DEBUG,
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}


class SilentReporter:
    """Shows nothing; events go to the logger ``ovagent_jupyter``."""

    def __init__(self) -> None:
        # Without a handler, logging prints errors itself: not silent.
        logging.getLogger(LOGGER_NAME).addHandler(logging.NullHandler())

    def report(self, event: AgentEvent) -> None:
        """Log one event."""
        logger = logging.getLogger(LOGGER_NAME)
        logger.log(_LOG_LEVELS[event.level], "%s: %s", event.category.value, event.message)


class CallbackReporter:
    """Hands every event to a function.

    Args:
        callback: The function; what it raises is logged and goes no further.
    """

    def __init__(self, callback: Callable[[AgentEvent], object]) -> None:
        self._callback = callback

    def report(self, event: AgentEvent) -> None:
        """Call the function with one event."""
        try:
            self._callback(event)
        except Exception:  # a listener's bug must not end a turn
            logging.getLogger(LOGGER_NAME).exception("The callback failed on %s.", event.category)


class Fanout:
    """Tells several reporters, in order.

    Args:
        reporters: Who is told; what one raises is logged, and the others are still told.
    """

    def __init__(self, reporters: Iterable[Reporter]) -> None:
        self._reporters = tuple(reporters)

    def report(self, event: AgentEvent) -> None:
        """Tell all of them of one event."""
        for reporter in self._reporters:
            CallbackReporter(reporter.report).report(event)


class PrintReporter:
    """Writes events as readable text.

    Args:
        stream: Where to; None is whatever ``sys.stdout`` is at the time.
        leave_out: Kinds of events that are shown elsewhere, such as the error that ends a cell.
    """

    def __init__(
        self, stream: TextIO | None = None, *, leave_out: Collection[Category] = ()
    ) -> None:
        self._stream = stream
        self._leave_out = frozenset(leave_out)
        self._line_open = False

    def report(self, event: AgentEvent) -> None:
        """Write one event; a stream that is closed or full is given up on in silence."""
        text = "" if event.category in self._leave_out else render(event)
        if not text:
            if event.category is Category.TURN_FAILED:
                # Told elsewhere, below what has come: not behind it.
                self.end_line()
            return
        if event.category not in _CONTINUED:
            text = f"{text}\n"
            if self._line_open:
                text = f"\n{text}"
        self._line_open = not text.endswith("\n")
        self._write(text)

    def end_line(self) -> None:
        """End a line that was begun, so that what follows begins one of its own."""
        if self._line_open:
            self._line_open = False
            self._write("\n")

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stdout
        try:
            encoding = getattr(stream, "encoding", None) or "utf-8"
            stream.write(text.encode(encoding, "replace").decode(encoding))
            stream.flush()
        except (OSError, ValueError):  # ValueError: closed
            logging.getLogger(LOGGER_NAME).debug("An event could not be printed.", exc_info=True)


class AnswerReporter:
    """Writes what was asked for to one stream, and all that is told beside it to another.

    Args:
        answer: Where the answer goes, or what it would cost; None is ``sys.stdout``.
        beside: Where the rest goes.
        leave_out: Kinds of events that are shown elsewhere.
    """

    def __init__(
        self, answer: TextIO | None, beside: TextIO, *, leave_out: Collection[Category] = ()
    ) -> None:
        self._answer = PrintReporter(answer, leave_out=leave_out)
        self._beside = PrintReporter(beside, leave_out=leave_out)

    def report(self, event: AgentEvent) -> None:
        """Write one event where it belongs."""
        if _is_answer(event):
            self._answer.report(event)
            return
        if render(event):
            # Both may be one terminal.
            self._answer.end_line()
        self._beside.report(event)


def _is_answer(event: AgentEvent) -> bool:
    """Whether an event is, or ends with, what was asked for; a model's is told piece by piece."""
    if event.category is Category.TURN_FINISHED:
        return not getattr(event.data.get("turn"), "model", "")
    return event.category is Category.MODEL_DELTA


def make_reporter(
    *,
    verbose: bool = False,
    callback: Callable[[AgentEvent], object] | None = None,
    reporter: Reporter | None = None,
) -> Reporter:
    """The reporter for what the user asked for; everything that is given is told.

    Args:
        verbose: Print events as text.
        callback: A function to call with each event.
        reporter: A reporter of the user's own.

    Returns:
        The one that was asked for, several as one, or a silent one when there is none.
    """
    chosen: list[Reporter] = []
    if reporter is not None:
        chosen.append(reporter)
    if callback is not None:
        chosen.append(CallbackReporter(callback))
    if verbose:
        chosen.append(PrintReporter())
    if len(chosen) > 1:
        return Fanout(chosen)
    return chosen[0] if chosen else SilentReporter()


def render(event: AgentEvent) -> str:
    """An event as text; kinds without a form of their own are shown by their message."""
    if event.level is Level.DEBUG:
        return ""
    form = _FORMS.get(event.category)
    if form is not None:
        return form(event)
    if event.level in {Level.WARNING, Level.ERROR}:
        return f"{event.level.value}: {event.message}"
    return event.message


def _plan(event: AgentEvent) -> str:
    """The plan below how many steps it has, and what its code does to the user's work."""
    effects = event.data.get("effects")
    shown = effects_text(effects) if isinstance(effects, tuple | list) else ""
    parts = (event.message, plan_text(event.data.get("plan")), shown)
    return "\n".join(part for part in parts if part)


def effects_text(effects: Iterable[object]) -> str:
    """What code does to the user's work, as one line; empty when there is nothing to say."""
    texts = [str(effect) for effect in effects]
    return f"Effects: {'; '.join(texts)}" if texts else ""


def plan_text(plan: object) -> str:
    """A plan as a table of text: number, step, parameters, why; then what speaks against it."""
    steps = getattr(plan, "steps", None) or ()
    rows = [
        (f"{number}.", str(getattr(step, "id", step)), _parameters(step), _reason(step))
        for number, step in enumerate(steps, start=1)
    ]
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  " + "  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows]
    findings = getattr(plan, "findings", None) or ()
    return "\n".join([*lines, *(f"  ! {finding.message}" for finding in findings)])


def _parameters(step: object) -> str:
    params = getattr(step, "settings", None) or getattr(step, "params", None)
    if not isinstance(params, Mapping):
        return ""
    return ", ".join(f"{name}={value!r}" for name, value in params.items())


def _reason(step: object) -> str:
    return str(getattr(step, "reason", "") or "")


def _step_started(event: AgentEvent) -> str:
    """The title of the step, and its code below."""
    code = event.data.get("code")
    lines = code.splitlines() if isinstance(code, str) else []
    return "\n".join([f"▸ {event.message}", *(f"    {line}" for line in lines)])


def _step_finished(event: AgentEvent) -> str:
    duration = event.data.get("duration")
    timing = f" ({duration:.1f} s)" if isinstance(duration, int | float) else ""
    failed = event.level is Level.ERROR or event.data.get("status") not in {None, "ok"}
    return f"{'✗' if failed else '✓'} {event.message.removesuffix(': ok')}{timing}"


def spent_text(turn: object) -> str:
    """What a turn has spent on models, in a few words: tokens read and written, money."""
    usage = getattr(turn, "usage", None)
    read, written = getattr(usage, "input_tokens", 0), getattr(usage, "output_tokens", 0)
    about = "about " if getattr(usage, "estimated", False) else ""
    cost = getattr(turn, "cost", None)
    return f"{about}{read:,} + {written:,} tokens · {money_text(cost)}"


def money_text(cost: object) -> str:
    """Money for a reader; a price that is not known is no zero."""
    if not isinstance(cost, int | float):
        return "price not known"
    return "free" if cost == 0 else dollars(cost)


def _turn_finished(event: AgentEvent) -> str:
    """The result; of an answer, which was told piece by piece, only what it took."""
    turn = event.data.get("turn")
    model = getattr(turn, "model", "")
    return f"{model}: {spent_text(turn)}" if model else event.message


def _delta(event: AgentEvent) -> str:
    """The next piece of an answer; nothing in it may command a terminal."""
    return without_escapes(str(event.data.get("text") or event.message))


def _turn_failed(event: AgentEvent) -> str:
    """What failed, why and what to do next, where the event has it."""
    return f"error: {event.data.get('error') or event.message}"


def _output(event: AgentEvent) -> str:
    """What code printed or displayed; its text is passed on as it is."""
    output = event.data.get("output")
    if output is None:
        return f"{event.message}\n" if event.message else ""
    kind = getattr(output, "kind", "")
    text = str(getattr(output, "text", ""))
    if kind == "stream":
        return text
    if kind == "error":
        return f"{text}\n"
    data = getattr(output, "data", None)
    return f"{_displayed(data)}\n" if isinstance(data, Mapping) and data else ""


def _displayed(data: Mapping[str, str]) -> str:
    """A display as text: figures by their kind and size, the rest by its plain form."""
    for mime, content in data.items():
        if mime.startswith("image/"):
            size = len(content) * 3 // 4 if mime != "image/svg+xml" else len(content)
            return f"[figure: {mime.removeprefix('image/')}, {max(1, size // 1000)} kB]"
    return data.get("text/plain") or f"[{', '.join(data)}]"


def _changes(event: AgentEvent) -> str:
    """What came back: one line an object that changed, if the message does not say it."""
    diffs = event.data.get("diffs") or event.data.get("diff") or ()
    if not isinstance(diffs, Iterable) or isinstance(diffs, str):
        return event.message
    lines = [diff.summary() for diff in diffs if callable(getattr(diff, "summary", None))]
    return "\n".join([event.message, *(f"  {line}" for line in lines if line != event.message)])


_FORMS: Mapping[Category, Callable[[AgentEvent], str]] = {
    Category.PLAN_READY: _plan,
    Category.STEP_STARTED: _step_started,
    Category.STEP_FINISHED: _step_finished,
    Category.CODE_OUTPUT: _output,
    Category.HANDOVER_RECEIVED: _changes,
    Category.MODEL_DELTA: _delta,
    Category.TURN_FINISHED: _turn_finished,
    Category.TURN_FAILED: _turn_failed,
}
"""Kinds of events that are more than their message."""
_CONTINUED = frozenset({Category.CODE_OUTPUT, Category.MODEL_DELTA})
"""Kinds whose text goes on where the last ended."""
