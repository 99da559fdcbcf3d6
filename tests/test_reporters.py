"""Who listens: what is printed, and that a listener's fault goes no further."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from ovagent_jupyter.events import AgentEvent, Category, Level
from ovagent_jupyter.execution.executor import Output
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.reporters import (
    AnswerReporter,
    CallbackReporter,
    Fanout,
    PrintReporter,
    SilentReporter,
    make_reporter,
)

FIGURE = "A" * 4_000


@dataclass(frozen=True)
class PlannedStep:
    """What a reporter reads of a step."""

    id: str
    params: dict[str, object]
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a reporter reads of a plan."""

    steps: tuple[PlannedStep | str, ...] = ()


@dataclass(frozen=True)
class Diff:
    """What a reporter reads of a difference."""

    text: str

    def summary(self) -> str:
        """One line."""
        return self.text


@dataclass
class Listener:
    """Remembers what it was told."""

    events: list[AgentEvent] = field(default_factory=list)

    def report(self, event: AgentEvent) -> None:
        """Remember."""
        self.events.append(event)


def event(
    category: Category = Category.NOTICE,
    message: str = "m",
    level: Level = Level.INFO,
    **data: object,
) -> AgentEvent:
    """One event."""
    return AgentEvent(category=category, message=message, level=level, data=data)


def printed(*events: AgentEvent) -> str:
    """What the reporter writes."""
    stream = io.StringIO()
    reporter = PrintReporter(stream)
    for one in events:
        reporter.report(one)
    return stream.getvalue()


def output(item: Output) -> AgentEvent:
    """An output as the agent passes it on."""
    return event(Category.CODE_OUTPUT, item.kind, output=item)


def stream_text(text: str) -> AgentEvent:
    """Text that code printed."""
    return output(Output("stream", stream="stdout", text=text))


@pytest.mark.parametrize("category", list(Category))
def test_every_kind_can_be_printed_without_data(category: Category) -> None:
    assert "m" in printed(event(category))


def test_warnings_are_marked_and_debug_is_not_shown() -> None:
    assert printed(event(level=Level.WARNING)) == "warning: m\n"
    assert printed(event(level=Level.DEBUG)) == ""


def test_a_plan_names_the_effects_of_its_code() -> None:
    made = event(Category.PLAN_READY, "0 steps", effects=("drops cells", "writes /a"))
    assert printed(made) == "0 steps\nEffects: drops cells; writes /a\n"
    assert "Effects" not in printed(event(Category.PLAN_READY, "0 steps", effects=()))


def test_plan_is_a_table_with_parameters_and_reasons() -> None:
    plan = Plan(
        (
            PlannedStep("pp.pca", {"n_comps": 30}, "needed by neighbours"),
            PlannedStep("tl.leiden", {"resolution": 0.5, "key": "leiden"}, ""),
        )
    )
    assert printed(event(Category.PLAN_READY, "2 steps", plan=plan)).splitlines() == [
        "2 steps",
        "  1.  pp.pca     n_comps=30                    needed by neighbours",
        "  2.  tl.leiden  resolution=0.5, key='leiden'",
    ]


def test_step_shows_code_then_time() -> None:
    text = printed(
        event(Category.STEP_STARTED, "Cluster", code="a()\nb()"),
        event(Category.STEP_FINISHED, "Cluster: ok", duration=1.26, status="ok"),
        event(Category.STEP_FINISHED, "Plot: error", level=Level.ERROR, status="error"),
    )
    assert text == "▸ Cluster\n    a()\n    b()\n✓ Cluster (1.3 s)\n✗ Plot: error\n"


def test_stream_is_passed_on_as_it_is_and_the_next_event_begins_a_line() -> None:
    text = printed(stream_text("half "), stream_text("line"), event(), stream_text("\n"), event())
    assert text == "half line\nm\n\nm\n"


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        (Output("display", data={"image/png": FIGURE, "text/plain": ""}), "[figure: png, 3 kB]\n"),
        (Output("display", data={"image/svg+xml": "A" * 40}), "[figure: svg+xml, 1 kB]\n"),
        (Output("result", data={"text/html": "<b>", "text/plain": "b"}), "b\n"),
        (Output("result", data={"text/html": "<b>"}), "[text/html]\n"),
        (Output("error", text="ValueError: no"), "ValueError: no\n"),
        (Output("clear"), ""),
    ],
)  # fmt: skip
def test_output_is_shown_as_text(item: Output, shown: str) -> None:
    assert printed(output(item)) == shown


def test_parts_that_are_not_what_is_expected_are_shown_by_their_name() -> None:
    planned = event(Category.PLAN_READY, "1 step", plan=Plan(("qc",)))
    assert printed(planned) == "1 step\n  1.  qc\n"
    assert printed(event(Category.HANDOVER_RECEIVED, "back", diffs="text")) == "back\n"


def test_differences_are_shown_once() -> None:
    diff = Diff("adata: +obs/leiden")
    received = event(Category.HANDOVER_RECEIVED, "1 change", diffs=(diff,))
    assert printed(received) == "1 change\n  adata: +obs/leiden\n"
    assert printed(event(Category.HANDOVER_RECEIVED, diff.text, diffs=(diff,))) == f"{diff.text}\n"


def test_failed_turn_says_why_and_what_next() -> None:
    failed = event(Category.TURN_FAILED, "No.", Level.ERROR, error="No.\nWhy: w\nNext: n")
    assert printed(failed) == "error: No.\nWhy: w\nNext: n\n"


def test_default_stream_is_standard_output_of_the_moment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    PrintReporter().report(event())
    assert capsys.readouterr().out == "m\n"


def test_closed_stream_does_not_raise() -> None:
    stream = io.StringIO()
    stream.close()
    PrintReporter(stream).report(event())


def test_text_that_the_stream_cannot_write_is_replaced() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    PrintReporter(stream).report(event(message="−37 cells"))
    assert raw.getvalue() == b"?37 cells\n"


def test_silent_reporter_only_logs(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="ovagent_jupyter"):
        SilentReporter().report(event(level=Level.WARNING))
    assert capsys.readouterr() == ("", "")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("WARNING", "notice: m")]


def test_callback_that_fails_is_logged_and_the_others_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_event: AgentEvent) -> None:
        raise RuntimeError("the callback's own fault")

    last = Listener()
    Fanout([CallbackReporter(fail), last]).report(event())
    assert len(last.events) == 1
    assert "the callback's own fault" in caplog.text


def test_make_reporter_chooses() -> None:
    listener = Listener()
    assert isinstance(make_reporter(), SilentReporter)
    assert isinstance(make_reporter(verbose=True), PrintReporter)
    assert isinstance(make_reporter(callback=print), CallbackReporter)
    assert make_reporter(reporter=listener) is listener


def test_make_reporter_tells_all_that_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    listener, called = Listener(), Listener()
    made = make_reporter(reporter=listener, callback=called.report, verbose=True)
    made.report(event())
    assert len(listener.events) == len(called.events) == 1
    assert capsys.readouterr().out == "m\n"


def test_a_failure_that_is_told_elsewhere_begins_a_line_of_its_own() -> None:
    stream = io.StringIO()
    reporter = PrintReporter(stream, leave_out=(Category.TURN_FAILED,))
    reporter.report(event(Category.MODEL_DELTA, "", text="A few"))
    reporter.report(event(level=Level.DEBUG))
    assert stream.getvalue() == "A few"
    reporter.report(event(Category.TURN_FAILED, "the stream broke"))
    assert stream.getvalue() == "A few\n"


def test_an_answer_stands_alone_and_the_rest_beside_it() -> None:
    answer, beside = io.StringIO(), io.StringIO()
    reporter = AnswerReporter(answer, beside)
    asked = SimpleNamespace(model="lab-model", usage=Usage(), cost=0.0)
    for one in (
        event(Category.MODEL_ASKED, "asking lab-model …"),
        event(Category.MODEL_DELTA, "", text="Two "),
        event(level=Level.DEBUG),
        event(Category.MODEL_DELTA, "", text="cells."),
        event(level=Level.WARNING),
        event(Category.TURN_FINISHED, "Two cells.", turn=asked),
    ):
        reporter.report(one)
    assert answer.getvalue() == "Two cells.\n"
    assert beside.getvalue() == ("asking lab-model …\nwarning: m\nlab-model: 0 + 0 tokens · free\n")
    reporter.report(event(Category.TURN_FINISHED, "About $0.01.", turn=SimpleNamespace(model="")))
    assert answer.getvalue().endswith("About $0.01.\n")


def test_an_answer_commands_no_terminal() -> None:
    stream = io.StringIO()
    data = {"text": "a\x1b[2J\x1b]52;c;ZXZpbA==\x07b\n", "reasoning": ""}
    PrintReporter(stream).report(AgentEvent(category=Category.MODEL_DELTA, message="", data=data))
    assert stream.getvalue() == "a[2J]52;c;ZXZpbA==b\n"
