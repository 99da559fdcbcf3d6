"""Outputs are bounded and clean whatever a message says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ovagent_jupyter.execution.bundles import clean_bundle, clean_metadata, clean_text
from ovagent_jupyter.execution.executor import Output
from ovagent_jupyter.execution.outputs import (
    OutputAllowance,
    OutputCollector,
    OutputLimits,
    read_error,
)

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def collect(*messages: tuple[str, dict[str, Any]], **limits: Any) -> OutputCollector:
    collector = OutputCollector(OutputLimits(**limits))
    for kind, content in messages:
        collector.take(kind, content)
    return collector


def stream(text: object, name: object = "stdout") -> tuple[str, dict[str, object]]:
    return "stream", {"name": name, "text": text}


def display(data: object, kind: str = "display_data", **more: object) -> tuple[str, dict[str, Any]]:
    return kind, {"data": data, **more}


def test_chunks_of_one_stream_are_joined_and_order_is_kept() -> None:
    outputs = collect(stream("a"), stream("b"), stream("c", "stderr"), stream("d")).outputs
    assert [(o.stream, o.text) for o in outputs] == [
        ("stdout", "ab"),
        ("stderr", "c"),
        ("stdout", "d"),
    ]


def test_a_stream_is_cut_with_one_notice() -> None:
    collector = collect(stream("x" * 8), stream("y" * 8), stream("z" * 8), stream_chars=10)
    assert [o.text for o in collector.outputs if o.stream == "stdout"] == ["x" * 8 + "yy"]
    assert len([o for o in collector.outputs if "output cut" in o.text]) == 1
    assert collector.truncated


def test_displays_are_bounded_in_number_and_size() -> None:
    many = collect(*[display({"text/plain": str(n)}) for n in range(20)], count=5)
    assert len([o for o in many.outputs if o.kind == "display"]) == 5
    assert many.truncated
    large = collect(display({"text/plain": "x" * 100}), bundle_chars=50)
    assert [o.kind for o in large.outputs] == ["stream"]
    total = collect(*[display({"text/plain": "x" * 30})] * 3, cell_chars=70)
    assert len([o for o in total.outputs if o.kind == "display"]) == 2


def test_only_allowed_types_pass() -> None:
    bundle = clean_bundle(
        {
            "text/html": ["<b>", "x</b>"],
            "image/png": PNG,
            "image/jpeg": "<script>",
            "application/json": {"a": [1]},
            "application/javascript": "alert(1)",
            "application/vnd.jupyter.widget-view+json": {},
            "text/plain": 5,
            3: "x",
        }
    )
    assert bundle == {
        "text/html": "<b>x</b>",
        "image/png": PNG,
        "application/json": json.dumps({"a": [1]}),
    }


def test_metadata_is_reduced_to_sizes() -> None:
    metadata = {"image/png": {"width": 3, "x": 1, "height": [1]}, "jupyter": {"source_hidden": 1}}
    assert clean_metadata(metadata) == {"image/png": {"width": 3}}
    assert clean_metadata("x") == {}


def test_terminal_escapes_go_but_colours_stay() -> None:
    text = "\x1b[31mred\x1b[0m\x1b[2J\x1b]0;title\x07\x1bc\x1b(B\x9bx\x1b"
    assert clean_text(text) == "\x1b[31mred\x1b[0mx"
    assert clean_text("a\ud800b").encode()


def test_an_update_replaces_what_is_shown() -> None:
    ident = {"display_id": "d"}
    collector = collect(
        display({"text/plain": "1"}, transient=ident),
        stream("between"),
        display({"text/plain": "2"}, "update_display_data", transient=ident),
        display({"text/plain": "3"}, "update_display_data", transient=ident),
        display({"text/plain": "no id"}, "update_display_data"),
    )
    assert [o.data.get("text/plain") for o in collector.outputs] == ["3", None]


def test_an_update_of_an_earlier_cell_is_kept_as_one() -> None:
    update = display({"text/plain": "2"}, "update_display_data", transient={"display_id": "d"})
    assert [o.kind for o in collect(update).outputs] == ["update"]


def test_clear_now_and_clear_at_the_next_output() -> None:
    assert collect(stream("a"), ("clear_output", {})).outputs == ()
    waiting = collect(stream("a"), ("clear_output", {"wait": True}))
    assert [o.text for o in waiting.outputs] == ["a"]
    waiting.take(*stream("b"))
    assert [o.text for o in waiting.outputs] == ["b"]


def test_live_outputs_come_in_order_and_joined() -> None:
    clock, seen = Clock(), list[Output]()
    collector = OutputCollector(OutputLimits(interval=1.0), seen.append, clock)
    collector.take(*stream("a"))
    collector.flush()
    collector.take(*stream("b"))
    collector.take(*stream("c"))
    assert collector.flush() == pytest.approx(1.0)
    assert [o.text for o in seen] == ["a"]
    clock.now = 2.0
    collector.flush()
    collector.take("clear_output", {"wait": False})
    collector.flush(force=True)
    assert [(o.kind, o.text) for o in seen] == [("stream", "a"), ("stream", "bc"), ("clear", "")]


def test_an_error_names_the_exception_once() -> None:
    first = {"ename": "KeyError", "evalue": "'x'", "traceback": ["\x1b[0m line", 5]}
    collector = collect(("error", first), ("error", {"ename": "Other", "evalue": ""}))
    assert collector.error is not None
    assert (collector.error.name, collector.error.message) == ("KeyError", "'x'")
    assert collector.error.traceback == ("\x1b[0m line",)
    assert [o.text for o in collector.outputs] == ["KeyError: 'x'"]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"name": 3, "text": "x"},
        {"name": "stdout", "text": None},
        {"name": "stdin", "text": "x"},
        {"data": []},
        {"data": {"text/plain": {"a": 1}}},
        {"data": {"text/plain": "x"}, "transient": [], "metadata": 7},
        {"data": {"image/png": 3}, "transient": {"display_id": ["x"]}},
        {"ename": 3, "evalue": 4, "traceback": {}},
        {"wait": {"x": []}},
        {"state": "x", "comm_id": 5},
    ],
)
def test_no_content_makes_it_raise(content: dict[str, object]) -> None:
    kinds = "stream display_data update_display_data execute_result error clear_output comm_open"
    for kind in [*kinds.split(), "", "status"]:
        collector = OutputCollector(OutputLimits())
        collector.take(kind, content)
        collector.flush(force=True)
    read_error(content)


def test_a_session_has_a_bound_that_cells_share() -> None:
    limits = OutputLimits(session_chars=100)
    allowance = OutputAllowance(limits)
    first = OutputCollector(limits, allowance=allowance)
    first.take(*stream("x" * 60))
    second = OutputCollector(limits, allowance=allowance)
    second.take(*stream("y" * 60))
    second.take(*display({"text/plain": "z" * 30}))
    second.take("error", {"ename": "E", "evalue": "x"})
    assert [o.text for o in first.outputs] == ["x" * 60]
    assert ["output cut" in o.text for o in second.outputs] == [True, False, False]
    assert "restart" in second.outputs[0].text
    assert second.error is not None
    third = OutputCollector(limits, allowance=allowance)
    third.take(*display({"text/plain": "z" * 30}))
    assert [o.kind for o in third.outputs] == ["stream"]


def test_updates_that_are_passed_on_count_for_the_session() -> None:
    limits, seen, clock = OutputLimits(session_chars=100), list[Output](), Clock()
    collector = OutputCollector(limits, seen.append, clock)
    collector.take(*display({"text/plain": "x" * 30}, transient={"display_id": "d"}))
    for _ in range(5):
        clock.now += 1
        collector.take(
            *display({"text/plain": "y" * 30}, "update_display_data", transient={"display_id": "d"})
        )
        collector.flush()
    assert [o.kind for o in seen] == ["display", "update", "update"]
    assert collector.truncated


def test_updates_cannot_make_a_cell_larger_than_its_bound() -> None:
    collector = OutputCollector(OutputLimits(bundle_chars=50, cell_chars=100))
    for name in "abcd":
        collector.take(*display({"text/plain": name}, transient={"display_id": name}))
    for name in "abcd":
        large = {"text/plain": name * 45}
        collector.take(*display(large, "update_display_data", transient={"display_id": name}))
    assert sum(len(o.data.get("text/plain", "")) for o in collector.outputs) <= 100
    assert collector.truncated


def test_a_flood_of_displays_is_slowed_down_and_the_last_update_stays() -> None:
    clock, limits = Clock(), OutputLimits(rate=10)
    collector = OutputCollector(limits, None, clock)
    ident = {"display_id": "d"}
    collector.take(*display({"text/plain": "0"}, transient=ident))
    for number in range(1000):
        collector.take(
            *display({"text/plain": str(number)}, "update_display_data", transient=ident)
        )
    assert [o.data.get("text/plain") for o in collector.outputs] == ["999"]
    assert not collector.truncated
    for number in range(1000):
        collector.take(*display({"text/plain": str(number)}))
        collector.take("clear_output", {"wait": number % 2 == 0})
    assert len(collector.outputs) <= 11
    assert collector.truncated
    clock.now += 1
    collector.take(*display({"text/plain": "later"}))
    assert collector.outputs[-1].data == {"text/plain": "later"}


def test_what_is_cleared_no_longer_counts_and_is_not_passed_on() -> None:
    clock, seen = Clock(), list[Output]()
    limits = OutputLimits(count=2, stream_chars=10, bundle_chars=5, cell_chars=5, pieces=4)
    collector = OutputCollector(limits, seen.append, clock)
    for number in range(100):
        clock.now += 0.001
        collector.take("clear_output", {"wait": bool(number % 2)})
        collector.take(*stream(f"{number:>7}"))
        collector.take(*display({"text/plain": "12345"}))
    collector.flush(force=True)
    assert not collector.truncated
    assert [o.text or o.data["text/plain"] for o in collector.outputs] == ["     99", "12345"]
    assert [o.kind for o in seen] == ["clear", "stream", "display"]


def test_streams_that_alternate_are_bounded_in_parts() -> None:
    collector = OutputCollector(OutputLimits(pieces=10))
    for number in range(1000):
        collector.take(*stream("x", ("stdout", "stderr")[number % 2]))
    collector.take("error", {"ename": "E", "evalue": ""})
    assert len(collector.outputs) <= 13
    assert collector.truncated
    assert collector.outputs[-1].kind == "error"


def test_names_of_exceptions_are_one_plain_word() -> None:
    error = read_error({"ename": "\x1b[31mKey\nError\u202e", "evalue": "\x1b]0;t\x07v"})
    assert error is not None
    assert (error.name, error.message) == ("Key Error", "v")
    assert read_error({"ename": "\x1b[2J", "evalue": ""}) is not None
