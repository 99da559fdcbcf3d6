"""The card of one turn in a notebook cell: plan, code, live progress, outputs, what changed."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ovagent_jupyter.agent.turn import TURN_MIME
from ovagent_jupyter.config.llm import OFFLINE
from ovagent_jupyter.events import AgentEvent, Category, Level
from ovagent_jupyter.notebook.answer import Answer, Publisher
from ovagent_jupyter.notebook.markdown import (
    code_block,
    escape,
    folded,
    plan_table,
    seconds,
)
from ovagent_jupyter.reporters import effects_text, plan_text, spent_text

if TYPE_CHECKING:
    from ovagent_jupyter.agent.sandbox_record import SandboxRecord
    from ovagent_jupyter.agent.turn import Turn
    from ovagent_jupyter.execution.executor import Output
    from ovagent_jupyter.omics import Plan

LONG_STEP = 3.0
"""Seconds after which a running step shows how long it has run."""
NO_BREAK = "\N{NO-BREAK SPACE}"
REPAINT_EVERY = 0.1
"""Seconds between two paintings of the header: more often is quadratic in what it holds."""


class Card:
    """Draws the events of one turn into the running cell; used from the main thread only.

    The header (state, plan, progress) is one display that is painted again; everything else
    is published once, in order.

    Args:
        publisher: IPython's display publisher.
        turn_key: Part of the header's display id; unique to the cell's turn.
        show_code: Show the code unfolded (mode ``code``).
        redact: Takes keys out of what a model says.
    """

    def __init__(
        self,
        publisher: Publisher,
        turn_key: str,
        *,
        show_code: bool = False,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._publisher = publisher
        self._header_id = f"ovagent-{turn_key}"
        self._turn_key = turn_key
        self._show_code = show_code
        self._state = "planning …"
        self._plan: Plan | None = None
        self._effects: tuple[str, ...] = ()
        self._who = "offline planner"
        self._answer = Answer(publisher, f"{turn_key}-answer", redact)
        self._where = ""
        self._banner = ""
        self._progress: list[str] = []
        self._captioned = -1
        self._painted_at = 0.0
        self._step_state = ""
        self._step_began = 0.0
        self._painted = False
        self._dirty = True
        self._draw: dict[Category, Callable[[AgentEvent], None]] = {
            Category.TURN_STARTED: self._on_started,
            Category.PLAN_READY: self._on_plan,
            Category.STEP_STARTED: self._on_step_started,
            Category.STEP_FINISHED: self._on_step_finished,
            Category.CODE_OUTPUT: self._on_output,
            Category.CHILD_STARTING: self._on_state,
            Category.CHILD_READY: self._on_ready,
            Category.SANDBOX_FALLBACK: self._on_fallback,
            Category.MODEL_ASKED: self._on_asked,
            Category.MODEL_DELTA: self._on_delta,
            Category.MODEL_RETRIED: self._on_state,
            Category.MODEL_SWITCHED: self._on_switched,
            Category.TURN_FINISHED: self._on_finished,
            Category.TURN_FAILED: self._on_failed,
        }

    def show(self, event: AgentEvent | None) -> None:
        """Draw one event; None is the heartbeat."""
        if event is not None:
            draw = self._draw.get(event.category)
            if draw is not None:
                draw(event)
            elif event.level in {Level.WARNING, Level.ERROR}:
                self._notice(event.message)
            elif event.category is Category.NOTICE and event.level is Level.INFO:
                self._markdown(escape(event.message), event.message)
        elif self._step_state:
            self._tick()
        self._answer.paint()
        if self._dirty and time.monotonic() - self._painted_at >= REPAINT_EVERY:
            self._paint()

    def _on_started(self, event: AgentEvent) -> None:
        if event.data.get("model", OFFLINE) != OFFLINE:
            self._who, self._state = str(event.data["model"]), "asking …"

    def _on_plan(self, event: AgentEvent) -> None:
        self._plan = _carried(event, "plan")
        self._effects = tuple(event.data.get("effects") or ())  # type: ignore[arg-type]  # texts
        self._progress = ["" for _ in self._plan.steps] if self._plan else []
        self._state = "planned"
        self._paint()

    def _on_state(self, event: AgentEvent) -> None:
        self._state = event.message
        self._dirty = True

    def _on_asked(self, event: AgentEvent) -> None:
        self._who = str(event.data["model"])
        self._state = "answering …"
        self._paint()

    def _on_delta(self, event: AgentEvent) -> None:
        self._answer.add(str(event.data["text"]), str(event.data["reasoning"]))
        if self._state != "answering …":
            self._state = "answering …"
            self._dirty = True

    def _on_switched(self, event: AgentEvent) -> None:
        self._who = str(event.data.get("model", self._who))
        self._notice(event.message)
        self._dirty = True

    def _on_fallback(self, event: AgentEvent) -> None:
        """A step down is a banner, unless the policy is silent; it stays for all turns."""
        if event.level is not Level.DEBUG:
            self._banner = event.message
            self._dirty = True

    def _on_ready(self, event: AgentEvent) -> None:
        sandbox: SandboxRecord = _carried(event, "sandbox")
        self._where = f"{sandbox.label} · "
        self._banner = sandbox.banner
        self._dirty = True

    def _on_step_started(self, event: AgentEvent) -> None:
        index = int(str(event.data["index"]))
        self._progress[index] = "▶"
        self._step_state = f"step {index + 1} of {len(self._progress)} …"
        self._step_began = time.monotonic()
        self._state = self._step_state
        self._dirty = True

    def _tick(self) -> None:
        """Show how long a step runs once that is long enough to wonder."""
        elapsed = time.monotonic() - self._step_began
        if self._state.startswith(self._step_state) and elapsed >= LONG_STEP:
            state = f"{self._step_state} {elapsed:.0f} s"
            self._dirty = self._dirty or state != self._state
            self._state = state

    def _on_step_finished(self, event: AgentEvent) -> None:
        mark = "✓" if event.data.get("ok") else "✗"
        duration = seconds(float(str(event.data["duration"])))
        # Unbreakable: the column is as narrow as its longest word.
        progress = f"{mark} {duration}".replace(" ", NO_BREAK)
        self._progress[int(str(event.data["index"]))] = progress
        self._dirty = True

    def _on_output(self, event: AgentEvent) -> None:
        output: Output = _carried(event, "output")
        index = int(str(event.data["index"]))
        if output.kind in {"clear", "error"}:
            return
        if self._captioned != index and self._plan is not None:
            self._captioned = index
            title = self._plan.steps[index].title
            self._markdown(f"**{index + 1} · {escape(title)}**", f"── {index + 1} · {title}")
        self._relay(output)

    def _relay(self, output: Output) -> None:
        if output.kind == "stream":
            stream = sys.stderr if output.stream == "stderr" else sys.stdout
            stream.write(output.text)
            return
        transient = (
            {"display_id": f"{self._turn_key}-{output.display_id}"} if output.display_id else {}
        )
        self._publisher.publish(
            dict(output.data),
            dict(output.metadata),
            transient=transient,
            update=output.kind == "update",
        )

    def _on_finished(self, event: AgentEvent) -> None:
        turn: Turn = _carried(event, "turn")
        if turn.model:
            self._on_answered(turn)
            return
        nothing = "planned, nothing was run" if turn.plan is not None else "nothing was asked"
        done = nothing if turn.status.value == "planned" else "finished"
        self._state = f"{done} · {seconds(turn.duration)}"
        self._paint()
        if turn.status.value != "planned":
            self._summary(turn)
        elif turn.plan is None:
            self._markdown(escape(turn.answer), turn.answer)

    def _on_answered(self, turn: Turn) -> None:
        """The answer is there already; the header says what it took."""
        self._answer.end({TURN_MIME: turn.as_record()})
        self._who = turn.model
        self._state = f"{spent_text(turn)} · {seconds(turn.duration)}"
        self._paint()

    def _on_failed(self, event: AgentEvent) -> None:
        self._answer.paint(whole=True)
        self._state = str(event.data.get("state", "failed"))
        for index, mark in enumerate(self._progress):
            if mark == "▶":
                self._progress[index] = "✗"
        self._paint()

    def _summary(self, turn: Turn) -> None:
        text = f"**Result** · {escape(turn.answer)}"
        plain = f"Result: {turn.answer}"
        if turn.bindings:
            text += "  \n`%ovagent diff` shows it in full, `%ovagent undo` takes it back."
            plain += "\n%ovagent diff shows it in full, %ovagent undo takes it back."
        details = "\n".join(f"- {escape(line)}" for diff in turn.diff for line in diff.lines())
        if details:
            text += "\n\n" + folded("What changed", details)
        record = {**turn.as_record(), "code_sha256": _sha256(turn.code)}
        self._publish({"text/markdown": text, "text/plain": plain, TURN_MIME: record})

    def _notice(self, message: str) -> None:
        self._markdown(f"⚠ {escape(message)}", f"! {message}")

    def _markdown(self, text: str, plain: str) -> None:
        self._publish({"text/markdown": text, "text/plain": plain})

    def _publish(self, data: Mapping[str, object]) -> None:
        self._publisher.publish(dict(data), {})

    def _paint(self) -> None:
        self._publisher.publish(
            self._header(), {}, transient={"display_id": self._header_id}, update=self._painted
        )
        self._painted = True
        self._dirty = False
        self._painted_at = time.monotonic()

    def _header(self) -> dict[str, object]:
        head = f"· {self._who} · {self._where}{self._state}"
        text, plain = f"**ovagent** {escape(head)}", f"ovagent {' '.join(head.split())}"
        if self._banner:
            text += f"\n\n⚠ **{escape(self._banner)}**"
            plain += f"\n! {self._banner}"
        if self._plan is not None:
            code = code_block(self._plan.code)
            lines = self._plan.code.count("\n") + 1
            shown = code if self._show_code else folded(f"Code ({lines} lines)", code)
            text += f"\n\n{plan_table(self._plan, self._progress)}\n\n{shown}"
            plain += f"\n{plan_text(self._plan)}\n\n{self._plan.code}"
            effects = effects_text(self._effects)
            if effects:
                text += f"\n\n{escape(effects)}"
                plain += f"\n{effects}"
            for finding in self._plan.findings:
                text += f"\n\n⚠ {escape(finding.message)}"
                plain += f"\n! {finding.message}"
        return {"text/markdown": text, "text/plain": plain}


def _carried(event: AgentEvent, name: str) -> Any:
    """An object that an event carries; reporters in the same process get it as it is."""
    return event.data[name]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
