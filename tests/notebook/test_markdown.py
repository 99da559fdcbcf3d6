"""Pieces of the card: nothing that comes from data can become markup."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ovagent_jupyter.notebook.markdown import code_block, escape, inline_code, seconds, table_code

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "![x](http://evil.example/?q=1)",
    "[click](javascript:alert(1))",
    "a | b",
    "**bold** _it_ `code` ``` fence",
    "$$x$$ &lt; <script>",
    "line\nbreak\n# heading",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_renders_as_the_text_itself(text: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(escape(text))
    inline = next(token for token in tokens if token.type == "inline")
    assert {child.type for child in inline.children or []} <= {"text", "text_special"}
    shown = "".join(child.content for child in inline.children or [])
    assert shown == " ".join(text.split())


@given(st.text(alphabet="`ab \n|<", max_size=30))
def test_inline_code_cannot_be_left(text: str) -> None:
    flat = " ".join(text.split())
    tokens = MarkdownIt("commonmark").parse(inline_code(text) if flat else "x")
    inline = next(token for token in tokens if token.type == "inline")
    assert {child.type for child in inline.children or []} <= {"code_inline", "text"}
    if flat:
        assert [child.type for child in inline.children or []] == ["code_inline"]


@given(st.text(alphabet="`ab\n~ ", max_size=40))
def test_a_code_block_cannot_be_left(code: str) -> None:
    tokens = MarkdownIt("commonmark").parse(code_block(code) + "\n\nafter")
    assert [token.type for token in tokens][:2] == ["fence", "paragraph_open"]


def test_a_bar_cannot_end_a_table_cell() -> None:
    assert "|" not in table_code("a|b")


@pytest.mark.parametrize(
    ("duration", "shown"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.97, "10 s"), (61, "1 min 1 s")]
)
def test_durations(duration: float, shown: str) -> None:
    assert seconds(duration) == shown
