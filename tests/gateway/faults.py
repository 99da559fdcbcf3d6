"""The table of faults: what a service may do, in which phase, and what the caller gets.

``test_fault_matrix.py`` makes each row happen through real sockets, and the page in the docs is
written from the same rows by ``python -m tests.gateway.faults``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ovagent_jupyter.providers.provider import WireAPI
from tests.gateway.speech import SPEECHES, Speech, whole
from tests.providers.served import CUT, HANG, JSON, PAGE, STREAM, Step

Phase = Literal[
    "connect", "headers", "first byte", "mid-stream", "mid-tool-call", "after the last byte"
]
PAGE_FILE = Path(__file__).parents[2] / "docs" / "reference" / "fault-matrix.md"

ANSWERED = "answer"
INTERRUPTED = "interrupted"
"""Outcomes beside the kinds of fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault in one phase, and what becomes of a call that meets it."""

    fault: str
    """For a reader."""
    phase: Phase
    streamed: bool
    outcome: str
    """Of a backend without retry and backup: ``answer``, or the kind of the error."""
    retried: bool = False
    """Whether the same backend is asked again."""
    fails_over: bool = False
    """Whether the next backend is asked."""
    steps: tuple[Step, ...] = ()
    """What the server does; none where it is not there."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    head: bool = True
    waits: bool = False
    """Whether our own limit ends it, so that limits are short in the test."""
    tools: bool = False
    """Whether the answer has a tool call."""
    wire: WireAPI = WireAPI.CHAT_COMPLETIONS

    @property
    def id(self) -> str:
        """Names it in a report of tests."""
        how = "streamed" if self.streamed else "whole"
        return f"{self.phase}, {self.fault}, {how}, {self.wire}"


def _error(message: str, code: str = "") -> bytes:
    return json.dumps({"error": {"message": message, "code": code, "type": code}}).encode()


# -- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Status:
    """An answer by its status."""

    fault: str
    status: int
    outcome: str
    again: bool
    on: bool = True
    body: bytes = _error("no")
    headers: dict[str, str] = field(default_factory=dict)


STATUSES = (
    _Status("400", 400, "bad_request", again=False),
    _Status("400, conversation too long", 400, "context_full", again=False, on=False,
            body=_error("maximum context length is 1000 tokens", "context_length_exceeded")),
    _Status("400, against a policy", 400, "policy", again=False, on=False,
            body=_error("refused", "content_policy_violation")),
    _Status("401", 401, "key", again=False),
    _Status("402", 402, "payment", again=False),
    _Status("403", 403, "permission", again=False),
    _Status("404", 404, "unknown_model", again=False),
    _Status("408", 408, "timeout", again=True),
    _Status("429", 429, "rate_limited", again=True),
    _Status("429, wait a moment", 429, "rate_limited", again=True, headers={"retry-after": "1"}),
    _Status("429, wait an hour", 429, "rate_limited", again=False, headers={"retry-after": "3600"}),
    _Status("429, no credit left", 429, "payment", again=False,
            body=_error("You exceeded your current quota", "insufficient_quota")),
    _Status("500", 500, "server", again=True),
    _Status("502, a web page", 502, "server", again=True, body=b"<html><title>Bad gateway"),
    _Status("503", 503, "overloaded", again=True),
    _Status("529", 529, "overloaded", again=True),
)  # fmt: skip


def cases() -> Iterator[Case]:
    """All rows."""
    for streamed in (True, False):
        yield from _before_a_head(streamed)
        yield from _after_a_head(streamed)
    yield from _streams()
    yield from _bodies()


def _before_a_head(streamed: bool) -> Iterator[Case]:
    both = {"retried": True, "fails_over": True, "streamed": streamed}
    yield Case(fault="refused", phase="connect", outcome="unreachable", **both)  # type: ignore[arg-type]
    for fault, step, outcome in (("cut", CUT, "interrupted"), ("hang", HANG, "timeout")):
        yield Case(
            fault=fault, phase="headers", outcome=outcome, steps=(step,), head=False,
            waits=step == HANG, **both,  # type: ignore[arg-type]
        )  # fmt: skip
    for row in STATUSES:
        yield Case(
            fault=row.fault, phase="headers", streamed=streamed, outcome=row.outcome,
            retried=row.again, fails_over=row.on, steps=(row.body,), status=row.status,
            headers=JSON | row.headers,
        )  # fmt: skip


def _after_a_head(streamed: bool) -> Iterator[Case]:
    kind = STREAM if streamed else JSON
    rows: tuple[tuple[str, tuple[Step, ...], dict[str, str], str, bool], ...] = (
        ("cut", (CUT,), kind, "interrupted", True),
        ("hang", (HANG,), kind, "timeout", True),
        ("nothing", (), kind, "malformed", True),
        ("a web page", (b"<html><title>Welcome",), PAGE, "malformed", False),
        ("an error", (_error("overloaded", "overloaded_error"),), JSON, "overloaded", True),
        ("no choices", (b'{"id": "r1", "choices": []}',), JSON, "malformed", True),
    )
    for fault, steps, headers, outcome, again in rows:
        yield Case(
            fault=fault, phase="first byte", streamed=streamed, outcome=outcome, retried=again,
            fails_over=True, steps=steps, headers=headers, waits=HANG in steps,
        )  # fmt: skip


def _streams() -> Iterator[Case]:
    for speech in SPEECHES.values():
        yield from _broken(speech, "mid-stream", speech.text, tools=False)
        yield from _broken(speech, "mid-tool-call", speech.call, tools=True)
        yield from _ended(speech, (speech.text, *speech.text_end), tools=False)
        yield from _ended(speech, (speech.call, *speech.call_end), tools=True)


def _broken(speech: Speech, phase: Phase, begun: bytes, *, tools: bool) -> Iterator[Case]:
    rows: tuple[tuple[str, tuple[Step, ...]], ...] = (
        ("cut", (CUT,)),
        ("hang", (HANG,)),
        ("end without an end", ()),
        ("an error", (speech.error,)),
        ("garbage", (b"data: {broken\n\n",)),
    )
    for fault, steps in rows:
        yield Case(
            fault=fault, phase=phase, streamed=True, outcome=INTERRUPTED, tools=tools,
            steps=(begun, *steps), headers=STREAM, waits=HANG in steps, wire=speech.wire,
        )  # fmt: skip


def _ended(speech: Speech, said: tuple[bytes, ...], *, tools: bool) -> Iterator[Case]:
    rows: list[tuple[str, tuple[Step, ...]]] = [
        ("cut", (*said, CUT)),
        ("hang", (*said, HANG)),
    ]
    if speech.wire is WireAPI.CHAT_COMPLETIONS:  # which says before why it stopped
        rows.append(("cut before [DONE]", (*said[:-1], CUT)))
        rows.append(("hang before [DONE]", (*said[:-1], HANG)))
    for fault, steps in rows:
        yield Case(
            fault=f"a tool call, {fault}" if tools else fault, phase="after the last byte",
            streamed=True, outcome=ANSWERED, tools=tools, steps=steps, headers=STREAM,
            waits=HANG in steps, wire=speech.wire,
        )  # fmt: skip


def _bodies() -> Iterator[Case]:
    for tools in (False, True):
        body = whole(tools=tools)
        phase: Phase = "mid-tool-call" if tools else "mid-stream"
        part = body[: body.index(b"1 + 1") if tools else body.index(b"lo")]
        for fault, steps, outcome in (
            ("cut", (part, CUT), "interrupted"),
            ("hang", (part, HANG), "timeout"),
            ("end without an end", (part,), "malformed"),
        ):
            yield Case(
                fault=fault, phase=phase, streamed=False, outcome=outcome, retried=True,
                fails_over=True, tools=tools, steps=steps, headers=JSON, waits=HANG in steps,  # type: ignore[arg-type]
            )  # fmt: skip


# -- the page --------------------------------------------------------------------------------------

_INTRO = """# What becomes of a call that fails

<!-- Written by `python -m tests.gateway.faults`; change that, not this. -->

Each row is a fault of a service in one phase of a call. `tests/gateway/test_fault_matrix.py` makes
each happen through a real socket, with one backend that may be asked twice, with a backup, and
with neither; what comes in the middle of a stream, or at its end, on each of the three HTTP wires.

- *asked again*: the same backend is asked once more, after a wait.
- *backup asked*: the next backend is asked, where there is one.
- *else*: what the caller gets where nobody else is asked. `interrupted` after a part of an answer
  is `StreamInterrupted` with that part; all else is `ProviderError` with this `fault`.

Once a part of an answer has been passed on, nobody is asked again: a text that was read does not
change behind its reader. A tool call that was not written to its end is in no answer.

"""
_HEAD = ("phase", "fault", "answer", "asked again", "backup asked", "else")


def table() -> list[str]:
    """The rows as Markdown; what is the same streamed and in one piece is one row."""
    rows: dict[tuple[str, ...], set[str]] = {}
    for case in cases():
        shown = (
            case.phase,
            case.fault,
            "yes" if case.retried else "no",
            "yes" if case.fails_over else "no",
            f"`{case.outcome}`" if case.outcome != ANSWERED else "the answer",
        )
        rows.setdefault(shown, set()).add("streamed" if case.streamed else "in one piece")
    phases = list(dict.fromkeys(case.phase for case in cases()))
    lines = [_row(_HEAD), _row(tuple("---" for _ in _HEAD))]
    for row in sorted(rows, key=lambda each: phases.index(each[0])):  # type: ignore[arg-type]
        how = "both" if len(rows[row]) > 1 else min(rows[row])
        lines.append(_row((*row[:2], how, *row[2:])))
    return lines


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    """The page of the docs."""
    return _INTRO + "\n".join(table()) + "\n"


if __name__ == "__main__":
    PAGE_FILE.write_text(page(), "utf-8")
