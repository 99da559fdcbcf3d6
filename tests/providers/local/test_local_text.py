"""What a local model writes, told apart: thoughts, calls and text, however it is cut."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovagent_jupyter.messages import ToolCall
from ovagent_jupyter.providers.local.call_text import CallProgress, parse_json_call, whole_calls
from ovagent_jupyter.providers.local.runner import Marks
from ovagent_jupyter.providers.local.text_filter import Piece, TextFilter

# -- the text of a model -----------------------------------------------------------------------


def sorted_out(
    chunks: list[str], stop: tuple[str, ...] = (), *, thinking: bool = False
) -> list[tuple[str, str]]:
    """Kinds and texts, neighbours of one kind joined."""
    sorter = TextFilter(Marks(), stop, thinking=thinking)
    pieces: list[Piece] = [piece for chunk in chunks for piece in sorter.feed(chunk)]
    pieces += sorter.end()
    joined: list[tuple[str, str]] = []
    for piece in pieces:
        if joined and joined[-1][0] == piece.kind != "call_end":
            joined[-1] = (piece.kind, joined[-1][1] + piece.text)
        else:
            joined.append((piece.kind, piece.text))
    return joined


WRITTEN = "<think>so</think>\n\nLook:\n<tool_call>{a}</tool_call>\n<tool_call>{b}</tool_call> ok "
SORTED = [
    ("thought", "so"),
    ("text", "Look:"),
    ("call", "{a}"),
    ("call_end", ""),
    ("call", "{b}"),
    ("call_end", ""),
    ("text", "ok "),
]


@given(st.lists(st.integers(0, len(WRITTEN)), max_size=12))
def test_kinds_do_not_depend_on_how_the_text_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(WRITTEN)]
    chunks = [WRITTEN[a:b] for a, b in pairwise(places)]
    assert sorted_out(chunks) == SORTED


@given(st.text(alphabet="ab<think>/ \n", max_size=40), st.integers(1, 5))
@settings(max_examples=200)
def test_nothing_is_lost_and_nothing_is_made_up(text: str, size: int) -> None:
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    if "<think>" in text:
        return
    assert "".join(part for _, part in sorted_out(chunks)) == text


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_stop_texts_end_an_answer_and_are_not_shown(size: int) -> None:
    text = "one two three\n\nUser: four"
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    assert sorted_out(chunks, ("User:", "\n\nUser")) == [("text", "one two three")]
    assert sorted_out(chunks, ("nothing", "")) == [("text", text)]


def test_a_text_is_given_on_as_soon_as_it_is_certain() -> None:
    sorter = TextFilter(Marks(), ("stop!",))
    assert list(sorter.feed("a < b st")) == [Piece("text", "a < b")]
    assert list(sorter.feed("ill")) == [Piece("text", " still")]
    assert list(sorter.feed(" sto")) == []
    assert list(sorter.feed("p!")) == [Piece("text", " ")]
    assert sorter.stopped == "stop!"
    assert list(sorter.feed("more")) == list(sorter.end()) == []


def test_half_a_character_is_held_back_and_dropped_at_the_end() -> None:
    sorter = TextFilter(Marks())
    assert list(sorter.feed("caf\ufffd")) == [Piece("text", "caf")]
    assert list(sorter.feed("x")) == [Piece("text", "\ufffdx")]
    assert list(sorter.feed("y\ufffd\ufffd")) == [Piece("text", "y")]
    assert list(sorter.end()) == []


def test_a_thought_may_have_begun_in_the_prompt() -> None:
    assert sorted_out(["so</th", "ink>  yes"], thinking=True) == [
        ("thought", "so"),
        ("text", "yes"),
    ]
    assert sorted_out(["without end"], thinking=True) == [("thought", "without end")]


# -- the text of a call ------------------------------------------------------------------------

CALL = '{"name": "run_code", "arguments": {"code": "print(\\"{1}\\")", "n": [1, 2]}} '


@given(st.lists(st.integers(0, len(CALL)), max_size=8))
def test_arguments_are_told_as_they_come(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(CALL)]
    progress = CallProgress()
    told = [progress.feed(CALL[a:b]) for a, b in pairwise(places)]
    assert json.loads("".join(told)) == {"code": 'print("{1}")', "n": [1, 2]}
    assert progress.name == "run_code"


def read(text: str) -> list[ToolCall]:
    progress = CallProgress()
    progress.feed(text)
    return whole_calls(progress, parse_json_call, lambda: "id")


def test_calls_are_read_in_the_shapes_that_models_write() -> None:
    wanted = [ToolCall("id", "f", {"a": 1})]
    assert read('{"name": "f", "arguments": {"a": 1}}') == wanted
    assert read('{"name": "f", "parameters": {"a": 1}}') == wanted
    assert read('{"name": "f", "arguments": "{\\"a\\": 1}"}') == wanted
    assert read('[{"name": "f", "arguments": {"a": 1}}]') == wanted
    assert read('{"name": "f"}') == read('{"name": "f", "arguments": ""}') == [ToolCall("id", "f")]


def test_what_is_no_call_is_kept_as_it_came() -> None:
    assert read('{"name": "f", "arguments": {"a": }') == [ToolCall("id", "f", unreadable='{"a": }')]
    assert read('{"name": "f", "arguments": [1]}') == [ToolCall("id", "f", unreadable="[1]}")]
    assert read("not even JSON") == []


def test_marks_are_the_models_own() -> None:
    sorter = TextFilter(Marks(call_start="[TOOL_CALLS]", call_end="", think_start="[THINK]"))
    text = 'Look. [TOOL_CALLS][{"name": "f", "arguments": {}}]'
    pieces = [*sorter.feed(text), *sorter.end()]
    written = text.removeprefix("Look. [TOOL_CALLS]")
    assert pieces == [Piece("text", "Look."), Piece("call", written)]
    assert sorter.mode == "call"
