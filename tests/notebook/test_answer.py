"""The answer of a model in a cell: it grows in one place, and can only show."""

from __future__ import annotations

from typing import Any

from ovagent_jupyter.notebook.answer import MOST_SHOWN, Answer
from ovagent_jupyter.storage.redaction import Redactor


class Pages:
    """Keeps what is published, as a front end would show it."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.updates: list[bool] = []

    def publish(self, data: dict[str, Any], metadata: dict[str, Any], **options: Any) -> None:
        """Keep one display."""
        self.shown.append(data)
        self.updates.append(options["update"])


def test_an_answer_is_one_display_that_is_updated() -> None:
    pages = Pages()
    answer = Answer(pages, "a")
    answer.add("Cells *are*", "")
    answer.paint()
    answer.add(" counted.", "")
    answer.end({"record": 1})
    assert pages.updates == [False, True]
    assert pages.shown[-1]["text/plain"] == "Cells *are* counted."
    assert "<em>are</em>" in pages.shown[-1]["text/html"]
    assert pages.shown[-1]["record"] == 1


def test_nothing_is_painted_twice_or_without_need() -> None:
    pages = Pages()
    answer = Answer(pages, "a")
    answer.paint()
    answer.paint(whole=True)
    assert pages.shown == []


def test_a_model_cannot_fetch_or_run_anything_in_the_notebook() -> None:
    pages = Pages()
    answer = Answer(pages, "a")
    answer.add(
        "<script>alert(1)</script>\n\n![x](https://example.org/track.png)\n\n"
        '<img src="https://example.org/a.png" onerror="alert(1)">',
        "</pre><script>alert(2)</script>",
    )
    answer.end({})
    markup = pages.shown[-1]["text/html"]
    assert "<script" not in markup
    assert "<img" not in markup


def test_what_is_too_long_to_be_rendered_is_shown_as_written() -> None:
    pages = Pages()
    answer = Answer(pages, "a")
    answer.add("a <b> " * 100_000, "")
    answer.end({})
    assert pages.shown[-1]["text/html"].startswith("<pre>a &lt;b&gt;")


def test_a_key_that_a_model_repeats_is_not_saved_with_the_notebook() -> None:
    pages = Pages()
    answer = Answer(pages, "a", Redactor({"MY_API_KEY": "planted-key-0123"}).text)
    for piece in ("your key is planted", "-key", "-0123."):
        answer.add(piece, piece)
        answer.paint(whole=True)
    answer.end({})
    assert "planted-key-0123" not in str(pages.shown[-1])
    assert "[redacted]" in pages.shown[-1]["text/plain"]


def test_an_endless_answer_is_not_painted_without_end() -> None:
    pages = Pages()
    answer = Answer(pages, "a")
    for _ in range(30):
        answer.add("a" * 50_000, "")
    answer.end({})
    assert len(pages.shown[-1]["text/plain"]) < MOST_SHOWN + 200
    assert "1,500,000 characters" in pages.shown[-1]["text/plain"]
