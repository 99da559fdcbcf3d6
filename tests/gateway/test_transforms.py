"""What is taken from an answer, and that its pieces still add up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovagent_jupyter.config.gateway import TransformsConfig
from ovagent_jupyter.errors import StreamInterrupted
from ovagent_jupyter.gateway.transforms import (
    TRANSFORMS,
    Transforms,
    extract_code,
    extract_json,
    find_json,
    plain_text,
    strip,
)
from ovagent_jupyter.messages import Message, ReasoningPart, TextPart, ToolCall
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest, Reply
from tests.gateway.layered import ask, through
from tests.gateway.played import Played, answer, end, read, said


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("Sure:\n\n```py\na\n```\nthen\n\n~~~python\nb\n~~~\n", "a\n\nb"),
        ("```bash\npip\n```\n```python\nx\n```", "x"),
        ("```\nno language\n```", "no language"),
        ("````python\ns = '''```'''\n````", "s = '''```'''"),
        ("1. do\n\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y"),
        ("```python\nnever closed", "never closed"),
        ("  x = 1 \n", "x = 1"),
        ("use `x` here", "use `x` here"),
    ],
)
def test_code_is_what_is_in_the_fences(text: str, code: str) -> None:
    assert extract_code(text) == code


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('\ufeff {"a": 1}\n', {"a": 1}),
        ('Here:\n```json\n{"a": [1, 2]}\n```\nDone.', {"a": [1, 2]}),
        ('The answer is {"a": {"b": "}"}} I think [sic].', {"a": {"b": "}"}}),
        ('See [1]. {"a": 1, "b": 2} and {"a": 1}', {"a": 1, "b": 2}),
        ("[1, 2]", [1, 2]),
        ("42", 42),
    ],
)
def test_json_is_found_where_it_is(text: str, value: object) -> None:
    written, found = find_json(text)
    assert found == value
    assert written in text
    assert extract_json(text) == written


@pytest.mark.parametrize(
    "text", ["", "no", "{", '{"a": 1,}', "{'a': 1}", '{"a": NaN}', "[" * 100_000]
)
def test_what_is_no_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        find_json(text)
    assert extract_json(text) == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
        max_leaves=20,
    )
)
def test_any_object_is_found_in_prose(value: object) -> None:
    import json

    for ascii_ in (True, False):
        text = f"So: {json.dumps({'value': value}, ensure_ascii=ascii_)} That is it."
        assert find_json(text)[1] == {"value": value}


def test_markdown_becomes_what_is_read_aloud() -> None:
    text = (
        "# Title\n\nSome **bold** and [a link](http://x) and `code`.\n\n- one\n- two\n\n"
        "1. first\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nx = 1\n```\n<b>html</b>\n"
    )
    assert plain_text(text) == (
        "Title\n\nSome bold and a link and code.\n\n- one\n\n- two\n\n1. first\n\na\tb\n\n1\t2\n\n"
        "x = 1\n\nhtml"
    )


@given(st.text())
def test_every_transform_takes_every_text(text: str) -> None:
    for name, change in TRANSFORMS.items():
        assert isinstance(change(text), str), name
    assert strip(strip(text)) == strip(text)


def test_the_names_are_those_of_the_settings() -> None:
    assert TransformsConfig(answer=tuple(TRANSFORMS)).answer == tuple(TRANSFORMS)


# -- the layer ----------------------------------------------------------------------------------


async def test_pieces_add_up_to_the_changed_answer() -> None:
    client = Played([answer(" So:\n```python\n", "x = 1\n", "```\n ")])
    layer = Transforms(["extract_code", "strip", str.upper])
    text, reply = await read(through(layer, client, ask()))
    assert text == reply.message.text == "X = 1"


async def test_thoughts_and_calls_stream_while_text_waits() -> None:
    call = ToolCall("c", "run", {})
    message = Message("assistant", (ReasoningPart("hm"), TextPart(" a "), call))
    last = Reply(message=message, finish_reason="tool_calls")
    pieces = [
        ModelDelta(reasoning="h"),
        *said(" a"),
        ModelDelta(text=" ", reasoning="m"),
        ModelDelta(tool_call=call),
        ModelDelta(finish_reason="tool_calls", reply=last),
    ]
    got = [delta async for delta in through(Transforms(["strip"]), Played([pieces]), ask())]
    assert [delta.reasoning for delta in got] == ["h", "m", "", "", ""]
    assert [delta.text for delta in got] == ["", "", "", "a", ""]
    assert got[2].tool_call == call
    assert got[-1].reply is not None
    assert got[-1].reply.message.parts == (ReasoningPart("hm"), TextPart("a"), call)


async def test_a_refusal_is_left_as_it_is() -> None:
    client = Played([[*said(" No. "), end(" No. ", reason="refused")]])
    text, reply = await read(through(Transforms(["strip"]), client, ask()))
    assert text == reply.message.text == " No. "


async def test_without_changes_the_stream_is_the_same() -> None:
    client = Played([answer("a")])
    stream = client.stream(ask().request)
    assert Transforms()(ask(), lambda _: stream) is stream
    await stream.aclose()


async def test_requests_are_changed_in_order() -> None:
    def louder(request: ModelRequest) -> ModelRequest:
        return replace(request, seed=(request.seed or 1) * 2)

    client = Played([answer("a")])
    asked = ask()
    await read(through(Transforms(request=[louder, louder]), client, asked))
    assert client.asked[0].seed == 4
    assert asked.request.seed is None


async def test_an_interruption_keeps_the_text_that_was_held_back() -> None:
    broken = StreamInterrupted("It broke.", partial=Message("assistant", (TextPart("half"),)))

    async def breaks():
        yield said("half")[0]
        raise broken

    with pytest.raises(StreamInterrupted) as caught:
        await read(Transforms(["strip"])(ask(), lambda _: breaks()))
    assert caught.value.partial == broken.partial
