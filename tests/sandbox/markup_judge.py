"""Looks for what acts in a display: script, requests, overlays, forms, hidden text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from tests.sandbox.attack import Judge

if TYPE_CHECKING:
    from tests.sandbox.faces import Shot
    from tests.sandbox.witness import Witness

_ACTIVE_TAGS = frozenset(
    "script iframe object embed form input button textarea meta link base frame applet".split()
)
_ADDRESSES = frozenset(
    "href src action formaction data xlink:href srcset poster background".split()
)
_LOADING = _ADDRESSES - {"href", "xlink:href"}
_CODE = re.compile(
    r"^[\s\x00-\x20]*(?:javascript|vbscript|livescript|data:text/html|data:image/svg)", re.I
)
_STYLE = re.compile(
    r"url\s*\(|@import|expression\s*\(|position\s*:\s*(?:fixed|absolute|sticky)", re.I
)
_LATEX = re.compile(
    r"\\(?:href|url|includegraphics|require|class|cssId|style|data|unicode|input|write)\b"
)
_ESCAPE = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x80-\x9f]|\x07")
_HIDDEN = re.compile("[\U000e0000-\U000e007f\u202a-\u202e\u2066-\u2069]|\x1b\\[(?:[0-9;]*;)?8m")


class _Reader(HTMLParser):
    """Collects what acts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _ACTIVE_TAGS:
            self.found.append(f"<{tag}>")
        self._style = tag == "style"
        for name, value in attrs:
            text = value or ""
            if name.startswith("on"):
                self.found.append(f"{name}=")
            # A drawing in an image element runs no script and asks for nothing.
            drawn = tag == "img" and name == "src" and text.startswith("data:image/svg+xml;base64,")
            if name in _ADDRESSES and _CODE.match(text) and not drawn:
                self.found.append(f"{name}={text[:20]}")
            if name in _LOADING and re.match(r"\s*(?:https?:)?//", text, re.I):
                self.found.append(f"a request by {name}=")
            if name == "style" and _STYLE.search(text):
                self.found.append(f"style={text[:30]}")

    def handle_data(self, data: str) -> None:
        if self._style and _STYLE.search(data):
            self.found.append(f"<style> {data[:30]}")

    def handle_endtag(self, tag: str) -> None:
        self._style = False


def active_parts(markup: str) -> list[str]:
    """What acts in a piece of HTML or SVG."""
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    return reader.found


def acts(witness: Witness, shot: Shot) -> str:
    """Something that acts was passed on to the page."""
    for output in shot.outputs:
        for mime, text in output.data.items():
            if mime in {"text/html", "image/svg+xml", "text/markdown"}:
                found = active_parts(text)
                if found:
                    return f"{mime} with {found[0]}"
            elif mime == "text/latex":
                if _LATEX.search(text):
                    return "text/latex with a command that acts"
            elif mime not in {"text/plain", "image/png", "image/jpeg", "application/json"}:
                return f"the type {mime} passed"
    return ""


def escapes(witness: Witness, shot: Shot) -> str:
    """A terminal escape other than a colour was passed on."""
    found = _ESCAPE.search(shot.text)
    return f"the escape {shot.text[found.start() : found.start() + 6]!r} passed" if found else ""


def hides(witness: Witness, shot: Shot) -> str:
    """Text that a model reads and a user does not see was passed on."""
    found = _HIDDEN.search(shot.text)
    return f"hidden text by {found[0]!a} passed" if found else ""


def larger_than(characters: int) -> Judge:
    """More than so much of the output reached the parent."""

    def judge(witness: Witness, shot: Shot) -> str:
        if shot.status in {"hung", "raised"}:
            return f"the parent {shot.status}: {shot.error}"
        size = sum(len(o.text) + sum(map(len, o.data.values())) for o in shot.outputs)
        return f"{size:,} characters came through" if size > characters else ""

    return judge


def more_than(count: int) -> Judge:
    """More than so many outputs reached the parent."""

    def judge(witness: Witness, shot: Shot) -> str:
        if shot.status in {"hung", "raised"}:
            return f"the parent {shot.status}: {shot.error}"
        return f"{len(shot.outputs):,} outputs came through" if len(shot.outputs) > count else ""

    return judge
