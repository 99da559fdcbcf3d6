"""What is done to requests and to answers: strip, take the code, the JSON or the plain text."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ovagent_jupyter.config.gateway import Transform
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.messages import Message, Part, TextPart
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest

if TYPE_CHECKING:
    from markdown_it.token import Token

MOST_TRIES = 64
"""Brackets of a text that are tried as the beginning of its JSON."""
PYTHON = frozenset({"python", "py", "python3", "ipython"})
"""Languages of a fence whose code we run."""
_INVISIBLE = "\ufeff\u200b\u2060"


# -- texts ---------------------------------------------------------------------------------------


def strip(text: str) -> str:
    """The text without blanks and invisible characters at its ends."""
    return text.strip(_INVISIBLE).strip().strip(_INVISIBLE)


def extract_code(text: str) -> str:
    """The fenced blocks of an answer, those of Python if there are any; else all of it."""
    blocks = list(_fences(text))
    python = [code for language, code in blocks if language in PYTHON]
    return "\n\n".join(python or [code for _, code in blocks]) or strip(text)


def extract_json(text: str) -> str:
    """The JSON in an answer, as it was written; all of it where there is none."""
    try:
        return find_json(text)[0]
    except ValueError:
        return text


def plain_text(text: str) -> str:
    """Markdown as the text that a reader would hear: no stars, fences, links or HTML."""
    return "\n\n".join(filter(None, _blocks(_markdown(text)))).strip()


TRANSFORMS: Mapping[Transform, Callable[[str], str]] = {
    "strip": strip,
    "extract_code": extract_code,
    "extract_json": extract_json,
    "plain_text": plain_text,
}
"""What can be done to an answer, by its name in the settings."""


def find_json(text: str) -> tuple[str, Any]:
    """The JSON of an answer, as written and as a value: all of it, a fenced block, or a part.

    Raises:
        ValueError: There is none.
    """
    text = strip(text)
    problem: ValueError | None = None
    for candidate in (text, *(code for _, code in _fences(text))):
        try:
            return candidate, _parsed(candidate)
        except ValueError as error:
            problem = problem or error
    found = [
        part
        for bracket in list(re.finditer(r"[{\[]", text))[:MOST_TRIES]
        if (part := _part_at(text, bracket.start())) is not None
    ]
    objects = [part for part in found if isinstance(part[1], dict)]
    if not found:
        raise problem or ValueError("there is no JSON in it")
    return max(objects or found, key=lambda part: len(part[0]))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error


def _part_at(text: str, start: int) -> tuple[str, Any] | None:
    try:
        value, end = json.JSONDecoder(parse_constant=_no_constant).raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return text[start:end], value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _markdown(text: str) -> Sequence[Token]:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").parse(text)


def _fences(text: str) -> Iterator[tuple[str, str]]:
    """Language and code of each fenced block; one that is not closed ends with the text."""
    if "```" not in text and "~~~" not in text:
        return
    for token in _markdown(text):
        if token.type == "fence":
            yield token.info.strip().split(" ")[0].lower(), token.content.rstrip("\n")


def _blocks(tokens: Sequence[Token]) -> Iterator[str]:
    """The text of each paragraph, heading, item, block of code and row of a table."""
    row: list[str] | None = None
    bullet = ""
    for token in tokens:
        match token.type:
            case "tr_open":
                row = []
            case "tr_close":
                yield "\t".join(row or [])
                row = None
            case "list_item_open":
                bullet = f"{token.info}. " if token.info else "- "
            case "fence" | "code_block":
                yield token.content.rstrip("\n")
            case "inline":
                text = bullet + "".join(_spoken(token))
                bullet = ""
                if row is None:
                    yield text
                else:
                    row.append(text)


def _spoken(inline: Token) -> Iterator[str]:
    for child in inline.children or ():
        if child.type in {"text", "code_inline"}:
            yield child.content
        elif child.type in {"softbreak", "hardbreak"}:
            yield "\n"
        elif child.type == "image":
            yield child.content


# -- the layer -----------------------------------------------------------------------------------


async def without_text(
    deltas: AsyncGenerator[ModelDelta, None],
) -> AsyncGenerator[ModelDelta, None]:
    """The pieces as they come, their text held back; the last one has it in its reply."""
    async for delta in deltas:
        silent = replace(delta, text="") if delta.text else delta
        if silent.has_content or silent.reply is not None:
            yield silent


def with_text(message: Message, text: str) -> Message:
    """The message with that text in the place of its own."""
    parts: list[Part] = [part for part in message.parts if not isinstance(part, TextPart)]
    first = next((n for n, part in enumerate(message.parts) if isinstance(part, TextPart)), 0)
    parts.insert(min(first, len(parts)), TextPart(text))
    return replace(message, parts=tuple(parts))


class Transforms:
    """Changes what is asked, and what is answered.

    A text that is to be changed has to be whole, so that it is passed on in one piece at the end;
    what a model thinks and the calls that it writes stream as they come. Without changes of the
    answer nothing is held back.

    Args:
        answer: Done to the text of an answer, in order: names of ``TRANSFORMS``, or functions.
        request: Done to each request, in order.
    """

    def __init__(
        self,
        answer: Iterable[Transform | Callable[[str], str]] = (),
        request: Iterable[Callable[[ModelRequest], ModelRequest]] = (),
    ) -> None:
        self._answer = [each if callable(each) else TRANSFORMS[each] for each in answer]
        self._request = list(request)

    def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """Pass on the answer as it is wanted."""
        if self._request:
            asked = call.request
            for change in self._request:
                asked = change(asked)
            call = replace(call, request=asked)
        return self._changed(call, call_next) if self._answer else call_next(call)

    async def _changed(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        async with aclosing(call_next(call)) as deltas:
            async for delta in without_text(deltas):
                if delta.reply is None:
                    yield delta
                    continue
                text = delta.reply.message.text
                if delta.reply.finish_reason != "refused":
                    for change in self._answer:
                        text = change(text)
                if text:
                    yield ModelDelta(text=text)
                message = delta.reply.message
                changed = message if text == message.text else with_text(message, text)
                yield replace(delta, reply=replace(delta.reply, message=changed))
